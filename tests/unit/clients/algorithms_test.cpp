#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "helpers.hpp"

namespace thalweg::clients::algorithms_test {
namespace {

using test::algorithm;
using ::testing::HasSubstr;

TEST(Algorithms, FollowTorchOptim) {
    // tests/golden/optimizers.py has the problem.
    const auto cases = core::read_yaml(std::string(THALWEG_TEST_DIR) + "/golden/optimizers.yaml");
    ASSERT_EQ(cases.items().size(), 6U);
    for (const auto& item : cases.items()) {
        const auto options = core::resolve_plugin("algorithm", "kind", item["algorithm"], "algorithm");
        const auto ours = core::Registry<std::unique_ptr<Algorithm>>::make(options);
        std::vector<float> theta{0.5F, 0.25F, 0.0F, -0.25F, -0.5F}, gradient(5);
        ours->start(5);
        std::int64_t step = 0;
        for (const auto& record : item["after"].items()) {
            for (; step < record["steps"].as_int(); ++step) {
                for (std::size_t i = 0; i < 5; ++i) {
                    const auto index = static_cast<double>(i);
                    gradient[i] = static_cast<float>(0.5 * (index + 1) * static_cast<double>(theta[i]) +
                                                     std::cos(index + static_cast<double>(step)));
                }
                ours->step(theta, gradient, ours->learning_rate());
            }
            const auto expected = record["values"].as_numbers();
            for (std::size_t i = 0; i < 5; ++i) {
                EXPECT_NEAR(static_cast<double>(theta[i]), expected[i], 2e-6)
                    << core::to_flow(options) << ", entry " << i << " after " << step;
            }
        }
    }
}

/// The textbook, one entry at a time and in double.
struct SgdReference {
    double lr, momentum, decay;
    bool nesterov;
    double buffer = 0;
    void step(double& theta, double gradient) {
        const double d = gradient + decay * theta;
        buffer = momentum * buffer + d;
        theta -= lr * (nesterov ? d + momentum * buffer : buffer);
    }
};

TEST(Algorithms, SgdMatchesTheTextbookAtEveryLength) {
    core::Random random(1, "test");
    for (const bool nesterov : {false, true}) {
        for (const std::size_t n : {1U, 3U, 8U, 1003U}) {
            const auto ours =
                algorithm(std::string("{kind: sgd, lr: 0.1, momentum: 0.5, weight_decay: 0.01, nesterov: ") +
                          (nesterov ? "true}" : "false}"));
            std::vector<SgdReference> references(n, SgdReference{0.1, 0.5, 0.01, nesterov});
            std::vector<float> theta(n, 1.0F), gradient(n);
            std::vector<double> expected(n, 1.0);
            ours->start(static_cast<std::int64_t>(n));
            for (int step = 0; step < 4; ++step) {
                for (std::size_t i = 0; i < n; ++i) {
                    gradient[i] = static_cast<float>(random.normal());
                    references[i].step(expected[i], static_cast<double>(gradient[i]));
                }
                ours->step(theta, gradient, 0.1);
            }
            for (std::size_t i = 0; i < n; ++i) {
                ASSERT_NEAR(static_cast<double>(theta[i]), expected[i], 2e-6) << i << " of " << n;
            }
        }
    }
}

TEST(Algorithms, StartForgetsEverything) {
    for (const char* yaml :
         {"{kind: sgd, momentum: 0.9}", "{kind: sgd, momentum: 0.9, nesterov: true}", "adam"}) {
        const auto ours = algorithm(yaml);
        const std::vector<float> gradient(9, 0.3F);
        std::vector<float> first(9, 1.0F), second(9, 1.0F);
        ours->start(9);
        for (int i = 0; i < 3; ++i) ours->step(first, gradient, 0.1);
        ours->start(9);
        for (int i = 0; i < 3; ++i) ours->step(second, gradient, 0.1);
        EXPECT_EQ(std::memcmp(first.data(), second.data(), 9 * sizeof(float)), 0) << yaml;
    }
}

TEST(Algorithms, TheGivenLearningRateCounts) {
    for (const char* yaml : {"{kind: sgd, lr: 0.5}", "{kind: adam, lr: 0.5}"}) {
        const auto ours = algorithm(yaml);
        EXPECT_EQ(ours->learning_rate(), 0.5);
        std::vector<float> theta(2, 1.0F);
        ours->start(2);
        ours->step(theta, std::vector<float>(2, 1.0F), 0.0);
        EXPECT_EQ(theta, (std::vector<float>{1.0F, 1.0F})) << yaml;
    }
}

TEST(Algorithms, RefuseOptionsThatMakeNoSense) {
    const auto words = [](const char* yaml) {
        return test::message_of<core::UsageError>([&] { algorithm(yaml); });
    };
    EXPECT_THAT(words("{kind: sgd, nesterov: true}"), HasSubstr("nesterov needs a momentum"));
    EXPECT_THAT(words("{kind: adam, betas: [0.9]}"), HasSubstr("two numbers"));
    EXPECT_THAT(words("{kind: adam, betas: [0.9, 1.0]}"), HasSubstr("below 1"));
    EXPECT_THAT(words("{kind: sgd, lr: 0}"), HasSubstr("lr"));
    EXPECT_THAT(words("{kind: sgd, momentum: 1}"), HasSubstr("momentum"));
    EXPECT_THAT(words("adagrad"), HasSubstr("adam"));
}

}  // namespace
}  // namespace thalweg::clients::algorithms_test
