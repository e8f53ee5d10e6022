#include "matching_stage.hpp"

#include <utility>

#include "matching_support.hpp"
#include "thalweg/core/error.hpp"

namespace thalweg::aggregator {

MatchingStage::MatchingStage(std::string name, const core::Value& options, bool needs_holdout)
    : name_(std::move(name)),
      anchor_(options["anchor"].as_text()),
      from_start_(options["permutation_from"].as_text() == "start"),
      to_start_(options["apply_to"].as_text() == "start"),
      needs_holdout_(needs_holdout) {}

StageTraits MatchingStage::traits() const {
    return {.kind = StageKind::per_update,
            .keeps_function = !to_start_,
            .permutes = true,
            .changes_frame = anchor_ != "global",
            .needs_anchor = true,
            .needs_start = from_start_ || to_start_,
            .needs_holdout = needs_holdout_};
}

/// As any stage that treats updates by themselves, for the models before or after the training.
StageNotes MatchingStage::apply(FusionState& state, const FusionContext& context) const {
    if (!from_start_) return PerUpdateStage::apply(state, context);
    FusionState starts;
    starts.updates = state.updates;
    for (std::size_t i = 0; i < starts.updates.size(); ++i) {
        starts.updates[i].start = state.updates[i].parameters;  // the two change places
        starts.updates[i].parameters = state.updates[i].start;
    }
    const auto notes = PerUpdateStage::apply(starts, context);
    state.updates = std::move(starts.updates);
    return notes;
}

void MatchingStage::treat(Update& update, const model::Parameters& anchor,
                          const FusionContext& context) const {
    if (needs_holdout_ && context.holdout == nullptr) {
        throw core::UsageError(
            "the stage " + name_ +
            " looks at samples of the server's, and there are none: set data.holdout, or use "
            "weight_matching, which needs none");
    }
    core::Random random(context.seed, name_, context.round, update.client);
    const MatchResult found =
        match({context.graph, context.symmetries, anchor, update.parameters, context.holdout}, random);
    // Matched are `update.parameters`; with permutation_from: start those are the start, and `start` is the trained model.
    if (from_start_ != to_start_) std::swap(update.parameters, update.start);
    move_update(update, context, {found.permutations, found.signs});
    if (to_start_) update.start = update.parameters;  // it has not been trained
}

core::Schema MatchingStage::options(std::vector<core::Option> own) {
    std::vector<core::Option> all{
        core::choice("anchor", {"global", "first", "largest"},
                     "what to align to: the previous global model (in round 1 the first client's), the "
                     "update of the lowest client id, or that of the client with most samples")
            .by_default("global"),
        core::choice("permutation_from", {"end", "start"},
                     "what is matched: the trained models, or those the trainings started from")
            .by_default("end"),
        core::choice("apply_to", {"end", "start"}, "what is permuted by it, and goes on through the pipeline")
            .by_default("end")};
    for (auto& option : own) all.push_back(std::move(option));
    return core::Schema(std::move(all));
}

}  // namespace thalweg::aggregator
