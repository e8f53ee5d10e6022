#include <torch/types.h>

#include <algorithm>
#include <variant>

#include "repair_support.hpp"
#include "thalweg/model/interpreter.hpp"

namespace thalweg::aggregator {

namespace {

/// value · scale + shift, a channel each on `axis`.
at::Tensor mended(const at::Tensor& value, std::int64_t axis, const ScaleShift& mending) {
    std::vector<std::int64_t> shape(static_cast<std::size_t>(value.dim()), 1);
    shape[static_cast<std::size_t>(axis)] = static_cast<std::int64_t>(mending.scale.size());
    const auto row = [&](const std::vector<double>& numbers) {
        return at::tensor(numbers, at::kDouble).to(value.scalar_type()).view(shape);
    };
    return value * row(mending.scale) + row(mending.shift);
}

}  // namespace

RepairReport repair_in_one_pass(model::Parameters& merged, const EndMoments& ends,
                                const FusionContext& context, StatisticsSource& source,
                                const std::vector<double>& weights, const RepairOptions& options) {
    const auto& graph = context.graph;
    std::vector<MomentPoint> points;
    std::vector<Target> targets;  // of layers; empty for batch norms
    for (std::size_t i = 0; i < graph.operations.size(); ++i) {
        const auto& operation = graph.operations[i];
        const auto layer = std::find(ends.operations.begin(), ends.operations.end(), i);
        if (layer != ends.operations.end()) {
            points.push_back(moment_point(graph, i));
            targets.push_back(
                target_of(ends, static_cast<std::size_t>(layer - ends.operations.begin()), weights, options));
        } else if (std::holds_alternative<model::BatchNorm>(operation.kind) &&
                   operation.inputs.front() != 0) {
            points.push_back({i, 1});
            targets.emplace_back();
        }
    }
    RepairReport report;
    report.residual_sums_left = static_cast<std::int64_t>(residual_sums(graph, options.classifier).size());
    if (points.empty()) return report;
    const auto views = model::views(merged);
    const auto mend = [&](std::size_t i, const std::vector<at::Tensor>& inputs, const at::Tensor& output,
                          const ChannelMoments& moments) {
        const auto& kind = graph.operations[points[i].operation].kind;
        if (const auto* norm = std::get_if<model::BatchNorm>(&kind)) {
            const auto entry = [&](int index) {
                return index < 0 ? at::Tensor() : views.entries[static_cast<std::size_t>(index)];
            };
            return at::batch_norm(inputs.front(), entry(norm->weight), entry(norm->bias), {}, {}, true, 0.0,
                                  norm->epsilon, true);
        }
        return mended(output, points[i].axis, mending_of(targets[i], moments, options));
    };
    const auto measured = source.of_mended(merged, points, context.members, weights, mend);
    for (std::size_t i = 0; i < points.size(); ++i) {
        const auto& kind = graph.operations[points[i].operation].kind;
        if (const auto* norm = std::get_if<model::BatchNorm>(&kind)) {
            set_running_statistics(merged, *norm, measured[i]);
            report.batch_norms += 1;
        } else {
            fold_layer(merged, kind, mending_of(targets[i], measured[i], options), report);
        }
    }
    return report;
}

}  // namespace thalweg::aggregator
