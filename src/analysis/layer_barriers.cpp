#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

#include "evenly_spaced.hpp"
#include "finishing.hpp"
#include "modules.hpp"
#include "thalweg/analysis/paths.hpp"
#include "thalweg/core/error.hpp"

namespace thalweg::analysis {

namespace {

constexpr double middle = 0.5;

/// Evenly spaced values without 0, and the middle.
std::vector<double> above_zero(std::int64_t points) {
    std::vector<double> lambdas = evenly_spaced(0, 1, points);
    lambdas.erase(lambdas.begin());
    const auto place = std::lower_bound(lambdas.begin(), lambdas.end(), middle);
    if (*place != middle) lambdas.insert(place, middle);
    return lambdas;
}

/// A with one module's entries on the way to B's.
model::Parameters with_layer_at(const Module& module, const model::Parameters& a,
                                const model::Parameters& whole) {
    model::Parameters mixed = a.clone();
    for (const std::size_t entry : module.entries) mixed.view(entry).copy_(whole.view(entry));
    return mixed;
}

/// The largest of several excesses, never below 0; NaN when one is.
class Highest {
  public:
    void see(double excess) {
        if (std::isnan(excess)) value_ = excess;
        if (excess > value_) value_ = excess;  // never true once value_ is NaN
    }
    double value() const { return value_; }

  private:
    double value_ = 0;
};

}  // namespace

std::vector<LayerBarrier> layer_barriers(const model::ModelGraph& graph, const model::Parameters& a,
                                         const model::Parameters& b, const data::SampleSet& samples,
                                         std::int64_t points, core::Communicator& communicator,
                                         std::shared_ptr<const data::SampleSet> calibration) {
    const at::NoGradGuard no_grad;
    if (points < 2) {
        throw core::UsageError("A curve needs at least 2 points, its ends; " + std::to_string(points) +
                               " are too few.");
    }
    const auto line = line_path(a, b);
    const auto layers = modules(graph);
    const auto lambdas = above_zero(points);
    const auto steps = static_cast<std::int64_t>(lambdas.size());
    // A, B, then every layer's points but λ = 0, which is A. There are many more points than ranks, and each is a few
    // chunks only: points are spread, not samples.
    constexpr std::int64_t ends = 2;
    const bool resets = calibration && has_batch_norm(graph);
    const auto count = ends + static_cast<std::int64_t>(layers.size()) * steps;
    const auto rows =
        core::gather_rows(communicator, count, 2, [&](std::int64_t item, std::span<double> row) {
            const std::int64_t place = item - ends;
            auto point = item == 0 ? a
                         : item == 1
                             ? b
                             : with_layer_at(layers[static_cast<std::size_t>(place / steps)], a,
                                             line->at(lambdas[static_cast<std::size_t>(place % steps)]));
            if (resets && item >= ends) point = with_fresh_norms(graph, point, calibration);
            const Evaluation result = evaluate_alone(graph, point, samples);
            row[0] = result.loss;
            row[1] = 1 - result.accuracy;
        });
    std::vector<LayerBarrier> barriers;
    std::size_t at = 2 * ends;
    for (const Module& module : layers) {
        Highest loss, error;
        LayerBarrier barrier{.layer = module.name};
        for (const double lambda : lambdas) {
            const double loss_excess = rows[at++] - ((1 - lambda) * rows[0] + lambda * rows[2]);
            const double error_excess = rows[at++] - ((1 - lambda) * rows[1] + lambda * rows[3]);
            loss.see(loss_excess);
            error.see(error_excess);
            if (lambda != middle) continue;
            barrier.loss_at_middle = loss_excess;
            barrier.error_at_middle = error_excess;
        }
        barrier.loss_barrier = loss.value();
        barrier.error_barrier = error.value();
        barriers.push_back(barrier);
    }
    return barriers;
}

double relative_reduction(double before, double after) {
    if (before == 0) return std::numeric_limits<double>::quiet_NaN();
    return 1 - after / before;
}

}  // namespace thalweg::analysis
