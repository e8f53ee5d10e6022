#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>
#include <stdexcept>
#include <variant>

#include "../moments.hpp"
#include "repair_support.hpp"
#include "thalweg/aggregator/exchange.hpp"
#include "thalweg/core/error.hpp"

namespace thalweg::aggregator {

Target target_of(const EndMoments& ends, std::size_t layer, const std::vector<double>& weights,
                 const RepairOptions& options) {
    const std::size_t channels = ends.ends.front()[layer].sum.size();
    Target target{std::vector<double>(channels, 0), std::vector<double>(channels, 0)};
    std::vector<double> square(channels, 0);  // Σ w (σ² + μ²)
    std::vector<double> voices(channels, 0);  // of the ends that have the channel
    std::vector<bool> all_have(channels, true);
    for (std::size_t k = 0; k < ends.ends.size(); ++k) {
        const auto mean = ends.ends[k][layer].mean(), variance = ends.ends[k][layer].variance();
        for (std::size_t c = 0; c < channels; ++c) {
            if (!ends.held.empty() && !ends.held[k][layer][c]) {
                all_have[c] = false;
                continue;
            }
            voices[c] += weights[k];
            target.mean[c] += weights[k] * mean[c];
            square[c] += weights[k] * (variance[c] + mean[c] * mean[c]);
            target.deviation[c] +=
                weights[k] *
                (options.average == RepairOptions::Average::deviation ? std::sqrt(variance[c]) : variance[c]);
        }
    }
    for (std::size_t c = 0; c < channels; ++c) {
        if (!all_have[c] && voices[c] > 0) {
            for (double* sum : {&target.mean[c], &target.deviation[c], &square[c]}) *sum /= voices[c];
        }
        if (options.target == RepairOptions::Target::pooled) {
            target.deviation[c] = std::sqrt(std::max(0.0, square[c] - target.mean[c] * target.mean[c]));
        } else if (options.average == RepairOptions::Average::variance) {
            target.deviation[c] = std::sqrt(target.deviation[c]);
        }
    }
    return target;
}

ScaleShift mending_of(const Target& target, const ChannelMoments& measured, const RepairOptions& options) {
    const auto mean = measured.mean(), variance = measured.variance();
    const std::size_t channels = mean.size();
    ScaleShift mending{std::vector<double>(channels, 1), std::vector<double>(channels, 0)};
    for (std::size_t c = 0; c < channels; ++c) {
        const double wanted = target.deviation[c];
        if (options.mode != RepairOptions::Mode::reshift) {
            if (is_dead(mean[c], variance[c], wanted)) {
                mending.dead += 1;
            } else {
                mending.scale[c] = wanted / std::sqrt(variance[c]);
            }
        }
        const double wanted_mean = options.mode == RepairOptions::Mode::rescale ? mean[c] : target.mean[c];
        mending.shift[c] = wanted_mean - mending.scale[c] * mean[c];
    }
    return mending;
}

void fold_layer(model::Parameters& merged, const model::OperationKind& kind, const ScaleShift& mending,
                RepairReport& report) {
    fold(merged, kind, mending.scale, mending.shift);
    report.layers += 1;
    report.channels += static_cast<std::int64_t>(mending.scale.size());
    report.dead_channels += mending.dead;
    report.layers_without_bias += affine_entries(kind).bias >= 0 ? 0 : 1;
}

ChannelMoments mended_moments(ChannelMoments moments, const std::vector<double>& scale,
                              const std::vector<double>& shift) {
    for (std::size_t c = 0; c < scale.size(); ++c) {
        const double a = scale[c], b = shift[c], sum = moments.sum[c];
        moments.sum[c] = a * sum + b * moments.count;
        moments.sum_of_squares[c] =
            a * a * moments.sum_of_squares[c] + 2 * a * b * sum + b * b * moments.count;
    }
    return moments;
}

void set_running_statistics(model::Parameters& merged, const model::BatchNorm& norm,
                            const ChannelMoments& moments) {
    auto variance = moments.variance();
    for (double& v : variance) v *= moments.count / std::max(1.0, moments.count - 1);
    merged.view(static_cast<std::size_t>(norm.running_mean)).copy_(at::tensor(moments.mean(), at::kDouble));
    merged.view(static_cast<std::size_t>(norm.running_var)).copy_(at::tensor(variance, at::kDouble));
}

namespace {

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
    set_running_statistics(merged, norm, moments);
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

RepairOptions::Method RepairOptions::method_of(const std::string& method) {
    return method == "one_pass"      ? Method::one_pass
           : method == "closed_form" ? Method::closed_form
                                     : Method::sequential;
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

namespace {

/// Marks the channels of an operation's output of which the mask keeps anything that makes them; all are where the
/// operation makes none.
void mark_held(const model::ModelGraph& graph, const at::Tensor& mask, std::size_t operation,
               std::span<double> held) {
    const auto& kind = graph.operations[operation].kind;
    const auto [weight, bias] = affine_entries(kind);
    if (weight < 0) {
        std::fill(held.begin(), held.end(), 1.0);
        return;
    }
    const auto of_entry = [&](int index) {
        const auto& entry = graph.layout->entries()[static_cast<std::size_t>(index)];
        return mask.narrow(0, entry.offset, entry.size).view(entry.shape);
    };
    const auto channels = static_cast<std::int64_t>(held.size());
    at::Tensor kept = channels_first(of_entry(weight), kind).reshape({channels, -1}).any(1);
    if (bias >= 0) kept = kept.logical_or(of_entry(bias));
    for (std::int64_t c = 0; c < channels; ++c) {
        if (kept.data_ptr<bool>()[c]) held[static_cast<std::size_t>(c)] = 1;
    }
}

/// One number a channel of all operations: 1 where the update has it. A residual sum has what one of its free sides has.
void write_held(const model::ModelGraph& graph, const Update& update, const std::vector<MomentPoint>& points,
                std::span<double> row) {
    if (!update.mask.defined()) {
        std::fill(row.begin(), row.end(), 1.0);
        return;
    }
    const auto sums = residual_sums(graph, true);
    for (const auto& point : points) {
        const auto held = row.first(static_cast<std::size_t>(channels(graph, point)));
        row = row.subspan(held.size());
        const auto sum = std::find_if(sums.begin(), sums.end(),
                                      [&](const ResidualSum& s) { return s.operation == point.operation; });
        if (sum == sums.end() || (!sum->addends[0].free && !sum->addends[1].free)) {
            mark_held(graph, update.mask, point.operation, held);
            continue;
        }
        for (const auto& addend : sum->addends) {
            if (addend.free) mark_held(graph, update.mask, *addend.free, held);
        }
    }
}

std::vector<std::vector<bool>> read_held(const model::ModelGraph& graph,
                                         const std::vector<MomentPoint>& points,
                                         std::span<const double> row) {
    std::vector<std::vector<bool>> held;
    for (const auto& point : points) {
        const auto flags = row.first(static_cast<std::size_t>(channels(graph, point)));
        row = row.subspan(flags.size());
        held.emplace_back(flags.size());
        std::transform(flags.begin(), flags.end(), held.back().begin(),
                       [](double flag) { return flag != 0; });
    }
    return held;
}

}  // namespace

EndMoments end_moments(const FusionState& state, const FusionContext& context, StatisticsSource& source,
                       const std::vector<std::size_t>& operations) {
    const auto points = points_of(context.graph, operations);
    const std::int64_t moments = row_width(context.graph, points);
    const std::int64_t flags = (moments - static_cast<std::int64_t>(points.size())) / 2;  // a channel each
    const auto first = static_cast<std::size_t>(moments), width = static_cast<std::size_t>(moments + flags);

    core::collectively(context.communicator, [&] { check_updates(state.updates, context); });
    std::size_t next = 0;
    const auto rows = gather_member_rows(context.communicator, context.members, moments + flags,
                                         [&](std::size_t, std::span<double> row) {
                                             Update end = state.updates[next++];
                                             if (end.own.defined()) end.parameters = end.own;
                                             write_row(source.of_update(end, operations), row.first(first));
                                             write_held(context.graph, end, points, row.subspan(first));
                                         });

    EndMoments result;
    result.operations = operations;
    bool all_have_all = true;
    for (std::size_t k = 0; k < context.members.size(); ++k) {
        const auto row = std::span(rows).subspan(k * width, width);
        result.ends.push_back(read_row(context.graph, points, row.first(first)));
        const auto held = row.subspan(first);
        result.held.push_back(read_held(context.graph, points, held));
        all_have_all = all_have_all && std::find(held.begin(), held.end(), 0.0) == held.end();
    }
    if (all_have_all) result.held.clear();
    return result;
}

double samples_seen(const FusionState& state, const FusionContext& context, const StatisticsSource& source) {
    std::size_t next = 0;
    const auto of_members =
        gather_member_rows(context.communicator, context.members, 1, [&](std::size_t, std::span<double> row) {
            row[0] = static_cast<double>(source.samples_of(state.updates[next++])->size());
        });
    if (source.name() == "server") return of_members.front();
    return std::accumulate(of_members.begin(), of_members.end(), 0.0);
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
        fold_layer(merged, operations[i].kind, mending_of(target, measured, options), report);
    }
    return report;
}

RepairReport repair(model::Parameters& merged, const FusionState& state, const FusionContext& context,
                    StatisticsSource& source, const std::vector<double>& weights,
                    const RepairOptions& options) {
    using Method = RepairOptions::Method;
    RepairOptions chosen = options;
    if (options.method != Method::sequential) chosen.residual = false;  // those have no moments of their own
    const auto ends = end_moments(state, context, source, repaired_operations(context.graph, chosen));
    if (options.method == Method::one_pass)
        return repair_in_one_pass(merged, ends, context, source, weights, options);
    if (options.method == Method::closed_form) {
        const auto samples = core::collectively(context.communicator, [&] {
            if (source.name() != "server")
                throw core::UsageError(
                    "REPAIR in closed form compares all models on the same samples, the server's "
                    "(statistics: server)");
            return source.samples_of({});
        });
        return repair_in_closed_form(merged, state, ends, context, *samples, weights, options);
    }
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
