#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <variant>

#include "repair_support.hpp"
#include "thalweg/aggregator/exchange.hpp"
#include "thalweg/core/error.hpp"

namespace thalweg::aggregator {

namespace {

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

void repair_layer(model::Parameters& merged, const model::OperationKind& kind, const Target& target,
                  const ChannelMoments& measured, const RepairOptions& options, RepairReport& report) {
    const auto mean = measured.mean(), variance = measured.variance();
    const std::size_t channels = mean.size();
    const bool has_bias = affine_entries(kind).bias >= 0;
    std::vector<double> scale(channels, 1), shift(channels, 0);
    for (std::size_t c = 0; c < channels; ++c) {
        const double wanted = target.deviation[c];
        if (options.mode != RepairOptions::Mode::reshift) {
            if (is_dead(mean[c], variance[c], wanted)) {
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

/// It gives every channel mean and variance of its own, whatever comes in.
bool normalises_channels(const model::ModelGraph& graph, const model::Operation& operation) {
    if (std::holds_alternative<model::BatchNorm>(operation.kind)) return true;
    const auto* norm = std::get_if<model::GroupNorm>(&operation.kind);
    return norm != nullptr &&
           norm->groups == graph.shapes[static_cast<std::size_t>(operation.output)].front();
}

/// False when the norm reads the graph's input.
bool reset(model::Parameters& merged, const model::Operation& operation, const FusionContext& context,
           StatisticsSource& source, const std::vector<double>& weights) {
    if (operation.inputs.front() == 0) return false;
    const auto& norm = std::get<model::BatchNorm>(operation.kind);
    const auto producer = static_cast<std::size_t>(operation.inputs.front() - 1);
    const auto moments =
        source.of_merged(merged, std::vector{MomentPoint{producer, 1}}, context.members, weights).front();
    auto variance = moments.variance();
    for (double& v : variance) v *= moments.count / std::max(1.0, moments.count - 1);
    merged.view(static_cast<std::size_t>(norm.running_mean)).copy_(at::tensor(moments.mean(), at::kDouble));
    merged.view(static_cast<std::size_t>(norm.running_var)).copy_(at::tensor(variance, at::kDouble));
    return true;
}

}  // namespace

RepairOptions RepairOptions::from(const std::string& target, const std::string& average,
                                  const std::string& mode, bool classifier, bool residual) {
    RepairOptions options;
    options.target = target == "pooled" ? Target::pooled : Target::within;
    options.average = average == "variance" ? Average::variance : Average::deviation;
    options.mode = mode == "rescale" ? Mode::rescale : mode == "reshift" ? Mode::reshift : Mode::repair;
    options.classifier = classifier;
    options.residual = residual;
    return options;
}

StageNotes RepairReport::notes() const {
    return {{"repaired_layers", static_cast<double>(layers)},
            {"repaired_channels", static_cast<double>(channels)},
            {"dead_channels", static_cast<double>(dead_channels)},
            {"layers_without_bias", static_cast<double>(layers_without_bias)},
            {"repaired_residual_sums", static_cast<double>(residual_sums)},
            {"repaired_residual_channels", static_cast<double>(residual_channels)},
            {"residual_sums_left", static_cast<double>(residual_sums_left)},
            {"residual_channels_left", static_cast<double>(residual_channels_left)},
            {"batch_norms_reset", static_cast<double>(batch_norms)}};
}

std::vector<std::size_t> repaired_operations(const model::ModelGraph& graph, const RepairOptions& options) {
    auto repaired = graph.affine_operations();
    if (!options.classifier && !repaired.empty()) repaired.pop_back();
    // What several operations share cannot be given to each of them its own scale.
    const auto uses = entry_uses(graph);
    const auto shared = [&](int entry) { return entry >= 0 && uses[static_cast<std::size_t>(entry)] > 1; };
    std::erase_if(repaired, [&](std::size_t i) {
        const auto [weight, bias] = affine_entries(graph.operations[i].kind);
        if (shared(weight) || shared(bias)) return true;
        const auto readers = graph.consumers(graph.operations[i].output);
        return !readers.empty() && std::all_of(readers.begin(), readers.end(), [&](std::size_t reader) {
            return normalises_channels(graph, graph.operations[reader]);
        });
    });
    if (options.residual) {
        for (const auto& sum : residual_sums(graph, options.classifier)) {
            if (sum.addends[0].free || sum.addends[1].free) repaired.push_back(sum.operation);
        }
        std::sort(repaired.begin(), repaired.end());
    }
    return repaired;
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
    const auto channels_of = [&](std::size_t operation) {
        return channels(context.graph, moment_point(context.graph, operation));
    };
    std::int64_t width = 0;
    for (const std::size_t operation : operations) width += 1 + 2 * channels_of(operation);

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
            const auto n = channels_of(operation);
            ChannelMoments moments;
            moments.count = *from++;
            moments.sum.assign(from, from + n);
            moments.sum_of_squares.assign(from + n, from + 2 * n);
            from += 2 * n;
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
    const auto sums = residual_sums(context.graph, options.classifier);
    if (options.residual) {
        report.residual_sums_left = std::count_if(sums.begin(), sums.end(), [](const ResidualSum& sum) {
            return !sum.addends[0].free && !sum.addends[1].free;
        });
    }
    for (std::size_t i = 0; i < operations.size(); ++i) {
        if (std::holds_alternative<model::BatchNorm>(operations[i].kind)) {
            report.batch_norms += reset(merged, operations[i], context, source, weights) ? 1 : 0;
        }
        const auto found = std::find(ends.operations.begin(), ends.operations.end(), i);
        if (found == ends.operations.end()) continue;
        const Target target =
            target_of(ends, static_cast<std::size_t>(found - ends.operations.begin()), weights, options);
        const auto sum =
            std::find_if(sums.begin(), sums.end(), [&](const ResidualSum& s) { return s.operation == i; });
        if (sum != sums.end()) {
            repair_residual_sum(merged, *sum, target, context, source, weights, options, report);
            continue;
        }
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
