#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <stdexcept>
#include <variant>

#include "thalweg/aggregator/exchange.hpp"
#include "thalweg/aggregator/repair.hpp"
#include "thalweg/core/error.hpp"

namespace thalweg::aggregator {

namespace {

/// Mean and deviation a channel, of one layer.
struct Target {
    std::vector<double> mean, deviation;
};

Target target_of(const EndMoments& ends, std::size_t layer, const std::vector<double>& weights,
                 const RepairOptions& options) {
    const std::size_t channels = ends.ends.front()[layer].sum.size();
    Target target{std::vector<double>(channels, 0), std::vector<double>(channels, 0)};
    std::vector<double> square(channels, 0);  // Σ w (σ² + μ²)
    for (std::size_t k = 0; k < ends.ends.size(); ++k) {
        const auto mean = ends.ends[k][layer].mean(), variance = ends.ends[k][layer].variance();
        for (std::size_t c = 0; c < channels; ++c) {
            target.mean[c] += weights[k] * mean[c];
            square[c] += weights[k] * (variance[c] + mean[c] * mean[c]);
            target.deviation[c] +=
                weights[k] *
                (options.average == RepairOptions::Average::deviation ? std::sqrt(variance[c]) : variance[c]);
        }
    }
    for (std::size_t c = 0; c < channels; ++c) {
        if (options.target == RepairOptions::Target::pooled) {
            target.deviation[c] = std::sqrt(std::max(0.0, square[c] - target.mean[c] * target.mean[c]));
        } else if (options.average == RepairOptions::Average::variance) {
            target.deviation[c] = std::sqrt(target.deviation[c]);
        }
    }
    return target;
}

/// Entries of an affine layer: weight, and bias or -1.
std::pair<int, int> entries_of(const model::OperationKind& kind) {
    if (const auto* linear = std::get_if<model::Linear>(&kind)) return {linear->weight, linear->bias};
    const auto& conv = std::get<model::Convolution>(kind);
    return {conv.weight, conv.bias};
}

/// Collects the entries that an operation names.
struct EntriesOf {
    std::vector<int> found;
    void entry(const char*, int index) {
        if (index >= 0) found.push_back(index);
    }
    void counter(const char*, int) {}
    template <class Value>
    void value(const char*, const Value&) {}
};

/// Channel c becomes scale[c]·(what it was) + shift[c]; without a bias the shift is dropped.
void fold(model::Parameters& merged, const model::OperationKind& kind, const std::vector<double>& scale,
          const std::vector<double>& shift) {
    const auto [weight_entry, bias_entry] = entries_of(kind);
    const at::Tensor weight = merged.view(static_cast<std::size_t>(weight_entry));
    const at::Tensor s = at::tensor(scale, at::kDouble);
    // Output channels are on axis 0; of a transposed convolution on axis 1, for each group of rows of axis 0.
    const auto* conv = std::get_if<model::Convolution>(&kind);
    const bool transposed = conv != nullptr && conv->transposed;
    const std::int64_t groups = transposed ? conv->groups : 1;
    const std::int64_t outputs = transposed ? weight.size(1) : weight.size(0);
    const at::Tensor channels_first =
        transposed ? weight.unflatten(0, {groups, weight.size(0) / groups}).transpose(1, 2)
                   : weight.unsqueeze(0);
    std::vector<std::int64_t> rows(static_cast<std::size_t>(channels_first.dim()), 1);
    rows[0] = groups;
    rows[1] = outputs;
    channels_first.copy_(channels_first.to(at::kDouble) * s.view(rows));
    if (bias_entry < 0) return;
    const at::Tensor bias = merged.view(static_cast<std::size_t>(bias_entry));
    bias.copy_(bias.to(at::kDouble) * s + at::tensor(shift, at::kDouble));
}

void repair_layer(model::Parameters& merged, const model::OperationKind& kind, const Target& target,
                  const ChannelMoments& measured, const RepairOptions& options, RepairReport& report) {
    const auto mean = measured.mean(), variance = measured.variance();
    const std::size_t channels = mean.size();
    const bool has_bias = entries_of(kind).second >= 0;
    std::vector<double> scale(channels, 1), shift(channels, 0);
    for (std::size_t c = 0; c < channels; ++c) {
        const double wanted = target.deviation[c];
        if (options.mode != RepairOptions::Mode::reshift) {
            const bool dead = variance[c] <= std::max(1e-6 * wanted * wanted, 1e-10 * mean[c] * mean[c]);
            if (dead) {
                report.dead_channels += 1;
            } else {
                scale[c] = wanted / std::sqrt(variance[c]);
            }
        }
        const double wanted_mean = options.mode == RepairOptions::Mode::rescale ? mean[c] : target.mean[c];
        shift[c] = wanted_mean - scale[c] * mean[c];
    }
    fold(merged, kind, scale, shift);
    report.layers += 1;
    report.channels += static_cast<std::int64_t>(channels);
    report.layers_without_bias += has_bias ? 0 : 1;
}

/// False when the norm reads the graph's input.
bool reset(model::Parameters& merged, const model::Operation& operation, const FusionContext& context,
           StatisticsSource& source, const std::vector<double>& weights) {
    if (operation.inputs.front() == 0) return false;
    const auto& norm = std::get<model::BatchNorm>(operation.kind);
    const auto producer = static_cast<std::size_t>(operation.inputs.front() - 1);
    const auto moments = source.of_merged(merged, producer, context.members, weights);
    auto variance = moments.variance();
    for (double& v : variance) v *= moments.count / std::max(1.0, moments.count - 1);
    merged.view(static_cast<std::size_t>(norm.running_mean)).copy_(at::tensor(moments.mean(), at::kDouble));
    merged.view(static_cast<std::size_t>(norm.running_var)).copy_(at::tensor(variance, at::kDouble));
    return true;
}

}  // namespace

RepairOptions RepairOptions::from(const std::string& target, const std::string& average,
                                  const std::string& mode, bool classifier) {
    RepairOptions options;
    options.target = target == "pooled" ? Target::pooled : Target::within;
    options.average = average == "variance" ? Average::variance : Average::deviation;
    options.mode = mode == "rescale" ? Mode::rescale : mode == "reshift" ? Mode::reshift : Mode::repair;
    options.classifier = classifier;
    return options;
}

StageNotes RepairReport::notes() const {
    return {{"repaired_layers", static_cast<double>(layers)},
            {"repaired_channels", static_cast<double>(channels)},
            {"dead_channels", static_cast<double>(dead_channels)},
            {"layers_without_bias", static_cast<double>(layers_without_bias)},
            {"batch_norms_reset", static_cast<double>(batch_norms)}};
}

std::vector<std::size_t> repaired_operations(const model::ModelGraph& graph, const RepairOptions& options) {
    auto affine = graph.affine_operations();
    if (!options.classifier && !affine.empty()) affine.pop_back();
    // A weight that several operations share cannot be given to each of them its own scale.
    std::map<int, int> uses;
    for (const auto& operation : graph.operations) {
        EntriesOf entries;
        std::visit([&](const auto& kind) { kind.fields(kind, entries); }, operation.kind);
        for (const int entry : entries.found) uses[entry] += 1;
    }
    std::erase_if(affine, [&](std::size_t i) {
        if (uses[entries_of(graph.operations[i].kind).first] > 1) return true;
        const auto readers = graph.consumers(graph.operations[i].output);
        return std::any_of(readers.begin(), readers.end(), [&](std::size_t reader) {
            return std::holds_alternative<model::BatchNorm>(graph.operations[reader].kind);
        });
    });
    return affine;
}

std::vector<double> finisher_weights(const std::string& option, const FusionState& state,
                                     const FusionContext& context) {
    if (option != "reduction") return weights(context.members, weighting_of(option));
    if (state.weights.size() != context.members.size())
        throw std::logic_error("a finisher before the reduction");
    return state.weights;
}

EndMoments end_moments(const FusionState& state, const FusionContext& context, StatisticsSource& source,
                       const std::vector<std::size_t>& operations) {
    const auto& graph = context.graph;
    std::int64_t width = 0;
    for (const std::size_t operation : operations) width += 1 + 2 * graph.channels(operation);

    core::collectively(context.communicator, [&] { check_updates(state.updates, context); });
    std::size_t next = 0;
    const auto rows = gather_member_rows(
        context.communicator, context.members, width, [&](std::size_t, std::span<double> row) {
            auto out = row.begin();
            Update end = state.updates[next++];
            if (end.own.defined()) end.parameters = end.own;
            for (const auto& moments : source.of_update(end, operations)) {
                *out++ = moments.count;
                out = std::copy(moments.sum.begin(), moments.sum.end(), out);
                out = std::copy(moments.sum_of_squares.begin(), moments.sum_of_squares.end(), out);
            }
        });

    EndMoments result;
    result.operations = operations;
    auto from = rows.begin();
    for (std::size_t k = 0; k < context.members.size(); ++k) {
        std::vector<ChannelMoments> end;
        for (const std::size_t operation : operations) {
            const auto channels = graph.channels(operation);
            ChannelMoments moments;
            moments.count = *from++;
            moments.sum.assign(from, from + channels);
            moments.sum_of_squares.assign(from + channels, from + 2 * channels);
            from += 2 * channels;
            end.push_back(std::move(moments));
        }
        result.ends.push_back(std::move(end));
    }
    return result;
}

RepairReport repair(model::Parameters& merged, const EndMoments& ends, const FusionContext& context,
                    StatisticsSource& source, const std::vector<double>& weights,
                    const RepairOptions& options) {
    if (ends.ends.size() != weights.size()) throw std::logic_error("repair: a weight for each end");
    RepairReport report;
    const auto& operations = context.graph.operations;
    for (std::size_t i = 0; i < operations.size(); ++i) {
        if (std::holds_alternative<model::BatchNorm>(operations[i].kind)) {
            report.batch_norms += reset(merged, operations[i], context, source, weights) ? 1 : 0;
        }
        const auto found = std::find(ends.operations.begin(), ends.operations.end(), i);
        if (found == ends.operations.end()) continue;
        const Target target =
            target_of(ends, static_cast<std::size_t>(found - ends.operations.begin()), weights, options);
        const auto measured = source.of_merged(merged, i, context.members, weights);
        repair_layer(merged, operations[i].kind, target, measured, options, report);
    }
    return report;
}

RepairReport repair(model::Parameters& merged, const FusionState& state, const FusionContext& context,
                    StatisticsSource& source, const std::vector<double>& weights,
                    const RepairOptions& options) {
    const auto ends = end_moments(state, context, source, repaired_operations(context.graph, options));
    return repair(merged, ends, context, source, weights, options);
}

std::int64_t reset_batch_norm(model::Parameters& merged, const FusionContext& context,
                              StatisticsSource& source, const std::vector<double>& weights) {
    std::int64_t count = 0;
    for (const auto& operation : context.graph.operations) {
        if (!std::holds_alternative<model::BatchNorm>(operation.kind)) continue;
        count += reset(merged, operation, context, source, weights) ? 1 : 0;
    }
    return count;
}

StatisticsSource& source_of(const std::string& statistics, const FusionContext& context) {
    StatisticsSource* source = statistics == "server" ? context.server : context.clients;
    if (source == nullptr) {
        throw core::UsageError("a stage asks for statistics of the " +
                               (statistics == "server" ? std::string("server's samples, and it has none")
                                                       : "clients' samples, and no clients can be asked"));
    }
    return *source;
}

}  // namespace thalweg::aggregator
