#include "thalweg/analysis/evaluate.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "models.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/model/interpreter.hpp"
#include "unit/support/memory_samples.hpp"
#include "unit/support/thread_communicator.hpp"

namespace thalweg::analysis::evaluate_test {
namespace {

using ::testing::HasSubstr;
using thalweg::testing::linear_model;
using thalweg::testing::MemorySamples;
using thalweg::testing::mlp;
using thalweg::testing::random_parameters;
using thalweg::testing::random_samples;
using thalweg::testing::run_ranks;
using thalweg::testing::set;

/// A linear model sample by sample in double.
Evaluation slow_evaluation(const model::Parameters& parameters, const data::SampleSet& samples,
                           std::int64_t classes) {
    const auto w = parameters.view("layers.0.weight").to(at::kDouble);
    const auto b = parameters.view("layers.0.bias").to(at::kDouble);
    Evaluation result;
    for (std::int64_t i = 0; i < samples.size(); ++i) {
        std::vector<float> x(static_cast<std::size_t>(samples.width()));
        std::int64_t label = 0;
        samples.gather(std::vector<std::int64_t>{i}, x.data(), &label);
        std::vector<double> z;
        double total = 0;
        for (std::int64_t c = 0; c < classes; ++c) {
            double sum = b[c].item<double>();
            for (std::int64_t j = 0; j < samples.width(); ++j) {
                sum += w[c][j].item<double>() * x[static_cast<std::size_t>(j)];
            }
            z.push_back(sum);
            total += std::exp(sum);
        }
        result.loss += std::log(total) - z[static_cast<std::size_t>(label)];
        result.accuracy += std::max_element(z.begin(), z.end()) - z.begin() == label ? 1 : 0;
    }
    result.samples = samples.size();
    result.loss /= static_cast<double>(samples.size());
    result.accuracy /= static_cast<double>(samples.size());
    return result;
}

void expect_same_bits(const Evaluation& a, const Evaluation& b) {
    EXPECT_EQ(a.loss, b.loss);
    EXPECT_EQ(a.accuracy, b.accuracy);
    EXPECT_EQ(a.samples, b.samples);
}

TEST(Evaluate, AgreesWithTheSlowWay) {
    const auto graph = linear_model(3, 4);
    const auto parameters = random_parameters(graph, 1);
    const auto samples = random_samples(1203, 3, 4);
    const auto slow = slow_evaluation(parameters, *samples, 4);
    const auto fast = evaluate_alone(graph, parameters, *samples);
    EXPECT_NEAR(fast.loss, slow.loss, 1e-6);
    EXPECT_EQ(fast.accuracy, slow.accuracy);
    EXPECT_EQ(fast.samples, 1203);
    const auto precise = evaluate_alone(graph, parameters.to_double(), *samples);
    EXPECT_NEAR(precise.loss, slow.loss, 1e-13);
    EXPECT_EQ(precise.accuracy, slow.accuracy);
}

TEST(Evaluate, TheSameBitsOnAnyNumberOfRanksAndFromLogits) {
    const auto graph = mlp(20, {30, 30}, 10);
    const auto parameters = random_parameters(graph, 2, 0.3);
    const auto samples = random_samples(2750, 20, 10);
    const auto alone = evaluate_alone(graph, parameters, *samples);
    for (const int ranks : {1, 2, 3, 7}) {
        run_ranks(ranks, [&](core::Communicator& communicator) {
            expect_same_bits(evaluate(graph, parameters, *samples, communicator), alone);
        });
    }
    const auto z = logits(graph, parameters, *samples);
    EXPECT_EQ(z.size(0), 2750);
    EXPECT_EQ(z.size(1), 10);
    expect_same_bits(score(graph, z, *samples), alone);
}

TEST(Evaluate, LargeActivationsComeInSmallerChunksAndGiveTheSame) {
    const auto graph = mlp(4, {65536}, 3);
    ASSERT_EQ(model::samples_at_once(graph), 32);
    const auto parameters = random_parameters(graph, 3, 0.01);
    const auto samples = random_samples(75, 4, 3);
    const auto alone = evaluate_alone(graph, parameters, *samples);
    for (const int ranks : {2, 3}) {
        run_ranks(ranks, [&](core::Communicator& communicator) {
            expect_same_bits(evaluate(graph, parameters, *samples, communicator), alone);
        });
    }
    expect_same_bits(score(graph, logits(graph, parameters, *samples), *samples), alone);
    const auto x = at::empty({75, 4});
    const auto y = at::empty({75}, at::kLong);
    std::vector<std::int64_t> all(75);
    std::iota(all.begin(), all.end(), 0);
    samples->gather(all, x.data_ptr<float>(), y.data_ptr<std::int64_t>());
    const auto z = model::forward(graph, model::views(parameters), x, model::Mode::evaluate);
    EXPECT_NEAR(alone.loss, at::cross_entropy_loss(z.to(at::kDouble), y).item<double>(), 1e-6);
    EXPECT_EQ(alone.accuracy, at::sum(z.argmax(1) == y).item<double>() / 75);
}

TEST(Evaluate, TiesGoToTheLowestClass) {
    const auto graph = linear_model(2, 4);
    const model::Parameters zeros(graph.layout);
    const MemorySamples samples(2, std::vector<float>(10, 1.0F), {0, 0, 1, 2, 3});
    const auto result = evaluate_alone(graph, zeros, samples);
    EXPECT_EQ(result.accuracy, 2.0 / 5);
    EXPECT_NEAR(result.loss, std::log(4.0), 1e-7);
}

TEST(Evaluate, NaNIsWrongAndSpoilsTheLoss) {
    const auto graph = linear_model(1, 2);
    model::Parameters parameters(graph.layout);
    set(parameters, "layers.0.weight", {1, 0});
    // Sample 1 is not a number; class 0 would be "the largest" if a NaN counted as such.
    const MemorySamples samples(1, {1, std::numeric_limits<float>::quiet_NaN(), 1}, {0, 0, 0});
    const auto result = evaluate_alone(graph, parameters, samples);
    EXPECT_TRUE(std::isnan(result.loss));
    EXPECT_EQ(result.accuracy, 2.0 / 3);
}

TEST(Evaluate, DataThatDoNotFitAreAnErrorOnEveryRank) {
    const auto graph = linear_model(3, 2);
    const auto parameters = random_parameters(graph, 1);
    const auto narrow = random_samples(5, 2, 2), many_classes = random_samples(600, 3, 3);
    run_ranks(2, [&](core::Communicator& communicator) {
        EXPECT_THROW(evaluate(graph, parameters, *narrow, communicator), core::RunError);
        EXPECT_THROW(evaluate(graph, parameters, *many_classes, communicator), core::RunError);
        EXPECT_THROW(evaluate(graph, parameters, MemorySamples(3, {}, {}), communicator), core::RunError);
    });
    try {
        evaluate_alone(graph, parameters, *many_classes);
        FAIL();
    } catch (const core::RunError& error) {
        EXPECT_THAT(error.what(), HasSubstr("label 2"));
    }
    EXPECT_THROW(score(graph, at::zeros({4, 2}), *narrow), std::logic_error);
}

TEST(Evaluate, AnInterruptEndsIt) {
    const auto graph = linear_model(3, 2);
    const auto parameters = random_parameters(graph, 1);
    const auto samples = random_samples(5, 3, 2);
    core::request_interrupt();
    EXPECT_THROW(evaluate_alone(graph, parameters, *samples), core::Interrupted);
    core::clear_interrupt();
}

}  // namespace
}  // namespace thalweg::analysis::evaluate_test
