#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "thalweg/analysis/measures.hpp"
#include "thalweg/model/graph.hpp"

namespace thalweg::analysis {

/// A way from one model (t = 0) to another (t = 1). Keeps models, not the graph.
class Path {
  public:
    virtual ~Path() = default;
    /// `line`, `geodesic`, `bezier`, `polygon`
    virtual std::string name() const = 0;
    /// The model at t in [0, 1], in a tensor of its own. Exactly the ends at 0 and 1; counters are A's. Not collective.
    virtual model::Parameters at(double t) const = 0;
    /// Its models' batch norms are folded: whoever takes their statistics anew makes other models.
    virtual bool folds_norms() const { return false; }
};

/// `interpolate(a, b, t)`. Each maker: RunError when the layouts or number types differ.
std::unique_ptr<Path> line_path(const model::Parameters& a, const model::Parameters& b);

/// The model with batch norms folded and toroid-normalised (aggregator::Spheres), in a tensor of its own: its decisions
/// stay, its logits are divided by one number. RunError when it has no units: it needs positively homogeneous activations.
model::Parameters toroid_normalised(const model::ModelGraph& graph, const model::Parameters& parameters);

/// The geodesic of Pittorino et al., *Deep Networks on Toroids*, ICML 2022, between both models toroid-normalised: every
/// hidden unit's incoming vector, and the classifier as one vector, moves on its sphere along
/// [sin((1−t)ω)a + sin(tω)b]/sin ω; what belongs to no unit moves on a line. The ends compute a's and b's functions up to a
/// positive factor on the logits: decisions stay, losses do not. Vectors that are opposite or zero move on a line. RunError as
/// toroid_normalised.
std::unique_ptr<Path> geodesic_path(const model::ModelGraph& graph, const model::Parameters& a,
                                    const model::Parameters& b);

/// (1−t)²A + 2t(1−t)C + t²B with the control point C (Garipov et al., *Loss Surfaces, Mode Connectivity, and Fast
/// Ensembling of DNNs*, NeurIPS 2018). Running statistics go the same way.
std::unique_ptr<Path> bezier_path(const model::Parameters& a, const model::Parameters& control,
                                  const model::Parameters& b);

/// A straight to the bend (t = ½) and straight on to B.
std::unique_ptr<Path> polygon_path(const model::Parameters& a, const model::Parameters& bend,
                                   const model::Parameters& b);

/// Points t = 0 … 1 of any path, measured and finished as linear_curve does (`lambdas` are the t; finishers take the ends'
/// moments with weights (1−t, t)). `variance_ratio` is that at t = ½. UsageError besides linear_curve's for a finish on
/// a path that folds batch norms, where the model has any. Collective; the same bits on any number of ranks.
Curve path_curve(const model::ModelGraph& graph, const Path& path, const std::vector<Split>& splits,
                 const CurveOptions& options, std::shared_ptr<const data::SampleSet> calibration,
                 core::Communicator& communicator);

/// How the free point of a bent path is trained: SGD with momentum; the rate is `lr` for the first half of the steps and falls
/// linearly to a hundredth of it until nine tenths, as in the source's programs.
struct BendOptions {
    std::int64_t epochs = 10;
    std::int64_t batch_size = 100;
    double lr = 0.03;
    double momentum = 0.9;
    double weight_decay = 0;
};

/// The free point (`kind`: `bezier` or `polygon`) that makes the expected loss at a uniformly random t small, from the
/// middle of the line on: a new t for each batch (Garipov et al., NeurIPS 2018; Draxler et al., *Essentially No Barriers in
/// Neural Network Energy Landscape*, ICML 2018, is the same question by another method). Batch norms use the batch's
/// statistics; the point's running statistics are the middle's, so that points between need reset_batch_norm. UsageError
/// for another kind, epochs < 1, or batches of one sample where there are batch norms; RunError when the loss is no longer finite. On this rank alone, a function of the
/// arguments; not collective.
model::Parameters train_bend(const model::ModelGraph& graph, const model::Parameters& a,
                             const model::Parameters& b, const std::string& kind,
                             const data::SampleSet& samples, const BendOptions& options, std::uint64_t seed);

/// How far one layer goes alone.
struct LayerBarrier {
    std::string layer;  ///< the module's name
    double loss_barrier = 0, error_barrier = 0;
    /// The excess at λ = ½ alone, which may be negative: what the source's programs show.
    double loss_at_middle = 0, error_at_middle = 0;
};

/// Layer by layer (every operation with entries, in order): that layer's entries on the line from A to B, running statistics
/// included, all others A's (Adilova et al., *Layer-wise Linear Mode Connectivity*, ICLR 2024). The barrier is
/// the largest excess over (1−λ)L(A) + λL(B), whole models both, at λ > 0, B's layer inside A included, and never below 0.
/// `points` ≥ 2 values of λ, evenly spaced from 0 to 1, and ½. The points of all layers are spread over ranks. With
/// `calibration` batch norms' statistics are taken anew on it at every point but the ends. Collective; the same bits on any
/// number of ranks.
std::vector<LayerBarrier> layer_barriers(const model::ModelGraph& graph, const model::Parameters& a,
                                         const model::Parameters& b, const data::SampleSet& samples,
                                         std::int64_t points, core::Communicator& communicator,
                                         std::shared_ptr<const data::SampleSet> calibration = nullptr);

/// 1 − after ÷ before (Jordan et al., REPAIR, ICLR 2023): 1 when a barrier is gone, negative when it grew; NaN when there
/// was none.
double relative_reduction(double before, double after);

}  // namespace thalweg::analysis
