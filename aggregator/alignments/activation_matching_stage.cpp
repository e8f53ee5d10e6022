#include <memory>

#include "matching_support.hpp"
#include "thalweg/aggregator/matching.hpp"
#include "thalweg/aggregator/stage.hpp"
#include "thalweg/core/error.hpp"

namespace thalweg::aggregator {
namespace {

class ActivationMatching final : public PerUpdateStage {
  public:
    explicit ActivationMatching(const core::Value& options) : anchor_(options["anchor"].as_text()) {}

    StageTraits traits() const override {
        return {.kind = StageKind::per_update,
                .keeps_function = true,
                .permutes = true,
                .changes_frame = anchor_ != "global",
                .needs_anchor = true,
                .needs_holdout = true,
                .min_holdout = 2};  // correlations of one sample do not exist
    }

  protected:
    std::string anchor() const override { return anchor_; }

    void treat(Update& update, const model::Parameters& anchor, const FusionContext& context) const override {
        if (context.holdout == nullptr) {
            throw core::UsageError(
                "the stage activation_matching looks at samples of the server's, and there are none: set "
                "data.holdout, "
                "or use weight_matching, which needs none");
        }
        const MatchResult match = activation_matching(context.graph, context.symmetries, anchor,
                                                      update.parameters, *context.holdout);
        permute_update(update, context.symmetries, match.permutations);
    }

  private:
    std::string anchor_;
};

const StageRegistration registration{
    {.kind = "stage",
     .name = "activation_matching",
     .help = "permutes every update's channels so that they fire with the anchor's on the server's samples",
     .citation = "Li et al., Convergent Learning, 2015; Jordan et al., REPAIR, ICLR 2023",
     .options = {core::choice(
                     "anchor", {"global", "first", "largest"},
                     "what to align to: the previous global model (in round 1 the first client's), the "
                     "update of the lowest client id, or that of the client with most samples")
                     .by_default("global")}},
    [](const core::Value& options) { return std::make_unique<ActivationMatching>(options); }};

}  // namespace
}  // namespace thalweg::aggregator
