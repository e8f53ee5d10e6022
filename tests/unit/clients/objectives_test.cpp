#include <gtest/gtest.h>

#include <cmath>

#include "helpers.hpp"

namespace thalweg::clients::objectives_test {
namespace {

using test::objective;

TEST(Objectives, NoneIsEmpty) {
    EXPECT_TRUE(objective("none")->empty());
    EXPECT_TRUE(objective("{kind: fedprox, mu: 0}")->empty());
    EXPECT_TRUE(objective("{kind: fedsign, gamma: 0}")->empty());
    EXPECT_FALSE(objective("fedprox")->empty());
    EXPECT_FALSE(objective("fedsign")->empty());
}

TEST(Objectives, FedProxByHand) {
    const std::vector<float> local{1, 2, 3}, global{1, 0, 4};
    std::vector<float> gradient{10, 20, 30};
    // (0.5/2)·(0 + 4 + 1); gradient 0.5·(0, 2, −1)
    EXPECT_DOUBLE_EQ(objective("{kind: fedprox, mu: 0.5}")->add(local, global, gradient), 1.25);
    EXPECT_EQ(gradient, (std::vector<float>{10, 21, 29.5}));
}

TEST(Objectives, FedSignByHand) {
    const std::vector<float> local{2, -2, 3, -3, 0, 5}, global{1, 1, -1, -1, 1, 0};
    std::vector<float> gradient(6, 0.0F);
    // entries 1 and 2 have lost their sign: (6/6)·(2 + 3), pulled up and down; a zero on either side feels nothing
    EXPECT_DOUBLE_EQ(objective("{kind: fedsign, gamma: 6}")->add(local, global, gradient), 5.0);
    EXPECT_EQ(gradient, (std::vector<float>{0, -1, 1, 0, 0, 0}));
}

TEST(Objectives, GradientsAreTheSlopeOfTheValue) {
    core::Random random(2, "test");
    const std::size_t n = 37;
    std::vector<float> local(n), global(n);
    // Away from zero, where fedsign has its kink.
    for (auto& value : local)
        value = static_cast<float>(random.uniform(0.1, 2) * (random.below(2) == 0 ? 1 : -1));
    for (auto& value : global) value = static_cast<float>(random.normal());
    for (const char* yaml : {"{kind: fedprox, mu: 0.7}", "{kind: fedsign, gamma: 2.5}"}) {
        const auto term = objective(yaml);
        const auto value_at = [&](const std::vector<float>& at) {
            std::vector<float> ignored(n);
            return term->add(at, global, ignored);
        };
        std::vector<float> gradient(n, 0.0F);
        term->add(local, global, gradient);
        for (std::size_t i = 0; i < n; ++i) {
            auto up = local, down = local;
            up[i] += 0.015625F;
            down[i] -= 0.015625F;
            const double step = static_cast<double>(up[i]) - static_cast<double>(down[i]);
            EXPECT_NEAR(static_cast<double>(gradient[i]), (value_at(up) - value_at(down)) / step, 1e-4)
                << yaml << i;
        }
    }
}

TEST(Objectives, VanishAtTheStart) {
    const std::vector<float> same{1, -2, 3};
    for (const char* yaml : {"fedprox", "fedsign"}) {
        std::vector<float> gradient(3, 0.0F);
        EXPECT_EQ(objective(yaml)->add(same, same, gradient), 0.0);
        EXPECT_EQ(gradient, std::vector<float>(3, 0.0F));
    }
}

}  // namespace
}  // namespace thalweg::clients::objectives_test
