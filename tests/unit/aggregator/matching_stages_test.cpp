#include <gtest/gtest.h>
#include <torch/types.h>

#include <mutex>

#include "fusion_fixture.hpp"
#include "thalweg/aggregator/matching.hpp"

namespace thalweg::aggregator::matching_stages_test {
namespace {

using testing::make_round;
using testing::Round;

const std::vector<std::string>& stages() {
    static const std::vector<std::string> texts{"weight_matching",
                                                "weight_matching(anchor=first, restarts=2)",
                                                "weight_matching(anchor=largest, max_sweeps=3)",
                                                "activation_matching",
                                                "activation_matching(anchor=first)",
                                                "merge_many",
                                                "merge_many(weights=uniform, max_iterations=2)"};
    return texts;
}

/// Every rank's updates after one stage, by client.
std::vector<Update> after(const Round& round, const std::string& stage, int ranks) {
    std::vector<Update> result;
    std::mutex mutex;
    testing::on_ranks(round, ranks, [&](FusionState& state, const FusionContext& context) {
        const auto pipeline = Pipeline::parse(stage + "+mean");
        pipeline.items().front().stage->apply(state, context);
        auto all = gather_updates(state, context);
        const std::lock_guard lock(mutex);
        result = std::move(all);
    });
    return result;
}

TEST(MatchingStages, KeepTheFunctionOfEveryUpdate) {
    for (const std::string& name : testing::architectures()) {
        const auto round = make_round(name, 3);
        const auto x = testing::inputs_of(
            round.graph, *testing::random_samples(20, c10::multiply_integers(round.graph.input_shape()), 4));
        for (const auto& stage : stages()) {
            const auto updates = after(round, stage, 1);
            bool any_moved = false;
            for (std::size_t k = 0; k < updates.size(); ++k) {
                const auto before = testing::logits_of(round.graph, round.updates[k].parameters, x);
                const auto now = testing::logits_of(round.graph, updates[k].parameters, x);
                EXPECT_LT(testing::largest_difference(before, now), 1e-4) << name << ' ' << stage;
                any_moved =
                    any_moved || !testing::same_bits(round.updates[k].parameters, updates[k].parameters);
            }
            EXPECT_TRUE(any_moved) << name << ' ' << stage;
        }
    }
}

TEST(MatchingStages, GiveTheSameBitsOnAnyNumberOfRanks) {
    for (const std::string name : {"mlp", "cnn_batch_norm"}) {
        const auto round = make_round(name, 5);
        for (const auto& stage : stages()) {
            const auto alone = after(round, stage, 1);
            for (const int ranks : {2, 3, 7}) {
                const auto together = after(round, stage, ranks);
                ASSERT_EQ(together.size(), alone.size());
                for (std::size_t k = 0; k < alone.size(); ++k) {
                    EXPECT_TRUE(testing::same_bits(alone[k].parameters, together[k].parameters))
                        << name << ' ' << stage << " on " << ranks;
                }
            }
        }
    }
}

TEST(MatchingStages, TheAnchorsOwnUpdateStays) {
    const auto round = make_round("mlp", 4);
    for (const std::string method : {"weight_matching", "activation_matching"}) {
        const auto first = after(round, method + "(anchor=first)", 2);
        EXPECT_TRUE(testing::same_bits(first[0].parameters, round.updates[0].parameters)) << method;
        EXPECT_FALSE(testing::same_bits(first[1].parameters, round.updates[1].parameters)) << method;
    }
}

TEST(MatchingStages, UpdatesThatAreCopiesMeetTheirAnchor) {
    for (const std::string& name : testing::architectures()) {
        auto round = make_round(name, 4);
        core::Random random(2, "copies");
        for (Update& update : round.updates) {
            const auto permutations = symmetry::random_permutations(round.symmetries, random);
            update.parameters = symmetry::permute(round.global, round.symmetries, permutations);
        }
        for (const std::string stage : {"weight_matching(restarts=10)", "activation_matching"}) {
            for (const Update& update : after(round, stage, 2)) {
                EXPECT_TRUE(testing::same_bits(update.parameters, round.global)) << name << ' ' << stage;
            }
        }
    }
}

TEST(MatchingStages, MasksMoveWithTheirUpdates) {
    auto round = make_round("cnn", 3);
    for (Update& update : round.updates) {
        // a mask that can be read off the values, before and after
        update.mask = update.parameters.trainable().gt(0);
    }
    for (const auto& stage : stages()) {
        for (const Update& update : after(round, stage, 2)) {
            EXPECT_TRUE(at::equal(update.mask, update.parameters.trainable().gt(0))) << stage;
        }
    }
}

TEST(MatchingStages, SayWhatTheyDo) {
    const auto traits = [](const std::string& stage) {
        return Pipeline::parse(stage + "+mean").items().front().traits;
    };
    for (const auto& stage : stages()) EXPECT_TRUE(traits(stage).keeps_function) << stage;
    EXPECT_FALSE(traits("weight_matching").changes_frame);
    for (const auto* name : {"weight_matching", "activation_matching", "merge_many"})
        EXPECT_TRUE(traits(name).permutes) << name;
    EXPECT_FALSE(traits("sign_alignment").permutes);
    EXPECT_TRUE(traits("weight_matching(anchor=first)").changes_frame);
    EXPECT_TRUE(traits("merge_many").changes_frame);
    EXPECT_TRUE(traits("activation_matching").needs_holdout);
    EXPECT_TRUE(traits("activation_matching(anchor=largest)").changes_frame);
    EXPECT_EQ(traits("merge_many").kind, StageKind::cross_update);
}

}  // namespace
}  // namespace thalweg::aggregator::matching_stages_test
