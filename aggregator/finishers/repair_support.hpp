#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "thalweg/aggregator/repair.hpp"

namespace thalweg::aggregator {

/// Mean and deviation of each channel, as they shall be.
struct Target {
    std::vector<double> mean, deviation;
};

/// Of one layer of the ends, by the options.
Target target_of(const EndMoments& ends, std::size_t layer, const std::vector<double>& weights,
                 const RepairOptions& options);

/// What a layer's channels are scaled by and shifted by, from its moments in the merged model; dead ones are counted.
struct ScaleShift {
    std::vector<double> scale, shift;
    std::int64_t dead = 0;
};
ScaleShift mending_of(const Target& target, const ChannelMoments& measured, const RepairOptions& options);
/// Folds it into the layer, and counts the layer.
void fold_layer(model::Parameters& merged, const model::OperationKind& kind, const ScaleShift& mending,
                RepairReport& report);

/// Moments of scale·x + shift from those of x.
ChannelMoments mended_moments(ChannelMoments moments, const std::vector<double>& scale,
                              const std::vector<double>& shift);

/// Running statistics of a batch norm from the moments of what it reads.
void set_running_statistics(model::Parameters& merged, const model::BatchNorm& norm,
                            const ChannelMoments& moments);

/// Entries that scale and shift an operation's channels: of linear, convolution and norms. -1: has none.
struct AffineEntries {
    int weight = -1, bias = -1;
};
AffineEntries affine_entries(const model::OperationKind& kind);

/// A view of such a weight as [groups, channels of a group, …] of the operation's output.
at::Tensor channels_first(const at::Tensor& weight, const model::OperationKind& kind);

/// How many operations use each entry of the layout.
std::vector<int> entry_uses(const model::ModelGraph& graph);

/// Channel c of the operation's output becomes scale[c]·(what it was) + shift[c]; without a bias the shift is dropped.
void fold(model::Parameters& merged, const model::OperationKind& kind, const std::vector<double>& scale,
          const std::vector<double>& shift);

/// What a channel varies is rounding, or would be blown up more than a thousandfold; see repair().
bool is_dead(double mean, double variance, double wanted_deviation);

/// One side of a residual sum.
struct Addend {
    int value = 0;
    double factor = 1;  ///< times which it is added
    /// The operation whose entries scale and shift this addend's channels and nothing else; empty: there is none. The
    /// addend (with its factor) is `gain` times that operation's output.
    std::optional<std::size_t> free;
    double gain = 1;
};

/// A sum of two hidden values that both depend on the input and have the sum's shape.
struct ResidualSum {
    std::size_t operation = 0;
    std::int64_t axis = 1;
    std::array<Addend, 2> addends;
};

/// All of a graph, but those after the classifier unless `classifier`: they are logits.
std::vector<ResidualSum> residual_sums(const model::ModelGraph& graph, bool classifier);

/// See repair(). Collective.
void repair_residual_sum(model::Parameters& merged, const ResidualSum& sum, const Target& target,
                         const FusionContext& context, StatisticsSource& source,
                         const std::vector<double>& weights, const RepairOptions& options,
                         RepairReport& report);

}  // namespace thalweg::aggregator
