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

/// Sign consistency (Li et al., NeurIPS 2024): over trainable entries that are not both zero, the share with a·b > 0
/// (by sign: products of tiny numbers count, too). Norm scales are left out of `overall` (they start at 1) and shown by
/// tensor. A tensor that is zero in both models is left out of `tensors`; `overall` is NaN when nothing was counted.
struct SignConsistency {
    double overall = 0;
    std::vector<std::pair<std::string, double>> tensors;
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
/// a value is NaN.
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

}  // namespace thalweg::analysis
