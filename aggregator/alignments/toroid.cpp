#include <torch/types.h>

#include "thalweg/aggregator/spheres.hpp"
#include "thalweg/aggregator/stage.hpp"
#include "thalweg/core/error.hpp"

namespace thalweg::aggregator {

namespace {

/// Toroid normalisation (Pittorino et al., ICML 2022): batch norms folded, every hidden unit's incoming vector brought to
/// length 1 and its outgoing weights multiplied instead, the classifier normalised as a whole. Rescalings, which the
/// function does not see, then no longer separate models that are the same; match by cosines afterwards, and average on
/// geodesics: `toroid+weight_matching(anchor=first, kernel=cosine, order=forward)+geodesic_mean`. The anchor is another
/// update, for the previous global model has not been rescaled. The arg-max stays; logits are divided by a number of each
/// model's own.
///
/// Folded batch norms are left as the identity, which they are by their running statistics: nothing that takes those anew
/// may follow (Pipeline::run refuses it), and training on from the fused model starts from another function.
///
/// Departures: channels of a residual stream are no units, since what a rescaling takes from one branch the others would
/// have to give back. Units inside the branches read that stream, so that sweeps over all units are repeated until every
/// length is 1 to 10⁻⁶, or 100 times. The classifier is one vector: all logits of a model are divided by one number.
class Toroid final : public PerUpdateStage {
  public:
    StageTraits traits() const override {
        return {.kind = StageKind::per_update,
                .keeps_decision = true,
                .changes_frame = true,  // its scales are not the previous global model's
                .folds_norms = true,
                .needs_homogeneous = true,
                .fixed_point = false};
    }

  protected:
    void treat(Update& update, const model::Parameters&, const FusionContext& context) const override {
        const Spheres spheres(context.graph);
        if (spheres.units() == 0) {
            throw core::RunError(
                "toroid normalisation rescales hidden units, and in this model none can be: it needs "
                "positively "
                "homogeneous activations (ReLU, leaky ReLU, PReLU) with no norm but batch norm before them");
        }
        update.parameters = update.parameters.clone();
        spheres.fold_batch_norms(update.parameters);
        spheres.normalise(update.parameters);
    }
};

const StageRegistration toroid_registration{
    {.kind = "stage",
     .name = "toroid",
     .help = "rescales hidden units of ReLU nets to incoming weights of length 1; the arg-max stays",
     .citation = "Pittorino et al., Deep Networks on Toroids, ICML 2022",
     .options = {},
     .cost = "O(d) a layer, an update; updates in parallel over ranks"},
    [](const core::Value&) { return std::make_unique<Toroid>(); }};

}  // namespace

}  // namespace thalweg::aggregator
