#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>

#include "thalweg/core/error.hpp"
#include "unit/aggregator/fusion_fixture.hpp"

namespace thalweg::testing::task_vectors_test {
namespace {

/// TIES entry by entry, as the paper says it.
at::Tensor slow_ties(const Round& round, double density, double lambda, const std::vector<double>& w) {
    const std::int64_t n = round.graph.layout->trainable_size();
    const at::Tensor base = round.global.trainable().to(at::kDouble);
    std::vector<at::Tensor> trimmed;
    const auto kept = static_cast<std::int64_t>(std::llround(density * static_cast<double>(n)));
    for (const auto& update : round.updates) {
        at::Tensor delta = update.parameters.trainable().to(at::kDouble) - base;
        const double threshold = std::get<0>(delta.abs().sort(0, true))[kept - 1].item<double>();
        trimmed.push_back(delta * delta.abs().ge(threshold));
    }
    at::Tensor merged = base.clone();
    for (std::int64_t i = 0; i < n; ++i) {
        double vote = 0, sum = 0, weight = 0;
        for (std::size_t k = 0; k < trimmed.size(); ++k) vote += w[k] * trimmed[k][i].item<double>();
        for (std::size_t k = 0; k < trimmed.size(); ++k) {
            const double delta = trimmed[k][i].item<double>();
            if (delta * vote <= 0) continue;
            sum += w[k] * delta;
            weight += w[k];
        }
        if (weight > 0) merged[i] += lambda * sum / weight;
    }
    return merged;
}

TEST(Ties, IsThePapersDefinition) {
    for (const double density : {0.2, 0.7, 1.0}) {
        const Round round = make_round("cnn_batch_norm", 4);
        const std::string option = "ties(density=" + std::to_string(density) + ", lambda=0.8)";
        const auto expected = slow_ties(round, density, 0.8, {0.25, 0.25, 0.25, 0.25});
        for (const int ranks : {1, 3}) {
            const auto merged = fuse(round, option, ranks).merged;
            EXPECT_LT(largest_difference(merged.trainable(), expected), 1e-6) << density;
        }
    }
}

TEST(Ties, AveragesRunningStatistics) {
    const Round round = make_round("cnn_batch_norm", 3);
    const auto merged = fuse(round, "ties").merged, mean = fuse(round, "mean(weights=uniform)").merged;
    const auto from = round.graph.layout->trainable_size();
    EXPECT_LT(largest_difference(merged.values.slice(0, from), mean.values.slice(0, from)), 1e-6);
}

TEST(Ties, OfAgreeingTaskVectorsIsTheirMean) {
    Round round = make_round("mlp", 3);
    const at::Tensor delta = at::ones({round.graph.layout->size()});
    for (std::size_t k = 0; k < 3; ++k) {
        round.updates[k].parameters = round.global.clone();
        round.updates[k].parameters.values += delta * static_cast<double>(k + 1);
    }
    const auto merged = fuse(round, "ties(density=1)").merged;
    EXPECT_LT(largest_difference(merged.trainable(), round.global.trainable() + 2), 1e-5);
}

TEST(Dare, DropsAndRescalesSoThatTheMeanStays) {
    Round round = make_round("mlp", 2);
    const at::Tensor base = round.global.trainable();
    const auto updates = fuse(round, "dare(drop=0.75)+mean", 2).updates;
    for (std::size_t k = 0; k < 2; ++k) {
        const at::Tensor before = round.updates[k].parameters.trainable() - base;
        const at::Tensor after = updates[k].parameters.trainable() - base;
        const at::Tensor kept = after.ne(0);
        const double share = kept.to(at::kDouble).mean().item<double>();
        EXPECT_NEAR(share, 0.25, 0.1);
        EXPECT_LT(largest_difference(after, before * 4 * kept), 1e-5);
    }
    EXPECT_FALSE(
        at::equal(updates[0].parameters.trainable().ne(base), updates[1].parameters.trainable().ne(base)))
        << "all clients drop the same entries";
    const auto none = fuse(round, "dare(drop=0)+mean").merged, mean = fuse(round, "mean").merged;
    EXPECT_LT(largest_difference(none.values, mean.values), 1e-6);
}

TEST(TaskVectors, AreRefusedWithoutABase) {
    Round round = make_round("mlp", 2);
    round.global = {};
    for (const std::string pipeline : {"ties", "dare+mean"}) {
        try {
            fuse(round, pipeline);
            ADD_FAILURE() << pipeline;
        } catch (const core::UsageError& error) {
            EXPECT_THAT(error.what(), ::testing::HasSubstr("--base"));
        }
    }
}

TEST(LayerwiseMean, AveragesWhatItNamesAndKeepsTheRest) {
    const Round round = make_round("cnn_batch_norm", 3);
    const auto merged = fuse(round, "layerwise_mean(layers=[conv.0, fc])", 2).merged;
    const auto mean = fuse(round, "mean", 2).merged;
    const auto& entries = round.graph.layout->entries();
    for (std::size_t i = 0; i < entries.size(); ++i) {
        const auto& name = entries[i].name;
        const bool chosen = name.starts_with("conv.0.") || name.starts_with("fc.");
        const at::Tensor expected = chosen ? mean.view(i) : round.global.view(i);
        EXPECT_TRUE(at::equal(merged.view(i), expected)) << name;
    }
    EXPECT_TRUE(at::equal(merged.counters, round.global.counters));
}

TEST(LayerwiseMean, RefusesLayersThatAreNotThere) {
    try {
        fuse(make_round("cnn_batch_norm", 2), "layerwise_mean(layers=[conv.7])");
        FAIL();
    } catch (const core::UsageError& error) {
        EXPECT_THAT(error.what(),
                    ::testing::AllOf(::testing::HasSubstr("conv.7"), ::testing::HasSubstr("conv.1")));
    }
}

}  // namespace
}  // namespace thalweg::testing::task_vectors_test
