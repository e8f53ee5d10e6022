// Models of different widths: transport fusion and matched averaging.
#include <gmock/gmock.h>

#include "thalweg/core/error.hpp"
#include "unit/aggregator/fusion_fixture.hpp"

namespace thalweg::testing::widths_test {
namespace {

model::ModelGraph mlp_of(const std::vector<std::int64_t>& hidden) {
    core::Value widths = core::Value::list();
    for (const auto width : hidden) widths.items().push_back(core::Value::of(width));
    core::Value options = core::Value::map({{"kind", core::Value::of("mlp")}});
    options.set("hidden", widths);
    return model::build_model(core::resolve_plugin("model", "kind", options, "model"), {12}, 4);
}

/// A round whose clients have these widths; the first has the round's own.
Round round_of(const std::vector<std::vector<std::int64_t>>& hidden) {
    Round round = make_round("mlp", static_cast<int>(hidden.size()));
    round.graph = mlp_of(hidden.front());
    round.symmetries = symmetry::derive(round.graph);
    round.global = {};
    for (std::size_t k = 0; k < hidden.size(); ++k) {
        auto& update = round.updates[k];
        const auto graph = mlp_of(hidden[k]);
        update.parameters = random_model(graph, 10 + k);
        if (hidden[k] != hidden.front()) update.graph = std::make_shared<const model::ModelGraph>(graph);
    }
    return round;
}

at::Tensor logits_on(const Round& round, const model::ModelGraph& graph, const model::Parameters& model) {
    return logits_of(graph, model, inputs_of(graph, *round.holdout).narrow(0, 0, 200));
}

/// Every hidden unit twice, its outgoing weights halved: the same function, twice as wide.
model::Parameters doubled(const model::ModelGraph& narrow, const model::Parameters& model,
                          const model::ModelGraph& wide) {
    model::Parameters result(wide.layout);
    for (const auto& entry : wide.layout->entries()) {
        at::Tensor values = model.view(entry.name);
        for (std::int64_t axis = 0; axis < values.dim(); ++axis) {
            if (values.size(axis) == entry.shape[static_cast<std::size_t>(axis)]) continue;
            values = values.repeat_interleave(2, axis);
            if (axis == 1) values = values / 2;
        }
        result.view(entry.name).copy_(values);
    }
    (void)narrow;
    return result;
}

TEST(OptimalTransport, FindsAPlantedPermutation) {
    for (const std::string architecture : {"mlp", "cnn_batch_norm", "residual_batch_norm"}) {
        Round round = make_round(architecture, 2);
        core::Random random(1, "plant");
        round.updates[1].parameters =
            symmetry::permute(round.updates[0].parameters, round.symmetries,
                              symmetry::random_permutations(round.symmetries, random));
        for (const std::string cost : {"weights", "activations"}) {
            const auto updates = fuse(round, "optimal_transport(cost=" + cost + ")+mean", 2).updates;
            EXPECT_LT(largest_difference(updates[0].parameters.values, updates[1].parameters.values), 1e-6)
                << architecture << ", " << cost;
        }
    }
}

TEST(OptimalTransport, CarriesADoubledModelOntoTheNarrowOne) {
    Round round = round_of({{6, 5}, {12, 10}});
    const auto wide = mlp_of({12, 10});
    round.updates[1].parameters = doubled(round.graph, round.updates[0].parameters, wide);
    for (const int ranks : {1, 2}) {
        const auto fused = fuse(round, "optimal_transport+mean", ranks);
        EXPECT_LT(largest_difference(fused.updates[1].parameters.values, round.updates[0].parameters.values),
                  1e-5);
    }
}

TEST(OptimalTransport, CarriesANarrowModelOntoItsDouble) {
    // The other way round: what reads a unit that went to two places is divided between them.
    Round round = round_of({{12, 10}, {6, 5}});
    const auto narrow = mlp_of({6, 5});
    const auto small = round.updates[1].parameters;
    round.updates[0].parameters = doubled(narrow, small, round.graph);
    const auto fused = fuse(round, "optimal_transport+mean", 2);
    const at::Tensor expected = logits_on(round, narrow, small);
    EXPECT_LT(largest_difference(logits_on(round, round.graph, fused.updates[1].parameters), expected), 1e-4);
    EXPECT_LT(largest_difference(logits_on(round, round.graph, fused.merged), expected), 1e-4);
}

TEST(OptimalTransport, WithEntropyComesNearTheExactPlan) {
    const Round round = round_of({{8, 6}, {8, 6}, {12, 9}});
    const auto exact = fuse(round, "optimal_transport+mean").merged;
    const auto near = fuse(round, "optimal_transport(regularisation=0.002)+mean").merged;
    const auto far = fuse(round, "optimal_transport(regularisation=1)+mean").merged;
    const auto difference = [&](const model::Parameters& other) {
        return (exact.values - other.values).norm().item<double>();
    };
    EXPECT_LT(difference(near), 0.2 * difference(far));
}

TEST(Widths, SameBitsOnAnyNumberOfRanks) {
    const Round round = round_of({{12, 9}, {8, 6}, {10, 9}, {12, 9}});
    for (const std::string pipeline :
         {"optimal_transport+mean", "optimal_transport(cost=activations)+mean+repair",
          "matched_averaging+mean", "matched_averaging+mean+repair"}) {
        const auto once = fuse(round, pipeline, 1);
        EXPECT_FALSE(once.merged.first_non_finite().has_value());
        for (const int ranks : {2, 3, 5})
            EXPECT_TRUE(same_bits(once.merged, fuse(round, pipeline, ranks).merged)) << pipeline;
    }
}

TEST(Widths, OtherStagesSayWhatToDo) {
    const Round round = round_of({{8, 6}, {10, 6}});
    for (const std::string pipeline : {"mean", "weight_matching+mean", "merge_many+mean"}) {
        try {
            fuse(round, pipeline);
            ADD_FAILURE() << pipeline;
        } catch (const core::UsageError& error) {
            EXPECT_THAT(error.what(), ::testing::HasSubstr("optimal_transport or matched_averaging"));
        }
    }
}

TEST(MatchedAveraging, BringsPermutedCopiesTogether) {
    Round round = round_of({{9, 7}, {9, 7}, {9, 7}});
    core::Random random(1, "clients");
    const auto base = round.updates[0].parameters;
    for (auto& update : round.updates) {
        update.parameters = symmetry::permute(base, round.symmetries,
                                              symmetry::random_permutations(round.symmetries, random));
        update.parameters.values *= 20;  // far apart, as the prior sees it
    }
    const auto expected = logits_on(round, round.graph, round.updates[0].parameters);
    const auto merged = fuse(round, "matched_averaging(gamma=0.001)+mean", 2).merged;
    EXPECT_LT(largest_difference(logits_on(round, round.graph, merged), expected),
              1e-3 * expected.abs().max().item<double>());
}

TEST(MatchedAveraging, GrowsWhereNeuronsDoNotFitTogether) {
    Round round = round_of({{4, 3}, {4, 3}});
    for (auto& update : round.updates) update.parameters.values *= 20;
    std::vector<double> sizes;
    const auto fused = fuse(round, "matched_averaging(grow=true, gamma=100)+mean", 1);
    for (const auto& [name, value] : fused.reports[0].notes) sizes.push_back(value);
    ASSERT_EQ(sizes.size(), 2U);
    EXPECT_GT(sizes[0], 4);
    EXPECT_LE(sizes[0], 8);
}

TEST(MatchedAveraging, NeedsRoomForTheWidestClient) {
    const Round round = round_of({{6, 6}, {9, 6}});
    try {
        fuse(round, "matched_averaging+mean");
        FAIL();
    } catch (const core::RunError& error) {
        EXPECT_THAT(error.what(),
                    ::testing::AllOf(::testing::HasSubstr("9 channels"), ::testing::HasSubstr("grow: true")));
    }
}

}  // namespace
}  // namespace thalweg::testing::widths_test
