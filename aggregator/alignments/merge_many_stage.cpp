#include <memory>
#include <span>

#include "matching_support.hpp"
#include "thalweg/aggregator/matching.hpp"
#include "thalweg/aggregator/stage.hpp"
#include "thalweg/core/error.hpp"

namespace thalweg::aggregator {
namespace {

class MergeMany final : public Stage {
  public:
    explicit MergeMany(const core::Value& options)
        : weighting_(options["weights"].as_text() == "uniform" ? Weighting::uniform : Weighting::samples),
          by_activations_(options["by"].as_text() == "activations"),
          max_iterations_(static_cast<int>(options["max_iterations"].as_int())) {}

    StageTraits traits() const override {
        return {.kind = StageKind::cross_update,
                .keeps_function = true,
                .permutes = true,
                .changes_frame = true,
                .needs_holdout = by_activations_,
                .min_holdout = by_activations_ ? 2 : 1};
    }

    StageNotes apply(FusionState& state, const FusionContext& context) const override {
        core::collectively(context.communicator, [&] {
            if (by_activations_ && context.holdout == nullptr) {
                throw core::UsageError(
                    "merge_many with by: activations looks at samples of the server's, and there are none: "
                    "set "
                    "data.holdout, or by: weights");
            }
        });
        const auto updates = gather_updates(state, context);
        const auto w =
            core::collectively(context.communicator, [&] { return weights(context.members, weighting_); });
        std::vector<model::Parameters> models;
        for (const Update& update : updates) models.push_back(update.parameters);
        core::Random random(context.seed, "merge_many", context.round);
        move_updates(state, context,
                     by_activations_
                         ? merge_many_by_activations(context.graph, context.symmetries, models, w,
                                                     *context.holdout, context.communicator, max_iterations_)
                         : merge_many(context.graph, context.symmetries, models, w, random, max_iterations_,
                                      &context.communicator));
        return {};
    }

  private:
    Weighting weighting_;
    bool by_activations_;
    int max_iterations_;
};

const StageRegistration merge_many_stage_registration{
    {.kind = "stage",
     .name = "merge_many",
     .help =
         "permutes all updates into a common frame: each in turn to the mean of the others, until none moves",
     .citation = "Ainsworth, Hayase & Srinivasa, Git Re-Basin, ICLR 2023, algorithm 3; by activations: ours",
     .options = {core::choice("weights", {"samples", "uniform"},
                              "what a client counts in the mean of the others: its samples, or all alike")
                     .by_default("samples"),
                 core::choice("by", {"weights", "activations"},
                              "what channels are compared by: their weights, or the correlations of their "
                              "activations on the server's samples")
                     .by_default("weights"),
                 core::integer("max_iterations", "stops after so many passes over the updates")
                     .at_least(1)
                     .by_default(100)},
     .cost = "a weight matching a client and pass, one after another; ranks share the rows of the gains, and "
             "each holds the cohort"},
    [](const core::Value& options) { return std::make_unique<MergeMany>(options); }};

}  // namespace
}  // namespace thalweg::aggregator
