#include <gtest/gtest.h>
#include <torch/types.h>

#include "models.hpp"
#include "thalweg/analysis/measures.hpp"
#include "unit/support/memory_samples.hpp"
#include "unit/support/thread_communicator.hpp"

namespace thalweg::analysis::variance_ratio_test {
namespace {

using thalweg::testing::mlp;
using thalweg::testing::random_parameters;
using thalweg::testing::random_samples;
using thalweg::testing::run_ranks;

/// All samples at once, in double: mean over channels of the variance of each hidden pre-activation of `mlp(…, true)`.
std::vector<double> slow_variances(const model::Parameters& parameters, const data::SampleSet& samples,
                                   std::size_t layers) {
    const auto exact = parameters.to_double();
    std::vector<std::int64_t> indices;
    for (std::int64_t i = 0; i < samples.size(); ++i) indices.push_back(i);
    const auto x32 = at::empty({samples.size(), samples.width()}), y = at::empty({samples.size()}, at::kLong);
    samples.gather(indices, x32.data_ptr<float>(), y.data_ptr<std::int64_t>());
    auto x = x32.to(at::kDouble);
    std::vector<double> variances;
    for (std::size_t i = 0; i < layers; ++i) {
        const auto get = [&](const std::string& name) { return exact.view(name); };
        const auto n = std::to_string(i);
        const auto z = at::matmul(x, get("layers." + n + ".weight").t()) + get("layers." + n + ".bias");
        variances.push_back((z - z.mean(0)).pow(2).mean().item<double>());
        const auto norm = (z - get("norms." + n + ".running_mean")) /
                              (get("norms." + n + ".running_var") + 1e-5).sqrt() *
                              get("norms." + n + ".weight") +
                          get("norms." + n + ".bias");
        x = norm.clamp_min(0);
    }
    return variances;
}

TEST(VarianceRatio, AgreesWithTheSlowWayOnAnyNumberOfRanks) {
    const auto graph = mlp(6, {8, 7}, 3, true);
    const auto a = random_parameters(graph, 1), b = random_parameters(graph, 2);
    const auto merged = interpolate(a, b, 0.3);
    const auto samples = random_samples(1100, 6, 3);
    const std::vector<double> weights{0.7, 0.3};
    const auto of_a = slow_variances(a, *samples, 2), of_b = slow_variances(b, *samples, 2),
               of_merged = slow_variances(merged, *samples, 2);
    std::vector<double> first;
    for (const int ranks : {1, 2, 3}) {
        std::vector<double> found;
        run_ranks(ranks, [&](core::Communicator& communicator) {
            const symmetry::Symmetries none;
            // The second end lies on the last rank.
            const int last = communicator.size() - 1;
            const aggregator::FusionContext context{.graph = graph,
                                                    .symmetries = none,
                                                    .communicator = communicator,
                                                    .members = {{4, 1, 0}, {9, 1, last}},
                                                    .holdout = nullptr};
            aggregator::FusionState ends;
            if (communicator.rank() == 0) ends.updates.push_back({4, 1, a, {}});
            if (communicator.rank() == last) ends.updates.push_back({9, 1, b, {}});
            const auto source = aggregator::server_statistics(graph, samples, communicator);
            const auto ratios = variance_ratio(merged, ends, context, *source, weights);
            ASSERT_EQ(ratios.size(), 2u);
            if (communicator.rank() != last) return;
            EXPECT_EQ(ratios[0].layer, "layers.0");
            EXPECT_EQ(ratios[1].layer, "layers.1");
            found = {ratios[0].ratio, ratios[1].ratio};
        });
        ASSERT_EQ(found.size(), 2u);
        for (std::size_t i = 0; i < 2; ++i) {
            const double expected = of_merged[i] / (0.7 * of_a[i] + 0.3 * of_b[i]);
            EXPECT_NEAR(found[i], expected, 1e-5 * expected);
        }
        if (first.empty()) first = found;
        EXPECT_EQ(found, first);
    }
}

TEST(VarianceRatio, LooksAtAllAffineLayersButTheClassifier) {
    const auto graph = mlp(6, {8, 7}, 3, true);
    const auto operations = variance_ratio_operations(graph);
    ASSERT_EQ(operations.size(), 2u);
    EXPECT_EQ(graph.operations[operations[1]].name, "layers.1");
    EXPECT_TRUE(variance_ratio_operations(thalweg::testing::linear_model(3, 2)).empty());
}

}  // namespace
}  // namespace thalweg::analysis::variance_ratio_test
