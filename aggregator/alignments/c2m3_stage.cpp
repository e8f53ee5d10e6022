#include <memory>

#include "matching_support.hpp"
#include "thalweg/aggregator/matching.hpp"
#include "thalweg/aggregator/stage.hpp"

namespace thalweg::aggregator {
namespace {

class C2m3 final : public Stage {
  public:
    explicit C2m3(const core::Value& options) : weighting_(weighting_of(options["weights"].as_text())) {
        options_.max_iterations = static_cast<int>(options["max_iterations"].as_int());
        options_.tolerance = options["tolerance"].as_number();
        options_.patience = static_cast<int>(options["patience"].as_int());
        options_.restarts = static_cast<int>(options["restarts"].as_int());
    }

    StageTraits traits() const override {
        return {.kind = StageKind::cross_update,
                .keeps_function = true,
                .permutes = true,
                .changes_frame = true,
                .frame_free = options_.restarts == 1};  // random starts meet channels
    }

    StageNotes apply(FusionState& state, const FusionContext& context) const override {
        const auto updates = gather_updates(state, context);
        const auto w =
            core::collectively(context.communicator, [&] { return weights(context.members, weighting_); });
        std::vector<model::Parameters> models;
        for (const Update& update : updates) models.push_back(update.parameters);
        core::Random random(context.seed, "c2m3", context.round);
        const auto found =
            c2m3(context.graph, context.symmetries, models, w, context.communicator, random, options_);
        move_updates(state, context, found.elements);
        return {{"iterations", static_cast<double>(found.iterations)},
                {"relaxed_objective", found.relaxed},
                {"objective", found.objective}};
    }

  private:
    Weighting weighting_;
    C2m3Options options_;
};

const StageRegistration c2m3_stage_registration{
    {.kind = "stage",
     .name = "c2m3",
     .help = "permutes all updates into a common universe: Frank-Wolfe over all pairs at once",
     .citation = "Crisostomi et al., C2M3: Cycle-Consistent Multi-Model Merging, NeurIPS 2024",
     .options =
         {core::choice("weights", {"uniform", "samples"},
                       "what a pair counts: all alike, or by both clients' samples")
              .by_default("uniform"),
          core::integer("max_iterations", "stops after so many steps").at_least(1).by_default(200),
          core::number("tolerance", "a step that gains less (relatively) counts as none")
              .at_least(0)
              .by_default(1e-6),
          core::integer("patience", "so many steps in a row without gain end it").at_least(1).by_default(5),
          core::integer(
              "restarts",
              "runs; the first starts as the models are, the others from random permutations, and the "
              "best counts")
              .at_least(1)
              .by_default(1)},
     .cost = "O(K · n · d) a step for groups of n channels, spread over ranks in part"},
    [](const core::Value& options) { return std::make_unique<C2m3>(options); }};

}  // namespace
}  // namespace thalweg::aggregator
