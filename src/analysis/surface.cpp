#include "thalweg/analysis/surface.hpp"

#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>

#include "evenly_spaced.hpp"
#include "finishing.hpp"
#include "thalweg/analysis/valley.hpp"
#include "thalweg/core/error.hpp"

namespace thalweg::analysis {

namespace {

/// What the marks span on one axis, with some room.
std::pair<double, double> limits(const std::vector<double>& marks, const SurfaceOptions& options) {
    if (marks.size() < 2) return {-options.range, options.range};
    const auto [low, high] = std::minmax_element(marks.begin(), marks.end());
    const double room = options.margin * (*high - *low);
    return {*low - room, *high + room};
}

void check(const Plane& plane, const SurfaceOptions& options, bool has_calibration) {
    if (options.columns < 2 || options.rows < 2)
        throw core::UsageError("A surface has at least 2 columns and 2 rows.");
    if (!(options.range > 0) || !(options.margin >= 0) || !std::isfinite(options.range + options.margin)) {
        throw core::UsageError("A surface's range is above 0, and its margin at least 0.");
    }
    if (options.reset_batch_norm && !has_calibration)
        throw core::UsageError("Batch norms can only be reset with samples to look at, and there are none.");
    if (plane.marks.size() != plane.models.size() || plane.marks.empty())
        throw core::UsageError("A plane has a model for each of its marks, and at least one.");
}

}  // namespace

model::Parameters Plane::at(double x, double y) const {
    model::Parameters point = origin.clone();
    point.values.copy_(origin.values.to(at::kDouble) + x * first + y * second);
    for (std::size_t e = 0; e < point.layout->entries().size(); ++e) {
        if (point.layout->entries()[e].role == model::Role::running_var) point.view(e).clamp_min_(0);
    }
    return point;
}

Plane plane_through(const model::Parameters& a, const model::Parameters& b, const model::Parameters& c) {
    const at::NoGradGuard no_grad;
    for (const auto* other : {&b, &c}) {
        if (*a.layout == *other->layout && a.is_double() == other->is_double()) continue;
        throw core::RunError("A plane goes through models of one architecture; these differ.");
    }
    const std::int64_t trainable = a.layout->trainable_size();
    const auto dot = [&](const at::Tensor& one, const at::Tensor& other) {
        return at::dot(one.narrow(0, 0, trainable), other.narrow(0, 0, trainable)).item<double>();
    };
    const at::Tensor origin = a.values.to(at::kDouble);
    const at::Tensor to_b = b.values.to(at::kDouble) - origin, to_c = c.values.to(at::kDouble) - origin;
    const double length_b = std::sqrt(dot(to_b, to_b)), length_c = std::sqrt(dot(to_c, to_c));
    const at::Tensor first = to_b / length_b;
    const double along = dot(to_c, first);
    const at::Tensor across = to_c - along * first;
    const double height = std::sqrt(dot(across, across));
    constexpr double flat = 1e-6;
    if (!(length_b > 0) || !(height > flat * length_c)) {
        throw core::RunError(
            "The three models lie on one line (two of them may be the same), and no single plane "
            "goes through them; choose another third model, or one model and random directions.");
    }
    return {a,
            first,
            across / height,
            {{.name = "A", .x = 0, .y = 0},
             {.name = "B", .x = length_b, .y = 0},
             {.name = "C", .x = along, .y = height}},
            {a, b, c}};
}

Plane random_plane(const model::ModelGraph& graph, const model::Parameters& parameters, std::uint64_t seed) {
    const ValleyOptions options{.norm = "filter"};
    return {parameters,
            valley_direction(graph, parameters, options, seed, 0),
            valley_direction(graph, parameters, options, seed, 1),
            {{.name = "A", .x = 0, .y = 0}},
            {parameters}};
}

Surface surface(const model::ModelGraph& graph, const Plane& plane, const data::SampleSet& samples,
                const SurfaceOptions& options, std::shared_ptr<const data::SampleSet> calibration,
                core::Communicator& communicator) {
    const at::NoGradGuard no_grad;
    check(plane, options, calibration != nullptr);
    std::vector<double> xs, ys;
    for (const PlaneMark& mark : plane.marks) {
        xs.push_back(mark.x);
        ys.push_back(mark.y);
    }
    const auto [left, right] = limits(xs, options);
    const auto [bottom, top] = limits(ys, options);
    Surface result;
    result.x = evenly_spaced(left, right, options.columns);
    result.y = evenly_spaced(bottom, top, options.rows);
    result.marks = plane.marks;
    // Hundreds of points of a few chunks each: points are spread over the ranks, not samples. The marks come first.
    const auto marks = static_cast<std::int64_t>(plane.marks.size());
    const auto rows = core::gather_rows(
        communicator, marks + options.rows * options.columns, 2,
        [&](std::int64_t item, std::span<double> row) {
            const std::int64_t cell = item - marks;
            auto model = item < marks ? plane.models[static_cast<std::size_t>(item)]
                                      : plane.at(result.x[static_cast<std::size_t>(cell % options.columns)],
                                                 result.y[static_cast<std::size_t>(cell / options.columns)]);
            if (options.reset_batch_norm && item >= marks)
                model = with_fresh_norms(graph, model, calibration);
            const Evaluation evaluation = evaluate_alone(graph, model, samples);
            row[0] = evaluation.loss;
            row[1] = evaluation.accuracy;
        });
    std::size_t at = 0;
    for (PlaneMark& mark : result.marks) {
        mark.evaluation = {.loss = rows[at], .accuracy = rows[at + 1], .samples = samples.size()};
        at += 2;
    }
    for (std::int64_t r = 0; r < options.rows; ++r) {
        result.loss.emplace_back();
        result.accuracy.emplace_back();
        for (std::int64_t c = 0; c < options.columns; ++c, at += 2) {
            result.loss.back().push_back(rows[at]);
            result.accuracy.back().push_back(rows[at + 1]);
        }
    }
    return result;
}

}  // namespace thalweg::analysis
