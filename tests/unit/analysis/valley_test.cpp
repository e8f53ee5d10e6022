#include "thalweg/analysis/valley.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <cmath>

#include "models.hpp"
#include "thalweg/core/error.hpp"
#include "unit/support/memory_samples.hpp"
#include "unit/support/thread_communicator.hpp"

namespace thalweg::analysis::valley_test {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using thalweg::testing::linear_model;
using thalweg::testing::MemorySamples;
using thalweg::testing::mlp;
using thalweg::testing::random_parameters;
using thalweg::testing::random_samples;
using thalweg::testing::run_ranks;
using thalweg::testing::set;

at::Tensor wide(const at::Tensor& values) {
    return values.to(at::kDouble);
}

TEST(ValleyDirection, IsAsLongAsThePartTimesTheScale) {
    const auto graph = mlp(6, {8, 7}, 3, true);
    const auto theta = random_parameters(graph, 1);
    const auto trainable = graph.layout->trainable_size();
    for (const double scale : {0.2, 1.0, 2.0}) {
        const auto direction = valley_direction(graph, theta, {.scale = scale}, 1, 0);
        EXPECT_EQ(direction.numel(), graph.layout->size());
        EXPECT_NEAR(direction.norm().item<double>(), scale * wide(theta.trainable()).norm().item<double>(),
                    1e-9);
        EXPECT_EQ(direction.narrow(0, trainable, direction.numel() - trainable).abs().max().item<double>(),
                  0);
    }
    const auto part = valley_direction(graph, theta, {.scale = 0.5, .part = "layers.1"}, 1, 0);
    double squares = 0;
    for (const auto& entry : graph.layout->entries()) {
        const auto piece = part.narrow(0, entry.offset, entry.size);
        if (entry.name.starts_with("layers.1.")) {
            squares += wide(theta.view(entry.name)).square().sum().item<double>();
        } else {
            EXPECT_EQ(piece.abs().max().item<double>(), 0) << entry.name;
        }
    }
    EXPECT_NEAR(part.norm().item<double>(), 0.5 * std::sqrt(squares), 1e-9);
    const auto first = valley_direction(graph, theta, {}, 1, 0);
    EXPECT_TRUE(at::equal(first, valley_direction(graph, theta, {}, 1, 0)));
    EXPECT_FALSE(at::equal(first, valley_direction(graph, theta, {}, 1, 1)));
    EXPECT_FALSE(at::equal(first, valley_direction(graph, theta, {}, 2, 0)));
}

TEST(ValleyDirection, HasSignsOnExactlyTheShareAskedFor) {
    const auto graph = mlp(6, {8, 7}, 3, true);
    const auto theta = random_parameters(graph, 1);
    theta.view("layers.0.bias").zero_();  // counts as positive
    const auto trainable = graph.layout->trainable_size();
    for (const double ratio : {0.0, 0.25, 0.5, 1.0}) {
        const auto direction =
            valley_direction(graph, theta, {.sign_ratio = ratio}, 1, 0).narrow(0, 0, trainable);
        const auto sign = at::where(theta.trainable().lt(0), -1.0, 1.0);
        const auto agree = direction.mul(sign).gt(0).sum().item<std::int64_t>();
        EXPECT_EQ(agree, std::llround(ratio * static_cast<double>(trainable)));
        // The magnitudes are those of the noise itself.
        const auto plain = valley_direction(graph, theta, {}, 1, 0).narrow(0, 0, trainable);
        EXPECT_TRUE(at::allclose(direction.abs(), plain.abs(), 1e-12, 1e-12));
    }
}

TEST(ValleyDirection, GivesEachFilterTheModelsLength) {
    const auto graph = mlp(6, {8, 7}, 3, true);
    const auto theta = random_parameters(graph, 1);
    theta.view("layers.0.weight")[3].zero_();
    const auto direction = valley_direction(graph, theta, {.scale = 0.5, .norm = "filter"}, 1, 0);
    for (const auto& entry : graph.layout->entries()) {
        const auto piece = direction.narrow(0, entry.offset, entry.size).view(entry.shape);
        if (entry.shape.size() < 2) {
            EXPECT_EQ(piece.abs().max().item<double>(), 0) << entry.name;
            continue;
        }
        for (std::int64_t row = 0; row < entry.shape.front(); ++row) {
            EXPECT_NEAR(piece[row].norm().item<double>(),
                        0.5 * wide(theta.view(entry.name))[row].norm().item<double>(), 1e-9);
        }
    }
}

TEST(Parts, AreClassifierFeaturesNormsModulesAndTensors) {
    const auto graph = mlp(6, {8, 7}, 3, true);
    const auto size = [&](const std::string& part) { return part_places(graph, part).size(); };
    EXPECT_EQ(size("all"), static_cast<std::size_t>(graph.layout->trainable_size()));
    EXPECT_EQ(size("classifier"), 7u * 3 + 3);
    EXPECT_EQ(size("features") + size("classifier"), size("all"));
    EXPECT_EQ(size("batch_norm"), 2u * (8 + 7));
    EXPECT_EQ(size("layers.1"), 8u * 7 + 7);
    EXPECT_EQ(size("layers"), size("layers.0") + size("layers.1"));
    EXPECT_EQ(size("layers.1.weight"), 8u * 7);
    for (const std::string part : {"layer.1", "", "norms.0.running_mean"}) {
        try {
            part_places(graph, part);
            ADD_FAILURE() << part;
        } catch (const core::UsageError& error) {
            EXPECT_THAT(error.what(), HasSubstr("layers.1"));
        }
    }
    try {
        part_places(mlp(6, {8}, 3), "batch_norm");
        ADD_FAILURE();
    } catch (const core::UsageError& error) {
        EXPECT_THAT(error.what(), HasSubstr("holds no trainable entries"));
        EXPECT_THAT(error.what(), HasSubstr("all, classifier, features, layers.0"));
        EXPECT_THAT(error.what(), Not(HasSubstr("did you mean")));
    }
}

/// One weight w = 1 on the input 1, logits (0, w + b): class 1 as long as w + b > 0. Noise on the weight alone, scaled to it.
struct OneSided {
    model::ModelGraph graph = linear_model(1, 2);
    model::Parameters theta = random_parameters(graph, 1);
    std::shared_ptr<MemorySamples> samples =
        std::make_shared<MemorySamples>(1, std::vector<float>{1}, std::vector<std::int64_t>{1});
    OneSided() {
        set(theta, "layers.0.weight", {0, 1});
        set(theta, "layers.0.bias", {0, -0.25});
    }
};

TEST(Valley, OfAOneSidedCaseIsKnown) {
    const OneSided net;
    core::SelfCommunicator alone;
    // ε = ±sign θ · |ε| with ‖ε‖ = ‖θ‖ = 1 over (0, 1); the parameters themselves: ε = θ, so w = 1 + λ.
    ValleyOptions options{.noise = core::Value::of("parameters"), .points = 5, .repeats = 3};
    options.part = "layers.0.weight";
    const auto grows = valley(net.graph, net.theta, *net.samples, options, 1, nullptr, alone);
    EXPECT_THAT(grows.lambdas, ElementsAre(-1, -0.5, 0, 0.5, 1));
    EXPECT_THAT(grows.accuracy, ElementsAre(0, 1, 1, 1, 1));  // w + b = −0.25 at λ = −1
    for (std::size_t p = 0; p < 5; ++p)
        EXPECT_NEAR(grows.loss[p], std::log1p(std::exp(-(0.75 + grows.lambdas[p]))), 1e-6);
    EXPECT_EQ(grows.asymmetry, 0.5);
    // Nothing is drawn: three repeats are one, and say nothing about how directions differ.
    EXPECT_TRUE(std::isnan(grows.asymmetry_low) && std::isnan(grows.asymmetry_high));
    EXPECT_THAT(grows.asymmetries, ElementsAre(0.5));
    ASSERT_EQ(grows.errors_by_repeat.size(), 1u);
    EXPECT_THAT(grows.errors_by_repeat[0], ElementsAre(1, 0, 0, 0, 0));
    EXPECT_FALSE(grows.sign_ratio.has_value());
    options.sign_ratio = 0;  // the mirror image
    const auto shrinks = valley(net.graph, net.theta, *net.samples, options, 1, nullptr, alone);
    EXPECT_THAT(shrinks.accuracy, ElementsAre(1, 1, 1, 1, 0));
    EXPECT_EQ(shrinks.asymmetry, -0.5);
    EXPECT_TRUE(std::isnan(shrinks.asymmetry_low));
    EXPECT_EQ(shrinks.sign_ratio, 0);
}

TEST(Valley, OfADirectionWithoutAPreferredSideIsSymmetric) {
    // Logits that are b alone, and labels that are fair coins: which side of b is better is a matter of chance.
    const auto graph = linear_model(1, 2);
    const auto theta = random_parameters(graph, 1);
    set(theta, "layers.0.weight", {0, 0});
    set(theta, "layers.0.bias", {1, 1});
    const auto samples = random_samples(400, 1, 2, 3);
    core::SelfCommunicator alone;
    ValleyOptions options{.repeats = 30};
    options.part = "layers.0.bias";
    const auto measured = valley(graph, theta, *samples, options, 1, nullptr, alone);
    EXPECT_LT(measured.asymmetry_low, 0);
    EXPECT_GT(measured.asymmetry_high, 0);
    EXPECT_LT(measured.asymmetry_low, measured.asymmetry);
}

TEST(Valley, HasAnIntervalWhereDirectionsDiffer) {
    const auto graph = mlp(6, {8}, 3);
    const auto theta = random_parameters(graph, 1);
    const auto samples = random_samples(50, 6, 3);
    core::SelfCommunicator alone;
    const auto repeats = [&](const std::string& noise, std::optional<double> ratio) {
        const ValleyOptions options{
            .noise = core::Value::of(noise), .sign_ratio = ratio, .points = 3, .repeats = 4};
        const auto found = valley(graph, theta, *samples, options, 1, nullptr, alone);
        EXPECT_EQ(std::isnan(found.asymmetry_low), found.asymmetries.size() == 1);
        return found.asymmetries.size();
    };
    for (const double ratio : {0.0, 1.0}) {
        EXPECT_EQ(repeats("sign", ratio), 1u);
        EXPECT_EQ(repeats("rademacher", ratio), 1u);  // the signs were all that it drew
        EXPECT_EQ(repeats("gaussian", ratio), 4u);
    }
    EXPECT_EQ(repeats("sign", std::nullopt), 1u);
    EXPECT_EQ(repeats("sign", 0.5), 4u);
    EXPECT_EQ(repeats("rademacher", std::nullopt), 4u);
}

TEST(Valley, MeansAndIntervalFollowFromTheRepeats) {
    const auto graph = mlp(6, {8}, 3);
    const auto theta = random_parameters(graph, 1);
    const auto samples = random_samples(200, 6, 3);
    core::SelfCommunicator alone;
    const auto measured = valley(graph, theta, *samples, {.points = 7, .repeats = 3}, 4, nullptr, alone);
    ASSERT_EQ(measured.asymmetries.size(), 3u);
    double sum = 0, squares = 0;
    for (std::size_t r = 0; r < 3; ++r) {
        const auto direction = valley_direction(graph, theta, {}, 4, static_cast<std::int64_t>(r));
        for (std::size_t p = 0; p < 7; ++p) {
            auto point = theta.clone();
            point.values.copy_(wide(theta.values) + measured.lambdas[p] * direction);
            EXPECT_EQ(measured.errors_by_repeat[r][p], 1 - evaluate_alone(graph, point, *samples).accuracy);
        }
        const auto& errors = measured.errors_by_repeat[r];
        EXPECT_NEAR(measured.asymmetries[r],
                    (errors[0] + errors[1] + errors[2] - errors[4] - errors[5] - errors[6]) / 3, 1e-12);
        sum += measured.asymmetries[r];
    }
    EXPECT_NEAR(measured.asymmetry, sum / 3, 1e-12);
    for (const double one : measured.asymmetries) squares += (one - sum / 3) * (one - sum / 3);
    constexpr double t_two_degrees = 4.302652729911275;  // 97.5%
    EXPECT_NEAR(measured.asymmetry_high - measured.asymmetry, t_two_degrees * std::sqrt(squares / 2 / 3),
                1e-9);
    EXPECT_NEAR(measured.accuracy[3], evaluate_alone(graph, theta, *samples).accuracy, 1e-12);
    for (std::size_t p = 0; p < 7; ++p) {
        double error = 0;
        for (const auto& errors : measured.errors_by_repeat) error += errors[p] / 3;
        EXPECT_NEAR(measured.accuracy[p], 1 - error, 1e-12);
    }
    const auto once = valley(graph, theta, *samples, {.points = 4, .repeats = 1}, 4, nullptr, alone);
    EXPECT_TRUE(std::isnan(once.asymmetry_low) && std::isnan(once.asymmetry_high));
}

TEST(Valley, TheSameBitsOnAnyNumberOfRanksWithFreshNormsToo) {
    const auto graph = mlp(6, {8, 7}, 3, true);
    const auto theta = random_parameters(graph, 1);
    const auto samples = random_samples(700, 6, 3), calibration = random_samples(600, 6, 3, 2);
    core::SelfCommunicator alone;
    std::vector<double> losses;
    for (const bool fresh : {false, true}) {
        const ValleyOptions options{
            .sign_ratio = 0.3, .norm = "filter", .points = 6, .repeats = 2, .reset_batch_norm = fresh};
        const auto expected = valley(graph, theta, *samples, options, 1, calibration, alone);
        run_ranks(3, [&](core::Communicator& communicator) {
            const auto mine = valley(graph, theta, *samples, options, 1, calibration, communicator);
            EXPECT_EQ(mine.loss, expected.loss);
            EXPECT_EQ(mine.accuracy, expected.accuracy);
            EXPECT_EQ(mine.asymmetries, expected.asymmetries);
        });
        losses.push_back(expected.loss.front());
    }
    EXPECT_NE(losses[0], losses[1]);
}

TEST(Valley, SaysWhatIsWrongOnEveryRank) {
    const auto graph = mlp(6, {8}, 3);
    const auto theta = random_parameters(graph, 1);
    theta.view("head.bias").zero_();
    const auto samples = random_samples(10, 6, 3);
    const auto message = [&](const ValleyOptions& options) -> std::string {
        std::string text;
        run_ranks(2, [&](core::Communicator& communicator) {
            try {
                valley(graph, theta, *samples, options, 1, nullptr, communicator);
                ADD_FAILURE() << "no error";
            } catch (const core::Error& error) {
                if (communicator.rank() == 0) text = error.what();
            }
        });
        return text;
    };
    EXPECT_THAT(message({.noise = core::Value::of("gausian")}), HasSubstr("gaussian"));
    EXPECT_THAT(message({.sign_ratio = 1.5}), HasSubstr("from 0 to 1"));
    EXPECT_THAT(message({.scale = 0}), HasSubstr("above 0"));
    EXPECT_THAT(message({.norm = "layer"}), HasSubstr("filter"));
    EXPECT_THAT(message({.points = 2}), HasSubstr("at least 3 points"));
    EXPECT_THAT(message({.repeats = 0}), HasSubstr("1 repeat"));
    EXPECT_THAT(message({.part = "tail"}), HasSubstr("head"));
    EXPECT_THAT(message({.norm = "filter", .part = "head.bias"}), HasSubstr("no filters"));
    EXPECT_THAT(message({.part = "head.bias"}), HasSubstr("direction is zero"));
    EXPECT_THAT(message({.reset_batch_norm = true}), HasSubstr("there are none"));
}

}  // namespace
}  // namespace thalweg::analysis::valley_test
