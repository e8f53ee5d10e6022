#include <ATen/Dispatch.h>
#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>

#include "evenly_spaced.hpp"
#include "finishing.hpp"
#include "thalweg/analysis/measures.hpp"
#include "thalweg/analysis/paths.hpp"
#include "thalweg/core/error.hpp"

namespace thalweg::analysis {

namespace {

void check_points(std::int64_t points) {
    if (points >= 2) return;
    throw core::UsageError("A curve needs at least 2 points, its ends; " + std::to_string(points) +
                           " are too few.");
}

/// Where the variance ratio is measured.
constexpr double middle = 0.5;

/// Point λ, mended unless it is an end. Collective.
model::Parameters mended_point(const Path& path, double lambda, const Finisher& finisher,
                               core::Communicator& communicator) {
    const auto between = core::collectively(communicator, [&] { return path.at(lambda); });
    return lambda == 0 || lambda == 1 ? between : finisher.finish(between, lambda);
}

void measure_barriers(const std::vector<double>& lambdas, SplitCurve& curve) {
    std::vector<double> errors;
    for (const double accuracy : curve.accuracy) errors.push_back(1 - accuracy);
    curve.loss_barrier = barrier_of(lambdas, curve.loss);
    curve.error_barrier = barrier_of(lambdas, errors);
}

}  // namespace

model::Parameters interpolate(const model::Parameters& a, const model::Parameters& b, double lambda) {
    if (lambda == 1) {
        model::Parameters end = b.clone();
        end.counters.copy_(a.counters);
        return end;
    }
    model::Parameters between = a.clone();
    if (lambda == 0) return between;  // also where B holds an infinity
    const at::Tensor left = a.values.contiguous(), right = b.values.contiguous();
    AT_DISPATCH_FLOATING_TYPES(left.scalar_type(), "interpolate", [&] {
        const scalar_t* from = left.data_ptr<scalar_t>();
        const scalar_t* to = right.data_ptr<scalar_t>();
        scalar_t* out = between.values.data_ptr<scalar_t>();
        for (std::int64_t i = 0; i < left.numel(); ++i) {
            // In this form equal ends give exactly themselves.
            const double start = from[i], step = static_cast<double>(to[i]) - start;
            out[i] = static_cast<scalar_t>(start + lambda * step);
        }
    });
    return between;
}

double barrier_of(const std::vector<double>& lambdas, const std::vector<double>& values) {
    if (lambdas.size() != values.size() || values.size() < 2) {
        throw std::logic_error("barrier_of: one value for each of two or more points");
    }
    const double length = lambdas.back() - lambdas.front(), rise = values.back() - values.front();
    double highest = 0;
    const bool has_ends = std::isfinite(values.front()) && std::isfinite(values.back());
    for (const double value : values) {
        if (std::isnan(value) || !has_ends) return std::numeric_limits<double>::quiet_NaN();
    }
    // The ends lie on the line; computing theirs would only add rounding.
    for (std::size_t i = 1; i + 1 < values.size(); ++i) {
        const double line = values.front() + (lambdas[i] - lambdas.front()) / length * rise;
        highest = std::max(highest, values[i] - line);
    }
    return highest;
}

Curve linear_curve(const model::ModelGraph& graph, const model::Parameters& a, const model::Parameters& b,
                   const std::vector<Split>& splits, const CurveOptions& options,
                   std::shared_ptr<const data::SampleSet> calibration, core::Communicator& communicator) {
    check_points(options.points);
    return path_curve(graph, *line_path(a, b), splits, options, std::move(calibration), communicator);
}

Curve path_curve(const model::ModelGraph& graph, const Path& path, const std::vector<Split>& splits,
                 const CurveOptions& options, std::shared_ptr<const data::SampleSet> calibration,
                 core::Communicator& communicator) {
    const at::NoGradGuard no_grad;
    check_points(options.points);
    if (path.folds_norms() && options.finish != "none") {
        throw core::UsageError(
            "The " + path.name() +
            " path folds batch norms into the layers before them; nothing that takes their "
            "statistics anew, as the finish '" +
            options.finish + "' does, can follow. Use none.");
    }
    const auto ends = core::collectively(communicator, [&] { return std::pair(path.at(0), path.at(1)); });
    const Finisher finisher(graph, ends.first, ends.second, options.finish, calibration, communicator);
    Curve curve;
    curve.lambdas = evenly_spaced(0, 1, options.points);
    for (const Split& split : splits) curve.splits.emplace_back(split.name, SplitCurve{});
    // One point after another, the samples of each spread over the ranks: few points would leave ranks idle, and a point is
    // mended in many passes over the samples. What fits one chunk (see model::samples_at_once) is not spread.
    for (const double lambda : curve.lambdas) {
        const auto point = mended_point(path, lambda, finisher, communicator);
        for (std::size_t s = 0; s < splits.size(); ++s) {
            const Evaluation result = evaluate(graph, point, *splits[s].samples, communicator);
            curve.splits[s].second.loss.push_back(result.loss);
            curve.splits[s].second.accuracy.push_back(result.accuracy);
        }
        if (calibration && lambda == middle) curve.variance_ratio = finisher.midpoint_variance_ratio(point);
    }
    for (auto& [name, measured] : curve.splits) measure_barriers(curve.lambdas, measured);
    if (calibration && curve.variance_ratio.empty()) {  // the middle is not one of the points
        curve.variance_ratio =
            finisher.midpoint_variance_ratio(mended_point(path, middle, finisher, communicator));
    }
    return curve;
}

SplitCurve barrier(const model::ModelGraph& graph, const model::Parameters& a, const model::Parameters& b,
                   const data::SampleSet& samples, std::int64_t points, core::Communicator& communicator) {
    const CurveOptions options{.points = points, .finish = "none"};
    return linear_curve(graph, a, b, {{"samples", &samples}}, options, nullptr, communicator)
        .splits.front()
        .second;
}

}  // namespace thalweg::analysis
