#include <gmock/gmock.h>

#include "thalweg/core/error.hpp"
#include "unit/aggregator/fusion_fixture.hpp"

namespace thalweg::testing::repair_test {
namespace {

using aggregator::RepairOptions;

/// What REPAIR promises, worked out the plain way: Σ w μ and Σ w σ (or what the options say) of the clients' models.
struct Wanted {
    at::Tensor mean, deviation;
};

Wanted wanted_of(const Round& round, const std::vector<double>& weights, std::size_t operation,
                 const std::function<at::Tensor(std::size_t client)>& x, const RepairOptions& options = {}) {
    at::Tensor mean, deviation, variance, square;
    for (std::size_t k = 0; k < round.updates.size(); ++k) {
        const auto [m, v] = channel_moments(round.graph, round.updates[k].parameters, x(k), operation);
        if (k == 0) mean = deviation = variance = square = at::zeros_like(m);
        mean = mean + weights[k] * m;
        deviation = deviation + weights[k] * v.sqrt();
        variance = variance + weights[k] * v;
        square = square + weights[k] * (v + m * m);
    }
    if (options.target == RepairOptions::Target::pooled) return {mean, (square - mean * mean).sqrt()};
    if (options.average == RepairOptions::Average::variance) return {mean, variance.sqrt()};
    return {mean, deviation};
}

std::vector<double> sample_weights(const Round& round) {
    return aggregator::weights(members_of(round, 1), aggregator::Weighting::samples);
}

/// Largest deviation of merged σ ÷ σ* from 1, and of the means in units of σ*, over a layer's channels.
std::pair<double, double> errors_of(const Round& round, const model::Parameters& merged,
                                    std::size_t operation, const Wanted& wanted, const at::Tensor& x) {
    const auto [mean, variance] = channel_moments(round.graph, merged, x, operation);
    return {(variance.sqrt() / wanted.deviation - 1).abs().max().item<double>(),
            ((mean - wanted.mean) / wanted.deviation).abs().max().item<double>()};
}

TEST(Repair, GivesEveryChannelTheClientsMeanAndDeviation) {
    // With residual=true a branch that ends in a layer is scaled once more, for the sum: residual_repair_test.cpp.
    for (const auto& architecture : architectures()) {
        const Round round = make_round(architecture, 4);
        const at::Tensor x = inputs_of(round.graph, *round.holdout);
        const auto plain = fuse(round, "mean").merged;
        const auto fused = fuse(round, "mean+repair(classifier=true,residual=false)", 2);
        const auto layers = aggregator::repaired_operations(
            round.graph, RepairOptions::from("within", "std", "repair", true));
        EXPECT_EQ(note(fused, "repaired_layers"), static_cast<double>(layers.size()));
        EXPECT_EQ(note(fused, "dead_channels"), 0);
        double before = 0;
        for (const std::size_t layer : layers) {
            const auto wanted =
                wanted_of(round, sample_weights(round), layer, [&](std::size_t) { return x; });
            const auto [deviation, mean] = errors_of(round, fused.merged, layer, wanted, x);
            EXPECT_LT(deviation, 0.001) << architecture << " layer " << layer;
            EXPECT_LT(mean, 0.001) << architecture << " layer " << layer;
            before = std::max(before, errors_of(round, plain, layer, wanted, x).first);
        }
        EXPECT_GT(before, 0.3) << architecture << ": there was nothing to repair";
        for (const int ranks : {1, 3, 5}) {
            EXPECT_TRUE(same_bits(fused.merged,
                                  fuse(round, "mean+repair(classifier=true,residual=false)", ranks).merged));
        }
    }
}

TEST(Repair, LeavesTheClassifierUnlessAsked) {
    const Round round = make_round("cnn", 3);
    const auto plain = fuse(round, "mean").merged;
    const auto repaired = fuse(round, "mean+repair").merged;
    EXPECT_TRUE(at::equal(plain.view("fc.1.weight"), repaired.view("fc.1.weight")));
    EXPECT_FALSE(at::equal(plain.view("fc.0.weight"), repaired.view("fc.0.weight")));
    EXPECT_FALSE(at::equal(plain.view("fc.1.bias"),
                           fuse(round, "mean+repair(classifier=true)").merged.view("fc.1.bias")));
}

TEST(Repair, HasOtherTargets) {
    const Round round = make_round("mlp", 4);
    const at::Tensor x = inputs_of(round.graph, *round.holdout);
    const std::size_t layer = round.graph.affine_operations()[1];
    for (const auto& [text, options] :
         {std::pair{"target=pooled", RepairOptions::from("pooled", "std", "repair", false)},
          std::pair{"average=variance", RepairOptions::from("within", "variance", "repair", false)}}) {
        const auto fused = fuse(round, std::string("mean+repair(") + text + ")", 2);
        const auto wanted = wanted_of(
            round, sample_weights(round), layer, [&](std::size_t) { return x; }, options);
        EXPECT_LT(errors_of(round, fused.merged, layer, wanted, x).first, 0.001) << text;
        const auto other = wanted_of(round, sample_weights(round), layer, [&](std::size_t) { return x; });
        EXPECT_GT(errors_of(round, fused.merged, layer, other, x).first, 0.01) << text;
    }
}

TEST(Repair, RescaleKeepsMeansAndReshiftKeepsDeviations) {
    const Round round = make_round("mlp", 4);
    const at::Tensor x = inputs_of(round.graph, *round.holdout);
    const std::size_t layer = round.graph.affine_operations()[0];  // its input is the same before and after
    const auto wanted = wanted_of(round, sample_weights(round), layer, [&](std::size_t) { return x; });
    const auto plain = channel_moments(round.graph, fuse(round, "mean").merged, x, layer);
    const auto rescaled = fuse(round, "mean+repair(mode=rescale)").merged;
    const auto reshifted = fuse(round, "mean+repair(mode=reshift)").merged;
    EXPECT_LT(errors_of(round, rescaled, layer, wanted, x).first, 0.001);
    EXPECT_LT(largest_difference(channel_moments(round.graph, rescaled, x, layer).first, plain.first), 1e-5);
    EXPECT_LT(errors_of(round, reshifted, layer, wanted, x).second, 0.001);
    EXPECT_LT(largest_difference(channel_moments(round.graph, reshifted, x, layer).second, plain.second),
              1e-5);
    EXPECT_TRUE(
        at::equal(reshifted.view("layers.0.weight"), fuse(round, "mean").merged.view("layers.0.weight")));
}

TEST(Repair, WithTheClientsStatisticsUsesTheirOwnSamples) {
    for (const std::string architecture : {"mlp", "cnn_batch_norm"}) {
        const Round round = make_round(architecture, 4);
        const auto weights = sample_weights(round);
        const auto fused = fuse(round, "mean+repair(statistics=clients)", 3);
        const auto own = [&](std::size_t k) { return inputs_of(round.graph, *round.client_samples[k]); };
        for (const std::size_t layer : aggregator::repaired_operations(round.graph, {})) {
            const auto wanted = wanted_of(round, weights, layer, own);
            at::Tensor mean = at::zeros_like(wanted.mean), square = at::zeros_like(wanted.mean);
            for (std::size_t k = 0; k < 4; ++k) {
                const auto [m, v] = channel_moments(round.graph, fused.merged, own(k), layer);
                mean += weights[k] * m;
                square += weights[k] * (v + m * m);
            }
            EXPECT_LT(((square - mean * mean).sqrt() / wanted.deviation - 1).abs().max().item<double>(),
                      0.001);
            EXPECT_LT(largest_difference(mean, wanted.mean), 1e-4);
        }
        for (const int ranks : {1, 2, 5}) {
            EXPECT_TRUE(
                same_bits(fused.merged, fuse(round, "mean+repair(statistics=clients)", ranks).merged));
        }
    }
}

TEST(Repair, ClientsThatAllHoldTheHoldOutAreLikeTheServer) {
    for (const auto& architecture : architectures()) {
        Round round = make_round(architecture, 3);
        for (auto& samples : round.client_samples) samples = round.holdout;
        const auto server = fuse(round, "mean+repair(statistics=server)").merged;
        auto clients = fuse(round, "mean+repair(statistics=clients)", 2).merged;
        // Batch norms' variances are unbiased, and the clients together have three times the samples.
        const bool has_norms = architecture.find("batch_norm") != std::string::npos;
        EXPECT_LT(largest_difference(server.values, clients.values), has_norms ? 2e-2 : 1e-5) << architecture;
    }
}

TEST(Repair, TakesPrecomputedEnds) {
    const Round round = make_round("cnn_batch_norm", 2);
    on_ranks(round, 2, [&](aggregator::FusionState& state, const aggregator::FusionContext& context) {
        const auto ends = aggregator::end_moments(state, context, *context.server,
                                                  aggregator::repaired_operations(round.graph, {}));
        const std::vector<double> weights{0.25, 0.75};
        auto one = aggregator::mean(state.updates, context, weights);
        auto other = one.clone();
        aggregator::repair(one, ends, context, *context.server, weights, {});
        aggregator::repair(other, state, context, *context.server, weights, {});
        EXPECT_TRUE(same_bits(one, other));
    });
}

TEST(Repair, LeavesDeadChannelsUnscaledAndCountsThem) {
    Round round = make_round("mlp", 2);
    // Two clients whose channel 3 of the first layer cancels in the mean.
    round.updates[1].samples = round.updates[0].samples;
    round.updates[1].parameters.view("layers.0.weight")[3].copy_(
        -round.updates[0].parameters.view("layers.0.weight")[3]);
    const auto fused = fuse(round, "mean+repair", 2);
    EXPECT_EQ(note(fused, "dead_channels"), 1);
    EXPECT_FALSE(fused.merged.first_non_finite().has_value());
    EXPECT_LT(fused.merged.view("layers.0.weight")[3].abs().max().item<double>(), 1e-6);
    const at::Tensor x = inputs_of(round.graph, *round.holdout);
    const std::size_t layer = round.graph.affine_operations()[0];
    const auto wanted = wanted_of(round, {0.5, 0.5}, layer, [&](std::size_t) { return x; });
    EXPECT_LT(largest_difference(channel_moments(round.graph, fused.merged, x, layer).first, wanted.mean),
              1e-4);
}

TEST(Repair, OnlyScalesALayerWithoutBias) {
    Round round = make_round("mlp", 3);
    model::GraphBuilder builder({12});
    builder.linear("layers.1",
                   builder.activation(builder.linear("layers.0", 0, 9, false), model::ActivationKind::relu),
                   4);
    round.graph = std::move(builder).build(core::Value::map());
    round.symmetries = symmetry::derive(round.graph);
    for (auto& update : round.updates) {
        update.parameters = random_model(round.graph, static_cast<std::uint64_t>(update.client));
    }
    round.global = {};
    const auto fused = fuse(round, "mean+repair", 2);
    EXPECT_EQ(note(fused, "layers_without_bias"), 1);
    const at::Tensor x = inputs_of(round.graph, *round.holdout);
    const auto wanted = wanted_of(round, sample_weights(round), 0, [&](std::size_t) { return x; });
    EXPECT_LT(errors_of(round, fused.merged, 0, wanted, x).first, 0.001);
    const auto reshifted = fuse(round, "mean+repair(mode=reshift)", 2);
    EXPECT_TRUE(at::equal(reshifted.merged.values, fuse(round, "mean").merged.values));
}

TEST(Repair, DoesNotWriteIntoWhatItWasGiven) {
    const Round round = make_round("cnn_batch_norm", 2);
    on_ranks(round, 2, [&](aggregator::FusionState& state, const aggregator::FusionContext& context) {
        model::Parameters seen, copy;
        aggregator::Pipeline::parse("mean+repair+reset_batch_norm")
            .run(state, context, [&](std::size_t index, const aggregator::FusionState& now) {
                if (index > 0) return;
                seen = now.merged;
                copy = now.merged.clone();
            });
        EXPECT_TRUE(same_bits(seen, copy));
        EXPECT_FALSE(same_bits(seen, state.merged));
    });
}

TEST(ResetBatchNorm, TakesPopulationStatisticsOfTheNormsInput) {
    for (const std::string architecture : {"mlp_batch_norm", "cnn_batch_norm"}) {
        const Round round = make_round(architecture, 3);
        const auto fused = fuse(round, "mean+reset_batch_norm", 2);
        EXPECT_EQ(note(fused, "batch_norms_reset"), 2);
        const at::Tensor x = inputs_of(round.graph, *round.holdout);
        for (std::size_t i = 0; i < round.graph.operations.size(); ++i) {
            const auto* norm = std::get_if<model::BatchNorm>(&round.graph.operations[i].kind);
            if (norm == nullptr) continue;
            const at::Tensor in =
                model::forward(round.graph, model::views(fused.merged), x, model::Mode::evaluate, {}, i - 1)
                    .to(at::kDouble)
                    .transpose(0, 1)
                    .flatten(1);
            EXPECT_LT(largest_difference(fused.merged.view(static_cast<std::size_t>(norm->running_mean)),
                                         in.mean(1)),
                      1e-5);
            EXPECT_LT(largest_difference(fused.merged.view(static_cast<std::size_t>(norm->running_var)),
                                         in.var(1, true)),
                      1e-4);
        }
        EXPECT_TRUE(at::equal(fused.merged.trainable(), fuse(round, "mean").merged.trainable()));
        for (const int ranks : {1, 3}) {
            EXPECT_TRUE(same_bits(fused.merged, fuse(round, "mean+reset_batch_norm", ranks).merged));
        }
        // REPAIR does the same in its pass, as nothing else of the MLP's is repaired.
        if (architecture == "mlp_batch_norm") {
            EXPECT_TRUE(same_bits(fused.merged, fuse(round, "mean+repair").merged));
        }
    }
}

TEST(ResetBatchNorm, HasNothingToDoWithoutBatchNorms) {
    const Round round = make_round("cnn", 2);
    const auto fused = fuse(round, "mean+reset_batch_norm(statistics=clients)", 2);
    EXPECT_EQ(note(fused, "batch_norms_reset"), 0);
    EXPECT_TRUE(same_bits(fused.merged, fuse(round, "mean").merged));
}

}  // namespace
}  // namespace thalweg::testing::repair_test
