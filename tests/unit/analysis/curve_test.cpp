#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <cmath>
#include <limits>

#include "models.hpp"
#include "thalweg/analysis/measures.hpp"
#include "thalweg/core/error.hpp"
#include "unit/support/memory_samples.hpp"
#include "unit/support/thread_communicator.hpp"

namespace thalweg::analysis::curve_test {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using thalweg::testing::linear_model;
using thalweg::testing::MemorySamples;
using thalweg::testing::mlp;
using thalweg::testing::random_parameters;
using thalweg::testing::random_samples;
using thalweg::testing::run_ranks;
using thalweg::testing::set;

constexpr double nan = std::numeric_limits<double>::quiet_NaN();

TEST(BarrierOf, IsTheLargestExcessOverTheLine) {
    EXPECT_EQ(barrier_of({0, 0.5, 1}, {1, 3, 2}), 1.5);
    EXPECT_EQ(barrier_of({0, 0.5, 1}, {1, 1.5, 2}), 0);
    EXPECT_EQ(barrier_of({0, 0.5, 1}, {1, 0.5, 2}), 0);  // a valley is no barrier
    EXPECT_EQ(barrier_of({0, 0.25, 0.5, 1}, {4, 4, 4, 0}), 2);
    EXPECT_EQ(barrier_of({-1, 0, 3}, {0, 2, 4}), 1);  // unequal steps
    EXPECT_EQ(barrier_of({0, 1}, {0.1, 0.7}), 0);
    EXPECT_EQ(barrier_of({0, 0.1, 0.3, 1}, {0.1, 0.1, 0.1, 0.1}), 0);
    EXPECT_TRUE(std::isnan(barrier_of({0, 0.5, 1}, {1, nan, 1})));
    EXPECT_TRUE(std::isnan(barrier_of({0, 0.5, 1}, {1, 1, nan})));
    EXPECT_TRUE(std::isinf(barrier_of({0, 0.5, 1}, {1, std::numeric_limits<double>::infinity(), 1})));
    EXPECT_THROW(barrier_of({0}, {1}), std::logic_error);
    EXPECT_THROW(barrier_of({0, 1}, {1, 2, 3}), std::logic_error);
}

TEST(Interpolate, EndsAreExactBuffersAreLinearCountersAreTheFirsts) {
    const auto graph = mlp(3, {4}, 2, true);
    const auto a = random_parameters(graph, 1), b = random_parameters(graph, 2);
    a.counters.fill_(7);
    b.counters.fill_(9);
    EXPECT_TRUE(at::equal(interpolate(a, b, 0).values, a.values));
    EXPECT_TRUE(at::equal(interpolate(a, b, 1).values, b.values));
    for (const double lambda : {0.0, 0.3, 1.0})
        EXPECT_TRUE(at::equal(interpolate(a, b, lambda).counters, a.counters));
    const auto expected = (a.values.to(at::kDouble) * 0.7 + b.values.to(at::kDouble) * 0.3);
    EXPECT_TRUE(at::allclose(interpolate(a, b, 0.3).values.to(at::kDouble), expected, 1e-6, 1e-7));
    EXPECT_TRUE(at::allclose(interpolate(a.to_double(), b.to_double(), 0.3).values, expected, 1e-14, 1e-15));
    EXPECT_TRUE(at::equal(interpolate(a, a, 0.3).values, a.values));
    EXPECT_FALSE(interpolate(a, b, 0).values.is_alias_of(a.values));
}

TEST(LinearCurve, OfAModelWithItselfIsFlat) {
    const auto graph = mlp(6, {8, 8}, 3);
    const auto a = random_parameters(graph, 1);
    const auto train = random_samples(700, 6, 3, 1), test = random_samples(300, 6, 3, 2);
    core::SelfCommunicator alone;
    const auto curve = linear_curve(graph, a, a.clone(), {{"train", train.get()}, {"test", test.get()}},
                                    {.points = 7, .finish = "none"}, train, alone);
    ASSERT_EQ(curve.splits.size(), 2u);
    EXPECT_EQ(curve.splits[0].first, "train");
    EXPECT_EQ(curve.splits[1].first, "test");
    EXPECT_EQ(curve.lambdas.size(), 7u);
    EXPECT_EQ(curve.lambdas[3], 0.5);
    for (const auto& [name, split] : curve.splits) {
        const auto expected = evaluate_alone(graph, a, name == "train" ? *train : *test);
        EXPECT_THAT(split.loss, Each(expected.loss));
        EXPECT_THAT(split.accuracy, Each(expected.accuracy));
        EXPECT_EQ(split.loss.size(), 7u);
        EXPECT_EQ(split.loss_barrier, 0);
        EXPECT_EQ(split.error_barrier, 0);
    }
    EXPECT_THAT(curve.variance_ratio, ElementsAre(1, 1));
}

TEST(LinearCurve, OfAConvexLossHasNoBarrier) {
    const auto graph = linear_model(5, 4);
    const auto samples = random_samples(600, 5, 4);
    core::SelfCommunicator alone;
    for (const std::uint64_t seed : {1, 2, 3}) {
        const auto split = barrier(graph, random_parameters(graph, seed), random_parameters(graph, seed + 10),
                                   *samples, 11, alone);
        EXPECT_EQ(split.loss_barrier, 0);
        EXPECT_LT(split.loss[5], (split.loss.front() + split.loss.back()) / 2);
    }
}

/// Two neurons that compute |x|, and the same with the neurons exchanged: logits (0, |x| − 1). At λ the line between
/// them computes (0, |1 − 2λ||x| − 1): at the midpoint nothing is left of the input.
struct TwoNeurons {
    model::ModelGraph graph = mlp(1, {2}, 2);
    model::Parameters a = random_parameters(graph, 1), b;
    std::shared_ptr<MemorySamples> samples =
        std::make_shared<MemorySamples>(1, std::vector<float>{3, -3, 0}, std::vector<std::int64_t>{1, 1, 0});

    TwoNeurons() {
        set(a, "layers.0.weight", {1, -1});
        set(a, "layers.0.bias", {0, 0});
        set(a, "head.weight", {0, 0, 1, 1});
        set(a, "head.bias", {0, -1});
        b = a.clone();
        set(b, "layers.0.weight", {-1, 1});
    }
    static double loss(double lambda) {
        const double z = 3 * std::abs(1 - 2 * lambda) - 1;
        return (2 * std::log1p(std::exp(-z)) + std::log1p(std::exp(-1))) / 3;
    }
};

TEST(LinearCurve, OfTwoExchangedNeuronsIsKnown) {
    const TwoNeurons net;
    core::SelfCommunicator alone;
    const auto curve = linear_curve(net.graph, net.a, net.b, {{"test", net.samples.get()}},
                                    {.points = 9, .finish = "none"}, net.samples, alone);
    const auto& split = curve.splits.front().second;
    for (std::size_t p = 0; p < 9; ++p) EXPECT_NEAR(split.loss[p], TwoNeurons::loss(curve.lambdas[p]), 1e-6);
    EXPECT_NEAR(split.loss_barrier, TwoNeurons::loss(0.5) - TwoNeurons::loss(0), 1e-6);
    EXPECT_EQ(split.accuracy.front(), 1);
    EXPECT_EQ(split.accuracy[4], 1.0 / 3);
    EXPECT_NEAR(split.error_barrier, 2.0 / 3, 1e-12);
    EXPECT_THAT(curve.variance_ratio, ElementsAre(0));  // the collapse
}

TEST(LinearCurve, RepairUndoesTheCollapseOfTwoExchangedNeurons) {
    const TwoNeurons net;
    core::SelfCommunicator alone;
    for (const std::string finish : {"repair", "rescale"}) {
        const auto curve = linear_curve(net.graph, net.a, net.b, {{"test", net.samples.get()}},
                                        {.points = 5, .finish = finish}, net.samples, alone);
        const auto& split = curve.splits.front().second;
        // Away from the midpoint, where the neurons are dead, the spread is restored and so is the function.
        for (const std::size_t p : {0, 1, 3, 4})
            EXPECT_NEAR(split.loss[p], TwoNeurons::loss(0), 1e-6) << finish << p;
        EXPECT_NEAR(split.loss[2], TwoNeurons::loss(0.5), 1e-6);
    }
}

TEST(LinearCurve, FinishesEachPointAsTheAggregatorDoes) {
    const auto graph = mlp(6, {8, 8}, 3, true);
    const auto a = random_parameters(graph, 1), b = random_parameters(graph, 2);
    const auto samples = random_samples(600, 6, 3, 1), calibration = random_samples(700, 6, 3, 2);
    core::SelfCommunicator alone;
    const symmetry::Symmetries none;
    const aggregator::FusionContext context{.graph = graph,
                                            .symmetries = none,
                                            .communicator = alone,
                                            .members = {{0, 1, 0}, {1, 1, 0}},
                                            .holdout = nullptr};
    const aggregator::FusionState ends{.updates = {{0, 1, a, {}}, {1, 1, b, {}}}, .merged = {}};
    const auto source = aggregator::server_statistics(graph, calibration, alone);
    const auto unfinished =
        linear_curve(graph, a, b, {{"test", samples.get()}}, {.points = 4, .finish = "none"}, nullptr, alone);
    EXPECT_TRUE(unfinished.variance_ratio.empty());
    for (const std::string finish : {"repair", "reset_batch_norm"}) {
        const auto curve = linear_curve(graph, a, b, {{"test", samples.get()}},
                                        {.points = 4, .finish = finish}, calibration, alone);
        const auto& split = curve.splits.front().second;
        for (const std::size_t p : {1, 2}) {
            const double lambda = curve.lambdas[p];
            auto point = interpolate(a, b, lambda);
            if (finish == "repair") {
                aggregator::repair(point, ends, context, *source, {1 - lambda, lambda}, {});
            } else {
                aggregator::reset_batch_norm(point, context, *source, {1 - lambda, lambda});
            }
            EXPECT_EQ(split.loss[p], evaluate_alone(graph, point, *samples).loss) << finish;
            EXPECT_NE(split.loss[p], unfinished.splits.front().second.loss[p]) << finish;
        }
        EXPECT_EQ(split.loss.front(), evaluate_alone(graph, a, *samples).loss);
        EXPECT_EQ(split.loss.back(), evaluate_alone(graph, b, *samples).loss);
        // Measured in the mended middle, be it one of the curve's points or not.
        auto middle = interpolate(a, b, 0.5);
        if (finish == "repair") {
            aggregator::repair(middle, ends, context, *source, {0.5, 0.5}, {});
        } else {
            aggregator::reset_batch_norm(middle, context, *source, {0.5, 0.5});
        }
        std::vector<double> ratios;
        for (const auto& layer : variance_ratio(middle, ends, context, *source, {0.5, 0.5})) {
            ratios.push_back(layer.ratio);
        }
        EXPECT_EQ(curve.variance_ratio, ratios);
        EXPECT_EQ(curve.variance_ratio, linear_curve(graph, a, b, {{"test", samples.get()}},
                                                     {.points = 5, .finish = finish}, calibration, alone)
                                            .variance_ratio);
    }
}

TEST(LinearCurve, TheSameBitsOnAnyNumberOfRanks) {
    const auto graph = mlp(10, {12, 12}, 4, true);
    const auto a = random_parameters(graph, 1, 0.4), b = random_parameters(graph, 2, 0.4);
    const auto samples = random_samples(1200, 10, 4, 1), calibration = random_samples(1100, 10, 4, 2);
    const std::vector<Split> splits{{"test", samples.get()}};
    core::SelfCommunicator alone;
    const std::vector<CurveOptions> all{{.points = 5, .finish = "none"},
                                        {.points = 5, .finish = "repair"},
                                        {.points = 4, .finish = "reset_batch_norm"}};
    for (const auto& options : all) {
        const auto expected = linear_curve(graph, a, b, splits, options, calibration, alone);
        for (const int ranks : {1, 2, 3}) {
            run_ranks(ranks, [&](core::Communicator& communicator) {
                const auto curve = linear_curve(graph, a, b, splits, options, calibration, communicator);
                const auto &mine = curve.splits.front().second, &theirs = expected.splits.front().second;
                EXPECT_EQ(mine.loss, theirs.loss);
                EXPECT_EQ(mine.accuracy, theirs.accuracy);
                EXPECT_EQ(mine.loss_barrier, theirs.loss_barrier);
                EXPECT_EQ(curve.variance_ratio, expected.variance_ratio);
            });
        }
        EXPECT_GT(expected.splits.front().second.loss.front(), 0);
    }
}

TEST(LinearCurve, BarrierIsTheCurvesOwn) {
    const auto graph = mlp(6, {8}, 3);
    const auto a = random_parameters(graph, 1), b = random_parameters(graph, 2);
    const auto samples = random_samples(600, 6, 3);
    core::SelfCommunicator alone;
    const auto split = barrier(graph, a, b, *samples, 3, alone);
    EXPECT_EQ(split.loss.size(), 3u);
    EXPECT_EQ(split.loss_barrier, barrier_of({0, 0.5, 1}, split.loss));
    EXPECT_EQ(split.loss[1], evaluate_alone(graph, interpolate(a, b, 0.5), *samples).loss);
}

TEST(LinearCurve, SaysWhatIsWrongOnEveryRank) {
    const auto graph = mlp(6, {8}, 3);
    const auto a = random_parameters(graph, 1), other = random_parameters(mlp(6, {9}, 3), 1);
    const auto samples = random_samples(10, 6, 3);
    const auto message = [&](const model::Parameters& b, const CurveOptions& options) -> std::string {
        std::string text;
        run_ranks(2, [&](core::Communicator& communicator) {
            try {
                linear_curve(graph, a, b, {{"test", samples.get()}}, options, nullptr, communicator);
                ADD_FAILURE() << "no error";
            } catch (const core::Error& error) {
                if (communicator.rank() == 0) text = error.what();
            }
        });
        return text;
    };
    EXPECT_THAT(message(a, {.points = 1, .finish = "none"}), HasSubstr("at least 2 points"));
    EXPECT_THAT(message(a, {.points = 3, .finish = "repiar"}), HasSubstr("repair"));
    EXPECT_THAT(message(a, {.points = 3, .finish = "repair"}), HasSubstr("needs samples"));
    EXPECT_THAT(message(other, {.points = 3, .finish = "none"}), HasSubstr("different architectures"));
}

}  // namespace
}  // namespace thalweg::analysis::curve_test
