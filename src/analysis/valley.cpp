#include "thalweg/analysis/valley.hpp"

#include <ATen/Dispatch.h>
#include <torch/types.h>

#include <boost/math/distributions/students_t.hpp>
#include <cmath>
#include <limits>
#include <span>
#include <utility>

#include "evenly_spaced.hpp"
#include "finishing.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/interrupt.hpp"
#include "valley_support.hpp"

namespace thalweg::analysis {

namespace {

void check(const model::ModelGraph& graph, const model::Parameters& parameters, const ValleyOptions& options,
           bool has_calibration) {
    if (!(*graph.layout == *parameters.layout))
        throw core::RunError("The parameters are not of the valley's model.");
    if (options.reset_batch_norm && !has_calibration)
        throw core::UsageError("Batch norms can only be reset with samples to look at, and there are none.");
    require_valley(graph, options);
}

/// Directions that differ by more than rounding; 1 where the noise draws nothing that scaling leaves.
std::int64_t distinct_repeats(const model::ModelGraph& graph, const model::Parameters& parameters,
                              const ValleyOptions& options, std::uint64_t seed) {
    if (options.repeats < 2) return options.repeats;
    const at::Tensor first = valley_direction(graph, parameters, options, seed, 0);
    const double length = first.norm().item<double>();
    for (std::int64_t repeat = 1; repeat < options.repeats; ++repeat) {
        core::check_interrupt();
        const at::Tensor other = valley_direction(graph, parameters, options, seed, repeat);
        if ((other - first).norm().item<double>() > 1e-12 * length) return options.repeats;
    }
    return 1;
}

/// A point of a repeat; λ = 0 is the same in all and computed once, for the first.
struct Item {
    std::int64_t repeat;
    std::size_t point;
};

std::vector<Item> items(const ValleyOptions& options, const std::vector<double>& at) {
    std::vector<Item> result;
    for (std::int64_t repeat = 0; repeat < options.repeats; ++repeat) {
        for (std::size_t point = 0; point < at.size(); ++point) {
            if (at[point] != 0 || repeat == 0) result.push_back({repeat, point});
        }
    }
    return result;
}

double mean(const std::vector<double>& values) {
    double sum = 0;
    for (const double value : values) sum += value;
    return sum / static_cast<double>(values.size());
}

/// Mean error over λ < 0 minus over λ > 0.
double asymmetry_of(const std::vector<double>& at, const std::vector<double>& errors) {
    std::vector<double> below, above;
    for (std::size_t p = 0; p < at.size(); ++p) {
        if (at[p] < 0) below.push_back(errors[p]);
        if (at[p] > 0) above.push_back(errors[p]);
    }
    return mean(below) - mean(above);
}

void summarise(Valley& valley) {
    for (const auto& errors : valley.errors_by_repeat)
        valley.asymmetries.push_back(asymmetry_of(valley.lambdas, errors));
    valley.asymmetry = mean(valley.asymmetries);
    valley.asymmetry_low = valley.asymmetry_high = std::numeric_limits<double>::quiet_NaN();
    const auto n = static_cast<double>(valley.asymmetries.size());
    if (n < 2) return;
    double squares = 0;
    for (const double one : valley.asymmetries)
        squares += (one - valley.asymmetry) * (one - valley.asymmetry);
    const boost::math::students_t distribution(n - 1);
    const double reach = boost::math::quantile(distribution, 0.975) * std::sqrt(squares / (n - 1) / n);
    valley.asymmetry_low = valley.asymmetry - reach;
    valley.asymmetry_high = valley.asymmetry + reach;
}

}  // namespace

void require_valley(const model::ModelGraph& graph, const ValleyOptions& options) {
    if (options.points < 3 || options.repeats < 1) {
        throw core::UsageError("A valley has at least 3 points and at least 1 repeat; got " +
                               std::to_string(options.points) + " and " + std::to_string(options.repeats) +
                               ".");
    }
    make_noise(options.noise);
    noisy_places(graph, options);
}

model::Parameters moved(const model::Parameters& parameters, const at::Tensor& direction, double length) {
    model::Parameters result = parameters.clone();
    AT_DISPATCH_FLOATING_TYPES(result.values.scalar_type(), "moved", [&] {
        scalar_t* out = result.values.data_ptr<scalar_t>();
        const double* along = direction.data_ptr<double>();
        for (std::int64_t i = 0; i < result.values.numel(); ++i)
            out[i] = static_cast<scalar_t>(static_cast<double>(out[i]) + length * along[i]);
    });
    return result;
}

Valley valley(const model::ModelGraph& graph, const model::Parameters& parameters,
              const data::SampleSet& samples, const ValleyOptions& wanted, std::uint64_t seed,
              std::shared_ptr<const data::SampleSet> calibration, core::Communicator& communicator) {
    const at::NoGradGuard no_grad;
    check(graph, parameters, wanted, calibration != nullptr);
    ValleyOptions options = wanted;
    // One direction measured often is no sample of directions: it has no interval.
    options.repeats =
        core::collectively(communicator, [&] { return distinct_repeats(graph, parameters, wanted, seed); });
    Valley result;
    result.lambdas = evenly_spaced(-1, 1, options.points);
    result.sign_ratio = options.sign_ratio;
    const auto work = items(options, result.lambdas);
    // A hundred points of a few chunks each: points are spread over the ranks, not samples. A rank meets the repeats in
    // order and keeps one direction.
    std::pair<std::int64_t, at::Tensor> direction{-1, {}};
    const auto rows = core::gather_rows(
        communicator, static_cast<std::int64_t>(work.size()), 2,
        [&](std::int64_t index, std::span<double> row) {
            const auto [repeat, point] = work[static_cast<std::size_t>(index)];
            if (direction.first != repeat)
                direction = {repeat, valley_direction(graph, parameters, options, seed, repeat)};
            auto model = moved(parameters, direction.second, result.lambdas[point]);
            if (options.reset_batch_norm) model = with_fresh_norms(graph, model, calibration);
            const Evaluation evaluation = evaluate_alone(graph, model, samples);
            row[0] = evaluation.loss;
            row[1] = evaluation.accuracy;
        });
    const std::size_t points = result.lambdas.size();
    result.loss.assign(points, 0.0);
    result.accuracy.assign(points, 0.0);
    result.errors_by_repeat.assign(static_cast<std::size_t>(options.repeats),
                                   std::vector<double>(points, 0.0));
    for (std::size_t i = 0; i < work.size(); ++i) {
        const bool shared = result.lambdas[work[i].point] == 0;
        const double share = shared ? 1 : 1 / static_cast<double>(options.repeats);
        result.loss[work[i].point] += share * rows[2 * i];
        result.accuracy[work[i].point] += share * rows[2 * i + 1];
        for (std::int64_t repeat = 0; repeat < options.repeats; ++repeat) {
            if (shared || repeat == work[i].repeat)
                result.errors_by_repeat[static_cast<std::size_t>(repeat)][work[i].point] =
                    1 - rows[2 * i + 1];
        }
    }
    summarise(result);
    return result;
}

}  // namespace thalweg::analysis
