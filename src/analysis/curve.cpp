#include <ATen/Dispatch.h>
#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>

#include "finishing.hpp"
#include "thalweg/analysis/measures.hpp"
#include "thalweg/core/error.hpp"

namespace thalweg::analysis {

namespace {

void check_pair(const model::Parameters& a, const model::Parameters& b, std::int64_t points) {
    if (points < 2)
        throw core::UsageError("A curve needs at least 2 points, its ends; " + std::to_string(points) +
                               " are too few.");
    if (!(*a.layout == *b.layout) || a.is_double() != b.is_double()) {
        throw core::RunError("Models of different architectures cannot be interpolated.");
    }
}

std::vector<double> evenly_spaced(std::int64_t points) {
    std::vector<double> lambdas;
    for (std::int64_t p = 0; p < points; ++p) {
        lambdas.push_back(static_cast<double>(p) / static_cast<double>(points - 1));
    }
    return lambdas;
}

/// Two doubles a split: loss and accuracy of one point.
std::vector<double> evaluate_points(const model::ModelGraph& graph, const model::Parameters& a,
                                    const model::Parameters& b, const std::vector<Split>& splits,
                                    const std::vector<double>& lambdas, const Finisher& finisher,
                                    core::Communicator& communicator) {
    const auto points = static_cast<std::int64_t>(lambdas.size());
    const auto compute = [&](std::int64_t point, std::span<double> row) {
        const double lambda = lambdas[static_cast<std::size_t>(point)];
        model::Parameters between = interpolate(a, b, lambda);
        const bool end = point == 0 || point == points - 1;
        if (!end) between = finisher.finish(between, lambda);
        for (std::size_t s = 0; s < splits.size(); ++s) {
            const Evaluation result = evaluate_alone(graph, between, *splits[s].samples);
            row[2 * s] = result.loss;
            row[2 * s + 1] = result.accuracy;
        }
    };
    return core::gather_rows(communicator, points, static_cast<std::int64_t>(2 * splits.size()), compute);
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
    for (const double value : values) {
        if (std::isnan(value)) return std::numeric_limits<double>::quiet_NaN();
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
    const at::NoGradGuard no_grad;
    check_pair(a, b, options.points);
    const Finisher finisher(graph, a, b, options.finish, calibration, communicator);
    Curve curve;
    curve.lambdas = evenly_spaced(options.points);
    const auto rows = evaluate_points(graph, a, b, splits, curve.lambdas, finisher, communicator);
    for (std::size_t s = 0; s < splits.size(); ++s) {
        SplitCurve measured;
        for (std::size_t p = 0; p < curve.lambdas.size(); ++p) {
            measured.loss.push_back(rows[2 * (p * splits.size() + s)]);
            measured.accuracy.push_back(rows[2 * (p * splits.size() + s) + 1]);
        }
        measure_barriers(curve.lambdas, measured);
        curve.splits.emplace_back(splits[s].name, std::move(measured));
    }
    if (calibration) curve.variance_ratio = finisher.midpoint_variance_ratio(a, b);
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
