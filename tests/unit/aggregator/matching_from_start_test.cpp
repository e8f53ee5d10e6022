/// permutation_from and apply_to: what is matched, the trained models or those the trainings started from, and which of
/// them goes on.
#include <gtest/gtest.h>
#include <torch/types.h>

#include <algorithm>

#include "fusion_fixture.hpp"
#include "thalweg/aggregator/matching.hpp"

namespace thalweg::aggregator::matching_from_start_test {
namespace {

using symmetry::compose;
using symmetry::inverse;
using symmetry::Permutations;
using testing::Round;
using testing::same_bits;

/// The updates after one stage, on one rank: there all of an update can be seen.
std::vector<Update> after(const Round& round, const std::string& stage) {
    std::vector<Update> result;
    testing::on_ranks(round, 1, [&](FusionState& state, const FusionContext& context) {
        Pipeline::parse(stage + "+mean").items().front().stage->apply(state, context);
        result = std::move(state.updates);
    });
    return result;
}

/// `name(given, settings)`
std::string with(const std::string& stage, const std::string& settings) {
    const bool has_options = stage.ends_with(")");
    return has_options ? stage.substr(0, stage.size() - 1) + ", " + settings + ")"
                       : stage + "(" + settings + ")";
}

std::string from_to(const std::string& stage, const std::string& from, const std::string& to) {
    return with(stage, "permutation_from=" + from + ", apply_to=" + to);
}

Permutations inverses(const Permutations& permutations) {
    Permutations result;
    for (const auto& permutation : permutations) result.push_back(inverse(permutation));
    return result;
}

/// Every matching stage, and the settings with which it finds what was planted; empty: it need not find it.
const std::vector<std::pair<std::string, std::string>>& methods() {
    static const std::vector<std::pair<std::string, std::string>> all{
        {"activation_matching", "kernel=correlation"},
        {"covariance_matching", "max_sweeps=10"},
        {"simulated_annealing", ""},
        {"sinkhorn_rebasin", "steps=300"},
        {"straight_through", "epochs=1"},
        {"weight_matching", "restarts=10"}};
    return all;
}

TEST(MatchingFromStart, EveryMatchingStageIsTested) {
    std::vector<std::string> names;
    for (const auto& [name, settings] : methods()) names.push_back(name);
    EXPECT_EQ(names, alignment_methods());
}

/// A round whose trained models and starts are the global model and a relative of it, each permuted in another way.
struct Planted {
    Round round = testing::make_round("mlp", 2);
    model::Parameters relative = round.global.clone();  ///< what the starts are copies of
    std::vector<Permutations> of_end, of_start;

    Planted() {
        core::Random random(4, "planted");
        const at::Tensor values = relative.trainable();
        for (std::int64_t i = 0; i < values.numel(); ++i) values[i] += random.normal(0, 0.002);
        for (Update& update : round.updates) {
            of_end.push_back(symmetry::random_permutations(round.symmetries, random));
            of_start.push_back(symmetry::random_permutations(round.symmetries, random));
            update.parameters = symmetry::permute(round.global, round.symmetries, of_end.back());
            update.start = symmetry::permute(relative, round.symmetries, of_start.back());
        }
        round.holdout = testing::random_samples(300, 12, 4, 8);
    }
};

TEST(MatchingFromStart, PlantedPermutationsOfStartsAndEndsAreToldApart) {
    const Planted planted;
    const Round& round = planted.round;
    const auto moved = [&](const model::Parameters& model, const Permutations& permutations) {
        return symmetry::permute(model, round.symmetries, permutations);
    };
    for (const auto& [name, settings] : methods()) {
        if (settings.empty()) continue;
        for (const std::string from : {"end", "start"}) {
            for (const std::string to : {"end", "start"}) {
                const auto updates = after(round, from_to(with(name, settings), from, to));
                ASSERT_EQ(updates.size(), 2U);
                for (std::size_t k = 0; k < updates.size(); ++k) {
                    const auto& end = planted.of_end[k];
                    const auto& start = planted.of_start[k];
                    const Permutations back = inverses(from == "end" ? end : start);
                    // Where the model lies now that was not matched: what was planted there, then that back.
                    const auto expected_end = moved(round.global, compose(end, back));
                    const auto expected_start = moved(planted.relative, compose(start, back));
                    const auto& expected = to == "end" ? expected_end : expected_start;
                    EXPECT_TRUE(same_bits(updates[k].parameters, expected))
                        << name << " from " << from << " to " << to << ", client " << k;
                    EXPECT_TRUE(same_bits(updates[k].start, expected_start))
                        << name << " from " << from << " to " << to << ", client " << k;
                }
            }
        }
    }
}

/// Whatever a method finds: matching starts is matching updates whose trained models are those starts.
TEST(MatchingFromStart, IsTheMatchingOfTheStarts) {
    Round round = testing::make_round("mlp", 3);
    round.holdout = testing::random_samples(200, 12, 4, 8);
    Round swapped = round;
    for (Update& update : swapped.updates) std::swap(update.parameters, update.start);
    for (const std::string stage : {"simulated_annealing(steps=30)", "weight_matching(kernel=cosine)",
                                    "weight_matching(anchor=first)", "activation_matching(anchor=largest)"}) {
        const auto by_end = after(round, stage);
        const auto by_start = after(swapped, stage);  // .start: the trained model
        const auto end_to_start = after(round, from_to(stage, "end", "start"));
        const auto start_to_end = after(round, from_to(stage, "start", "end"));
        const auto start_to_start = after(round, from_to(stage, "start", "start"));
        bool differ = false;
        for (std::size_t k = 0; k < by_end.size(); ++k) {
            differ = differ || !same_bits(by_end[k].parameters, by_start[k].start);
            EXPECT_TRUE(same_bits(end_to_start[k].parameters, by_end[k].start)) << stage;
            EXPECT_TRUE(same_bits(end_to_start[k].start, by_end[k].start)) << stage;
            EXPECT_TRUE(same_bits(start_to_end[k].parameters, by_start[k].start)) << stage;
            EXPECT_TRUE(same_bits(start_to_end[k].start, by_start[k].parameters)) << stage;
            EXPECT_TRUE(same_bits(start_to_start[k].parameters, by_start[k].parameters)) << stage;
            EXPECT_TRUE(same_bits(start_to_start[k].start, by_start[k].parameters)) << stage;
        }
        EXPECT_TRUE(differ) << stage << " finds the same for starts and ends: this test shows nothing";
    }
}

TEST(MatchingFromStart, TheStartMovesWithTheTrainedModel) {
    // Both signs and permutations: in tanh nets either may move.
    for (const std::string architecture : {"mlp_tanh", "residual_batch_norm"}) {
        Round round = testing::make_round(architecture, 3);
        round.holdout = testing::random_samples(200, c10::multiply_integers(round.graph.input_shape()), 4, 8);
        // A start that can be read off the trained model, before and after.
        for (Update& update : round.updates) {
            update.start = update.parameters.clone();
            update.start.values.mul_(2);
        }
        for (const std::string stage :
             {"weight_matching", "weight_matching(anchor=first)", "activation_matching", "merge_many",
              "merge_many(by=activations)", "c2m3(max_iterations=20)"}) {
            const auto updates = after(round, stage);
            bool any_moved = false;
            for (std::size_t k = 0; k < updates.size(); ++k) {
                EXPECT_TRUE(at::equal(updates[k].start.values, updates[k].parameters.values * 2))
                    << stage << " on " << architecture << ", client " << k;
                any_moved = any_moved || !same_bits(updates[k].parameters, round.updates[k].parameters);
            }
            EXPECT_TRUE(any_moved) << stage << " on " << architecture;
        }
    }
}

}  // namespace
}  // namespace thalweg::aggregator::matching_from_start_test
