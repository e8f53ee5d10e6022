#include <torch/types.h>

#include <algorithm>
#include <map>
#include <span>
#include <utility>
#include <variant>

#include "../moments.hpp"
#include "repair_support.hpp"
#include "thalweg/aggregator/stage.hpp"
#include "thalweg/model/interpreter.hpp"

namespace thalweg::aggregator {

namespace {

/// All clients' models on every rank, as they were before a stage changed their functions. Collective.
std::vector<Update> gather_ends(const FusionState& state, const FusionContext& context) {
    FusionState own;
    own.updates = state.updates;
    for (Update& update : own.updates) {
        if (update.own.defined()) update.parameters = update.own;
    }
    return gather_updates(own, context);
}

/// Moments of Σ w_k z_k at the points, over all samples; chunks are spread over ranks and summed in order.
std::vector<ChannelMoments> predicted_moments(const std::vector<Update>& ends, const FusionContext& context,
                                              const data::SampleSet& samples,
                                              const std::vector<double>& weights,
                                              const std::vector<MomentPoint>& points) {
    const auto& graph = context.graph;
    const std::int64_t at_once = model::samples_at_once(graph),
                       chunks = (samples.size() + at_once - 1) / at_once;
    const std::int64_t width = row_width(graph, points);
    const auto rows = core::gather_rows(
        context.communicator, chunks, width, [&](std::int64_t chunk, std::span<double> row) {
            std::vector<at::Tensor> sum(points.size());
            for_each_batch(
                samples, graph.input_shape(),
                [&](std::int64_t, const at::Tensor& x, const at::Tensor&) {
                    for (std::size_t k = 0; k < ends.size(); ++k) {
                        const auto& model = ends[k].parameters;
                        const auto tap = [&](std::size_t operation, const at::Tensor& output) {
                            for (std::size_t i = 0; i < points.size(); ++i) {
                                if (points[i].operation != operation) continue;
                                const at::Tensor value = output.to(at::kDouble) * weights[k];
                                sum[i] = sum[i].defined() ? sum[i].add_(value) : value;
                            }
                        };
                        model::forward(graph, model::views(model), x.to(model.values.scalar_type()),
                                       model::Mode::evaluate, tap, points.back().operation);
                    }
                },
                at_once, chunk, chunks);
            std::vector<ChannelMoments> moments(points.size());
            for (std::size_t i = 0; i < points.size(); ++i) moments[i].add(sum[i].movedim(points[i].axis, 1));
            write_row(moments, row);
        });
    std::vector<ChannelMoments> total(points.size());
    for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
        const auto mine = read_row(graph, points,
                                   std::span(rows).subspan(static_cast<std::size_t>(chunk * width),
                                                           static_cast<std::size_t>(width)));
        for (std::size_t i = 0; i < points.size(); ++i) total[i].add(mine[i]);
    }
    return total;
}

}  // namespace

RepairReport repair_in_closed_form(model::Parameters& merged, const FusionState& state,
                                   const EndMoments& ends, const FusionContext& context,
                                   const data::SampleSet& samples, const std::vector<double>& weights,
                                   const RepairOptions& options) {
    const auto& graph = context.graph;
    std::map<std::size_t, MomentPoint> at_operation;
    for (const std::size_t i : ends.operations) at_operation[i] = moment_point(graph, i);
    for (const auto& operation : graph.operations) {
        if (!std::holds_alternative<model::BatchNorm>(operation.kind) || operation.inputs.front() == 0)
            continue;
        const auto producer = static_cast<std::size_t>(operation.inputs.front() - 1);
        at_operation.try_emplace(producer, MomentPoint{producer, 1});
    }
    RepairReport report;
    report.residual_sums_left = static_cast<std::int64_t>(residual_sums(graph, options.classifier).size());
    if (at_operation.empty()) return report;
    std::vector<MomentPoint> points;
    for (const auto& [operation, point] : at_operation) points.push_back(point);
    // The merged model was made with the reduction's weights, whatever the targets are averaged with.
    auto predicted = predicted_moments(gather_ends(state, context), context, samples,
                                       state.weights.empty() ? weights : state.weights, points);
    const auto moments_at = [&](std::size_t operation) -> ChannelMoments& {
        const auto found = std::distance(at_operation.begin(), at_operation.find(operation));
        return predicted[static_cast<std::size_t>(found)];
    };
    for (std::size_t layer = 0; layer < ends.operations.size(); ++layer) {
        const std::size_t i = ends.operations[layer];
        const auto& kind = graph.operations[i].kind;
        auto mending = mending_of(target_of(ends, layer, weights, options), moments_at(i), options);
        fold_layer(merged, kind, mending, report);
        if (affine_entries(kind).bias < 0) std::fill(mending.shift.begin(), mending.shift.end(), 0.0);
        // A batch norm that reads it, too, sees it mended.
        moments_at(i) = mended_moments(std::move(moments_at(i)), mending.scale, mending.shift);
    }
    for (const auto& operation : graph.operations) {
        const auto* norm = std::get_if<model::BatchNorm>(&operation.kind);
        if (norm == nullptr || operation.inputs.front() == 0) continue;
        set_running_statistics(merged, *norm,
                               moments_at(static_cast<std::size_t>(operation.inputs.front() - 1)));
        report.batch_norms += 1;
    }
    return report;
}

}  // namespace thalweg::aggregator
