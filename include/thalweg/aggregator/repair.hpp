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
    /// Layer after layer, each measured after those before it have been mended; all layers measured in one pass that mends
    /// on the way; or from the ends' joint moments, without a pass of the merged model.
    enum class Method { sequential, one_pass, closed_form };
    Target target = Target::within;
    Average average = Average::deviation;
    Mode mode = Mode::repair;
    Method method = Method::sequential;
    bool classifier = false;  ///< the last affine layer, whose pre-activations are the logits, as well
    /// The sums of residual blocks as well, see repair(). The stage's default is true; here it is false, for callers that
    /// have the moments of layers only.
    bool residual = false;

    /// Of the texts that configurations use: `within|pooled`, `std|variance`, `repair|rescale|reshift`.
    static RepairOptions from(const std::string& target, const std::string& average, const std::string& mode,
                              bool classifier, bool residual = false);
    /// `sequential|one_pass|closed_form`
    static Method method_of(const std::string& method);
};

/// The operations whose outputs are repaired, in order: the linear and convolution layers that something reads besides
/// norms of single channels (batch norm, instance norm: they undo any scale), without the classifier unless the options
/// say so, without those that share a weight or bias; with `residual` the residual sums one side of which can be scaled.
std::vector<std::size_t> repaired_operations(const model::ModelGraph& graph, const RepairOptions& options);

/// w_k by a finisher's `weights` option: `reduction` (those the reduction used), `samples` or `uniform`.
std::vector<double> finisher_weights(const std::string& option, const FusionState& state,
                                     const FusionContext& context);

/// Moments of the ends' own pre-activations (and residual sums): all that REPAIR needs to know of the models that were merged.
struct EndMoments {
    std::vector<std::size_t> operations;
    std::vector<std::vector<ChannelMoments>> ends;  ///< [end][i] belongs to operations[i]
    /// [end][i][channel]: false where the end has no such channel (its mask leaves out all that makes it, as
    /// matched_averaging does): its moments there count in no average. Empty: all have all.
    std::vector<std::vector<std::vector<bool>>> held{};
};

/// Every update's own moments, in the members' order, after one pass over the source's data each and one exchange.
/// Collective; the same on every rank.
EndMoments end_moments(const FusionState& state, const FusionContext& context, StatisticsSource& source,
                       const std::vector<std::size_t>& operations);

struct RepairReport {
    std::int64_t layers = 0, channels = 0;                  ///< repaired
    std::int64_t dead_channels = 0;                         ///< left unscaled, see repair()
    std::int64_t layers_without_bias = 0;                   ///< and sums: could not be shifted, only scaled
    std::int64_t residual_sums = 0, residual_channels = 0;  ///< repaired
    std::int64_t residual_sums_left = 0;                    ///< neither side can be scaled; not repaired
    std::int64_t residual_channels_left = 0;                ///< of repaired sums: shifted, not scaled
    std::int64_t batch_norms = 0;                           ///< running statistics recomputed
    StageNotes notes() const;
};

/// REPAIR (Jordan, Sedghi, Saukh, Entezari & Neyshabur, ICLR 2023): gives every channel of every repaired pre-activation
/// the mean μ* = Σ w_k μ_k and the deviation σ* of the ends (of those that have the channel, see EndMoments::held), by W ← W·σ*/√v, b ← μ* + (b − m)·σ*/√v with the merged
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
/// Residual sums (of `residual_sums`, with `options.residual`). The paper repairs the outputs of residual blocks with a
/// batch norm behind each; the merged model could then not be a state_dict of the clients' architecture. We depart: the
/// sum u + v of two hidden values gets the ends' moments through its branches. A side is *free* when a norm, convolution
/// or linear layer scales and shifts each of its channels, with nothing but dropout, constant factors and permutations of
/// axes in between, and no other reader. Both free (a projection shortcut): both are scaled by σ*/√v, one is shifted. One
/// free, f in x + f: f is scaled by the a that solves Var(x) + 2a Cov(x, f) + a² Var(f) = σ*², the positive root nearest
/// to 1, and shifted. A channel with a dead branch, without such a root or with none in [10⁻³, 10³], is shifted only and
/// counted; a sum without a free side is left and counted. A branch that ends in a linear layer or convolution is repaired
/// as such first, so that what a root is nearest to is a mended branch.
///
/// Cost: a pass over the source's data through the first l layers for each repaired layer or sum l. Collective; the same
/// on every rank and any number of ranks.
RepairReport repair(model::Parameters& merged, const EndMoments& ends, const FusionContext& context,
                    StatisticsSource& source, const std::vector<double>& weights,
                    const RepairOptions& options);

/// REPAIR in one pass over the source's data, as the source's program does it: every layer's output is given the ends'
/// moments chunk by chunk on its way through the net (a batch norm in training mode behind each layer), so that later
/// layers see mended inputs; what was measured over all chunks is folded in at the end. The chunks' own moments differ a
/// little from all samples', and so does the result from repair()'s. Batch norms see their chunk's statistics and are
/// recomputed. Residual sums are not mended and counted as left. One exchange in all. Collective.
RepairReport repair_in_one_pass(model::Parameters& merged, const EndMoments& ends,
                                const FusionContext& context, StatisticsSource& source,
                                const std::vector<double>& weights, const RepairOptions& options);

/// REPAIR without a pass of the merged model (Jordan et al., the paper's closed form, for any number of models): where all
/// models' inputs agree, the merged pre-activation is Σ w_k z_k, whose moments follow from the ends' on the same samples
/// (for two models from σ_A, σ_B and their correlation). Every layer is folded by what it predicts. The sum has the
/// reduction's weights (state.weights; where they are empty, `weights`), and holds for reductions that are linear
/// (StageTraits::linear). Needs all models on one set of samples: `samples`, the server's; a rank holds the whole cohort.
/// Residual sums as in one pass. Collective.
RepairReport repair_in_closed_form(model::Parameters& merged, const FusionState& state,
                                   const EndMoments& ends, const FusionContext& context,
                                   const data::SampleSet& samples, const std::vector<double>& weights,
                                   const RepairOptions& options);

/// By `options.method`, with the ends' moments taken from `state.updates`. Collective.
RepairReport repair(model::Parameters& merged, const FusionState& state, const FusionContext& context,
                    StatisticsSource& source, const std::vector<double>& weights,
                    const RepairOptions& options);

/// Recomputes the running means and (unbiased) variances of all batch norms of `merged`, in place, from input to output
/// (Izmailov et al., *Averaging Weights Leads to Wider Optima*, UAI 2018, algorithm 1's last line). Departures: population
/// statistics over all of the source's data, each norm after those before it, where the source runs one pass in training
/// mode and averages over its batches; and a batch norm that reads the graph's input keeps its averaged statistics, since
/// the input does not depend on the model. Returns how many were recomputed. Collective.
std::int64_t reset_batch_norm(model::Parameters& merged, const FusionContext& context,
                              StatisticsSource& source, const std::vector<double>& weights);

/// How many samples a source's statistics are of: the server's, or those of all clients together. Collective.
double samples_seen(const FusionState& state, const FusionContext& context, const StatisticsSource& source);

/// The source that a stage's option `statistics` (`server` or `clients`) names, or UsageError when there is none.
StatisticsSource& source_of(const std::string& statistics, const FusionContext& context);

}  // namespace thalweg::aggregator
