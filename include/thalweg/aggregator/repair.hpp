#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "thalweg/aggregator/stage.hpp"
#include "thalweg/aggregator/statistics.hpp"
#include "thalweg/model/graph.hpp"

namespace thalweg::aggregator {

/// How the merged model's pre-activations are mended.
struct RepairOptions {
    /// What σ* is: the ends' own spread (averaged as `Average` says), or that of all ends' values thrown together,
    /// √(Σ w_k (σ_k² + μ_k²) − μ*²); then `Average` does not matter.
    enum class Target { within, pooled };
    /// Σ w_k σ_k, or √(Σ w_k σ_k²).
    enum class Average { deviation, variance };
    /// Means and deviations, deviations only (RESCALE: the mean stays where it is), means only (RESHIFT).
    enum class Mode { repair, rescale, reshift };
    Target target = Target::within;
    Average average = Average::deviation;
    Mode mode = Mode::repair;
    bool classifier = false;  ///< the last affine layer, whose pre-activations are the logits, as well

    /// Of the texts that configurations use: `within|pooled`, `std|variance`, `repair|rescale|reshift`.
    static RepairOptions from(const std::string& target, const std::string& average, const std::string& mode,
                              bool classifier);
};

/// The linear and convolution layers whose pre-activations are repaired, in order: those that no batch norm follows
/// directly (it normalises anyway), without the classifier unless the options say so.
std::vector<std::size_t> repaired_operations(const model::ModelGraph& graph, const RepairOptions& options);

/// w_k by a finisher's `weights` option: `reduction` (those the reduction used), `samples` or `uniform`.
std::vector<double> finisher_weights(const std::string& option, const FusionState& state,
                                     const FusionContext& context);

/// Moments of the ends' own pre-activations: all that REPAIR needs to know of the models that were merged.
struct EndMoments {
    std::vector<std::size_t> operations;
    std::vector<std::vector<ChannelMoments>> ends;  ///< [end][i] belongs to operations[i]
};

/// Every update's own moments, in the members' order, after one pass over the source's data each and one exchange.
/// Collective; the same on every rank.
EndMoments end_moments(const FusionState& state, const FusionContext& context, StatisticsSource& source,
                       const std::vector<std::size_t>& operations);

struct RepairReport {
    std::int64_t layers = 0, channels = 0;  ///< repaired
    std::int64_t dead_channels = 0;         ///< left unscaled, see repair()
    std::int64_t layers_without_bias = 0;   ///< could not be shifted, only scaled
    std::int64_t batch_norms = 0;           ///< running statistics recomputed
    StageNotes notes() const;
};

/// REPAIR (Jordan, Sedghi, Saukh, Entezari & Neyshabur, ICLR 2023): gives every channel of every repaired pre-activation
/// the mean μ* = Σ w_k μ_k and the deviation σ* of the ends, by W ← W·σ*/√v, b ← μ* + (b − m)·σ*/√v with the merged
/// model's own moments m, v. From input to output: each layer is measured after those before it have been mended. Batch
/// norms' running statistics are recomputed in the same pass, as reset_batch_norm does.
///
/// Writes into `merged`. `weights` w_k of the ends; `context.members` are those the source asks for the merged model's
/// moments (for `lmc`: the precomputed ends are the same at every λ, the weights are not).
///
/// A channel that is (nearly) constant in the merged model, v ≤ max(10⁻⁶ σ*², 10⁻¹⁰ m²), is dead: what little it varies
/// is rounding, or would be blown up more than a thousandfold. It is shifted but not scaled, and counted. In the formula
/// there is no ε besides. A layer without bias cannot be shifted: it is scaled only (`reshift` leaves it), and counted.
///
/// Cost: a pass over the source's data through the first l layers for each repaired layer l. Collective; the same on
/// every rank and any number of ranks.
RepairReport repair(model::Parameters& merged, const EndMoments& ends, const FusionContext& context,
                    StatisticsSource& source, const std::vector<double>& weights,
                    const RepairOptions& options);

/// The same with the ends' moments taken from `state.updates`. Collective.
RepairReport repair(model::Parameters& merged, const FusionState& state, const FusionContext& context,
                    StatisticsSource& source, const std::vector<double>& weights,
                    const RepairOptions& options);

/// Recomputes the running means and (unbiased) variances of all batch norms of `merged`, in place, from input to output,
/// as population statistics over all of the source's data. A batch norm that reads the graph's input keeps its averaged
/// statistics: the input does not depend on the model. Returns how many were recomputed. Collective.
std::int64_t reset_batch_norm(model::Parameters& merged, const FusionContext& context,
                              StatisticsSource& source, const std::vector<double>& weights);

/// The source that a stage's option `statistics` (`server` or `clients`) names, or UsageError when there is none.
StatisticsSource& source_of(const std::string& statistics, const FusionContext& context);

}  // namespace thalweg::aggregator
