#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <cmath>

#include "fusion_fixture.hpp"
#include "thalweg/aggregator/matching.hpp"
#include "thalweg/core/error.hpp"

namespace thalweg::aggregator::activation_matching_test {
namespace {

using testing::make_graph;
using testing::random_model;

std::shared_ptr<const data::SampleSet> samples_of(const model::ModelGraph& graph, std::int64_t count) {
    std::int64_t width = 1;
    for (const auto extent : graph.input_shape()) width *= extent;
    return testing::random_samples(count, width, 4, 17);
}

TEST(ActivationMatching, RecoversAPlantedPermutation) {
    for (const std::string& name : testing::architectures()) {
        const auto graph = make_graph(name);
        const auto symmetries = symmetry::derive(graph);
        const auto a = random_model(graph, 1);
        core::Random random(1, "planted");
        const auto planted = symmetry::random_permutations(symmetries, random);
        const auto b = symmetry::permute(a, symmetries, planted);
        const auto match = activation_matching(graph, symmetries, a, b, *samples_of(graph, 1203));
        std::int64_t channels = 0;
        for (std::size_t g = 0; g < planted.size(); ++g) {
            EXPECT_EQ(match.permutations[g], symmetry::inverse(planted[g]))
                << name << ' ' << symmetries.groups[g].name;
            channels += symmetries.groups[g].size;
        }
        EXPECT_NEAR(match.objective, static_cast<double>(channels), 1e-5) << name;
    }
}

/// The slow and obvious correlation of two channels, from all values at once.
double correlation(const at::Tensor& x, const at::Tensor& y) {
    double mean_x = 0, mean_y = 0, xx = 0, yy = 0, xy = 0;
    const std::int64_t n = x.numel();
    for (std::int64_t i = 0; i < n; ++i) {
        mean_x += x.data_ptr<double>()[i] / static_cast<double>(n);
        mean_y += y.data_ptr<double>()[i] / static_cast<double>(n);
    }
    for (std::int64_t i = 0; i < n; ++i) {
        const double dx = x.data_ptr<double>()[i] - mean_x, dy = y.data_ptr<double>()[i] - mean_y;
        xx += dx * dx;
        yy += dy * dy;
        xy += dx * dy;
    }
    return xx > 0 && yy > 0 ? xy / std::sqrt(xx * yy) : 0.0;
}

/// Σ over all groups' matched channels, of post-activation values looked up by hand.
double matched_correlation(const model::ModelGraph& graph, const symmetry::Symmetries& symmetries,
                           const model::Parameters& a, const model::Parameters& b, const at::Tensor& x,
                           const symmetry::Permutations& permutations) {
    double sum = 0;
    for (std::size_t g = 0; g < symmetries.groups.size(); ++g) {
        const auto at_operation = symmetries.groups[g].sight.operation;
        const auto out = [&](const model::Parameters& model) {
            return model::forward(graph, model::views(model), x, model::Mode::evaluate, {}, at_operation)
                .to(at::kDouble);
        };
        const at::Tensor of_a = out(a), of_b = out(b);
        for (std::int64_t i = 0; i < symmetries.groups[g].size; ++i) {
            const auto j = permutations[g][static_cast<std::size_t>(i)];
            sum += correlation(of_a.select(1, i).contiguous(), of_b.select(1, j).contiguous());
        }
    }
    return sum;
}

TEST(ActivationMatching, MaximisesTheSumOfCorrelations) {
    for (const std::string name : {"mlp", "cnn_batch_norm"}) {
        const auto graph = make_graph(name);
        const auto symmetries = symmetry::derive(graph);
        const auto a = random_model(graph, 1), b = random_model(graph, 2);
        const auto samples = samples_of(graph, 700);  // more than a batch
        const auto match = activation_matching(graph, symmetries, a, b, *samples);
        const auto x = testing::inputs_of(graph, *samples);
        const double reached = matched_correlation(graph, symmetries, a, b, x, match.permutations);
        EXPECT_NEAR(match.objective, reached, 1e-6) << name;
        core::Random random(1, "others");
        for (int trial = 0; trial < 10; ++trial) {
            const auto other = symmetry::random_permutations(symmetries, random);
            EXPECT_LT(matched_correlation(graph, symmetries, a, b, x, other), reached) << name;
        }
        // swapping any two channels of the solution is no better
        auto swapped = match.permutations;
        for (auto& permutation : swapped) {
            for (std::size_t i = 1; i < permutation.size(); ++i) {
                std::swap(permutation[0], permutation[i]);
                EXPECT_LE(matched_correlation(graph, symmetries, a, b, x, swapped), reached + 1e-9) << name;
                std::swap(permutation[0], permutation[i]);
            }
        }
    }
}

TEST(ActivationMatching, DeadUnitsCorrelateWithNothing) {
    const auto graph = make_graph("mlp");
    const auto symmetries = symmetry::derive(graph);
    auto a = random_model(graph, 1);
    for (const std::int64_t unit : {0, 4}) {  // never fire
        a.view("layers.0.weight")[unit].fill_(0);
        a.view("layers.0.bias")[unit] = unit == 0 ? -1.0 : 0.7;  // off, and stuck at a constant
    }
    core::Random random(1, "planted");
    const auto planted = symmetry::random_permutations(symmetries, random);
    const auto b = symmetry::permute(a, symmetries, planted);
    const auto match = activation_matching(graph, symmetries, a, b, *samples_of(graph, 500));
    const auto expected = symmetry::inverse(planted[0]);
    for (std::size_t i = 0; i < expected.size(); ++i) {
        if (i != 0 && i != 4) {
            EXPECT_EQ(match.permutations[0][i], expected[i]);
        }
    }
    EXPECT_NEAR(match.objective, 9 - 2 + 7, 1e-5);
}

TEST(ActivationMatching, NeedsSamples) {
    const auto graph = make_graph("mlp");
    const auto symmetries = symmetry::derive(graph);
    const auto a = random_model(graph, 1);
    EXPECT_THROW(activation_matching(graph, symmetries, a, a, *samples_of(graph, 1)), core::RunError);
}

TEST(ActivationMatching, RefusesGainsThatTheMachineCannotHold) {
    const auto graph = make_graph("wide");
    const auto symmetries = symmetry::derive(graph);
    const model::Parameters model(graph.layout);
    EXPECT_THAT(
        [&] { activation_matching(graph, symmetries, model, model, *samples_of(graph, 4)); },
        ::testing::ThrowsMessage<core::RunError>(::testing::HasSubstr("There is not enough memory for the")));
}

}  // namespace
}  // namespace thalweg::aggregator::activation_matching_test
