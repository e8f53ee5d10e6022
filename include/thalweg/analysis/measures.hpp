#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "thalweg/aggregator/repair.hpp"
#include "thalweg/aggregator/stage.hpp"
#include "thalweg/analysis/evaluate.hpp"
#include "thalweg/model/graph.hpp"

namespace thalweg::analysis {

/// Whether models of this architecture have running statistics, which are their own only where they were trained.
bool has_batch_norm(const model::ModelGraph& graph);

/// How the signs of two models agree in one tensor, or in several.
struct SignAgreement {
    double ratio = 0;  ///< agree ÷ counted; NaN when nothing was counted
    /// Σ|a·b| over the entries whose signs agree ÷ Σ|a·b| over all: entries weigh by the product of their magnitudes. NaN
    /// when all products are zero.
    double weighted = 0;
    std::int64_t agree = 0;    ///< entries with a·b > 0
    std::int64_t counted = 0;  ///< entries that are not zero in both models
    std::int64_t tested = 0;   ///< entries that are zero in neither
    /// Against chance: were every sign of the `tested` entries tossed by itself, `agree` would be binomial(tested, 1/2);
    /// z = (agree − tested/2) ÷ (√tested/2), and p is two-sided by the normal distribution. A model's entries are not
    /// independent of one another (channels are learnt as a whole), so that p is far too small; z compares tensors and
    /// pairs of one size, and to test a claim whole models must be the units. NaN when nothing was tested.
    double z = 0, p = 1;
};

/// Sign consistency (Li et al., NeurIPS 2024): over trainable entries that are not both zero, the share with a·b > 0
/// (by sign: products of tiny numbers count, too). Norm scales are left out of `overall` (they start at 1) and shown by
/// tensor. A tensor that is zero in both models is left out of `tensors`; `overall` is NaN when nothing was counted.
struct SignConsistency {
    double overall = 0;
    std::vector<std::pair<std::string, double>> tensors;
    SignAgreement all{};  ///< of what `overall` counts; all.ratio is `overall`
    std::vector<std::pair<std::string, SignAgreement>> by_tensor{};  ///< the same tensors as `tensors`
};
/// RunError when the models' layouts or number types differ. Not collective.
SignConsistency sign_consistency(const model::Parameters& a, const model::Parameters& b);

/// How a point between two models is finished before it is evaluated: none, repair, rescale, reset_batch_norm; targets
/// are taken anew at each λ with weights (1−λ, λ). The ends stay as they are.
struct CurveOptions {
    std::int64_t points = 25;  ///< ≥ 2, evenly spaced from 0 to 1
    std::string finish = "none";
};

struct SplitCurve {
    std::vector<double> loss, accuracy;  ///< one a point
    /// Barrier (Entezari et al.): max over λ of the excess over the line between the ends; never below 0.
    double loss_barrier = 0, error_barrier = 0;
};

/// One set of samples a curve is measured on.
struct Split {
    std::string name;  ///< `train`, `test`
    const data::SampleSet* samples;
};

/// A + λ(B − A) in double, entry by entry, running statistics included; counters are A's. Exactly A at 0 and B's vector
/// at 1.
model::Parameters interpolate(const model::Parameters& a, const model::Parameters& b, double lambda);

/// The line (1−λ)A + λB, one point after another, the samples of each spread over the ranks; the same bits on any number.
/// `calibration` (the data for finishers and the variance ratio) may be null when finish is `none`; then
/// variance_ratio stays empty. UsageError for fewer than 2 points, an unknown finish, or a finish without calibration;
/// RunError when the layouts differ. Collective.
struct Curve {
    std::vector<double> lambdas;
    std::vector<std::pair<std::string, SplitCurve>> splits;
    /// At λ = 1/2, finished like the others: per layer (affine operation but the classifier) mean variance ÷ the ends' mean, see variance_ratio.
    std::vector<double> variance_ratio;
};
Curve linear_curve(const model::ModelGraph& graph, const model::Parameters& a, const model::Parameters& b,
                   const std::vector<Split>& splits, const CurveOptions& options,
                   std::shared_ptr<const data::SampleSet> calibration, core::Communicator& communicator);

/// Barrier of a pair on one set with few points (for federated rounds). Collective.
SplitCurve barrier(const model::ModelGraph& graph, const model::Parameters& a, const model::Parameters& b,
                   const data::SampleSet& samples, std::int64_t points, core::Communicator& communicator);
/// Largest excess of a measured curve over the line between its ends (larger values are worse), never below 0; NaN when
/// a value is NaN or an end is infinite.
double barrier_of(const std::vector<double>& lambdas, const std::vector<double>& values);

/// Per layer (linear and convolution pre-activations, the classifier left out): mean over channels of Var in the merged
/// model ÷ the weighted mean over the ends of the same. 1 is healthy, near 0 is the collapse REPAIR mends; NaN for a layer
/// that varies nowhere. `weights` in the members' order. Collective.
struct LayerRatio {
    std::string layer;
    double ratio = 0;
};
std::vector<LayerRatio> variance_ratio(const model::Parameters& merged, const aggregator::FusionState& ends,
                                       const aggregator::FusionContext& context,
                                       aggregator::StatisticsSource& source,
                                       const std::vector<double>& weights);
/// The same with the ends' moments taken before (`aggregator::end_moments` of variance_ratio_operations), for several
/// merged models of the same ends. Collective.
std::vector<LayerRatio> variance_ratio(const model::Parameters& merged, const aggregator::EndMoments& ends,
                                       const aggregator::FusionContext& context,
                                       aggregator::StatisticsSource& source,
                                       const std::vector<double>& weights);
/// The layers it looks at: affine operations but the last, the classifier.
std::vector<std::size_t> variance_ratio_operations(const model::ModelGraph& graph);

/// Per layer of the ends' moments and channel: σ of the merged model's values ÷ Σ w_k σ_k, what REPAIR (Jordan et al., ICLR
/// 2023) sets to 1 where it repairs (aggregator::repaired_operations), since it averages deviations and not variances. A
/// channel that is constant in all ends has NaN, which mean, min and max leave out (NaN when no channel is left). With
/// EndMoments::held over the ends that have the channel. `weights` in the members' order. Collective.
struct DeviationRatio {
    std::string layer;
    std::vector<double> channels;
    double mean = 0, min = 0, max = 0;
};
std::vector<DeviationRatio> deviation_ratio(const model::Parameters& merged,
                                            const aggregator::EndMoments& ends,
                                            const aggregator::FusionContext& context,
                                            aggregator::StatisticsSource& source,
                                            const std::vector<double>& weights);

}  // namespace thalweg::analysis
