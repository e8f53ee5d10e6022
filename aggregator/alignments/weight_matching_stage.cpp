#include <memory>

#include "matching_support.hpp"
#include "thalweg/aggregator/matching.hpp"
#include "thalweg/aggregator/stage.hpp"

namespace thalweg::aggregator {
namespace {

class WeightMatching final : public PerUpdateStage {
  public:
    explicit WeightMatching(const core::Value& options) : anchor_(options["anchor"].as_text()) {
        options_.restarts = static_cast<int>(options["restarts"].as_int());
        options_.max_sweeps = static_cast<int>(options["max_sweeps"].as_int());
    }

    StageTraits traits() const override {
        return {.kind = StageKind::per_update,
                .keeps_function = true,
                .permutes = true,
                .changes_frame = anchor_ != "global",
                .needs_anchor = true};
    }

  protected:
    std::string anchor() const override { return anchor_; }

    void treat(Update& update, const model::Parameters& anchor, const FusionContext& context) const override {
        core::Random random(context.seed, "weight_matching", context.round, update.client);
        const MatchResult match =
            weight_matching(context.graph, context.symmetries, anchor, update.parameters, random, options_);
        permute_update(update, context.symmetries, match.permutations);
    }

  private:
    std::string anchor_;
    WeightMatchingOptions options_;
};

const StageRegistration registration{
    {.kind = "stage",
     .name = "weight_matching",
     .help = "permutes every update's channels so that its weights lie along the anchor's",
     .citation = "Ainsworth, Hayase & Srinivasa, Git Re-Basin, ICLR 2023, algorithm 1",
     .options = {core::choice(
                     "anchor", {"global", "first", "largest"},
                     "what to align to: the previous global model (in round 1 the first client's), the "
                     "update of the lowest client id, or that of the client with most samples")
                     .by_default("global"),
                 core::integer("restarts",
                               "runs; the first starts as the models are, the others from random "
                               "permutations, and the best counts")
                     .at_least(1)
                     .by_default(1),
                 core::integer("max_sweeps", "stops after so many sweeps over the groups")
                     .at_least(1)
                     .by_default(100)}},
    [](const core::Value& options) { return std::make_unique<WeightMatching>(options); }};

}  // namespace
}  // namespace thalweg::aggregator
