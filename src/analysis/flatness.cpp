#include "thalweg/analysis/flatness.hpp"

#include <ATen/Dispatch.h>
#include <torch/types.h>

#include <cmath>
#include <limits>
#include <span>

#include "thalweg/core/error.hpp"
#include "thalweg/core/interrupt.hpp"
#include "thalweg/core/random.hpp"
#include "thalweg/core/text.hpp"

namespace thalweg::analysis {

namespace {

void check(const std::vector<double>& sigmas, std::int64_t repeats) {
    if (sigmas.empty()) throw core::UsageError("The local energy needs at least one noise strength σ.");
    for (const double sigma : sigmas) {
        if (!(sigma >= 0) || !std::isfinite(sigma)) {
            throw core::UsageError("A noise strength σ of " + std::to_string(sigma) +
                                   " makes no sense; give finite numbers of 0 or more.");
        }
    }
    if (repeats < 1) {
        throw core::UsageError(
            "The local energy is a mean over draws of noise: repeats must be at least 1, not " +
            std::to_string(repeats) + ".");
    }
}

/// θ(1 + σz) of the trainable entries, in the model's type.
model::Parameters shaken(const model::Parameters& parameters, double sigma, std::uint64_t seed,
                         std::int64_t repeat) {
    model::Parameters moved = parameters.clone();
    core::Random random(seed, "local energy", repeat);
    AT_DISPATCH_FLOATING_TYPES(moved.values.scalar_type(), "shaken", [&] {
        scalar_t* value = moved.values.data_ptr<scalar_t>();
        for (std::int64_t i = 0; i < moved.layout->trainable_size(); ++i) {
            value[i] = static_cast<scalar_t>(value[i] * (1 + sigma * random.normal()));
        }
    });
    return moved;
}

LocalEnergyPoint point(double sigma, const std::vector<double>& errors, const std::vector<double>& losses,
                       const Evaluation& at) {
    LocalEnergyPoint result{.sigma = sigma, .errors = errors};
    const auto n = static_cast<double>(errors.size());
    // Differences first: at σ = 0 every one of them is 0 exactly.
    for (std::size_t r = 0; r < errors.size(); ++r) {
        result.energy += errors[r] - (1 - at.accuracy);
        result.loss_rise += losses[r] - at.loss;
    }
    result.energy /= n;
    result.loss_rise /= n;
    double squares = 0;
    for (const double error : errors) {
        const double off = error - (1 - at.accuracy) - result.energy;
        squares += off * off;
    }
    result.standard_error =
        errors.size() > 1 ? std::sqrt(squares / (n - 1) / n) : std::numeric_limits<double>::quiet_NaN();
    return result;
}

}  // namespace

LocalEnergy local_energy(const model::ModelGraph& graph, const model::Parameters& parameters,
                         const data::SampleSet& samples, const std::vector<double>& sigmas,
                         std::int64_t repeats, std::uint64_t seed, core::Communicator& communicator) {
    const at::NoGradGuard no_grad;
    check(sigmas, repeats);
    LocalEnergy result;
    result.at = evaluate(graph, parameters, samples, communicator);
    constexpr std::int64_t width = 2;
    const auto count = static_cast<std::int64_t>(sigmas.size()) * repeats;
    const auto rows =
        core::gather_rows(communicator, count, width, [&](std::int64_t item, std::span<double> row) {
            core::check_interrupt();
            const double sigma = sigmas[static_cast<std::size_t>(item / repeats)];
            const auto moved = shaken(parameters, sigma, seed, item % repeats);
            const Evaluation found = evaluate_alone(graph, moved, samples);
            row[0] = 1 - found.accuracy;
            row[1] = found.loss;
        });
    for (std::size_t s = 0; s < sigmas.size(); ++s) {
        std::vector<double> errors, losses;
        for (std::int64_t r = 0; r < repeats; ++r) {
            const auto row = (s * static_cast<std::size_t>(repeats) + static_cast<std::size_t>(r)) * width;
            errors.push_back(rows[row]);
            losses.push_back(rows[row + 1]);
        }
        result.points.push_back(point(sigmas[s], errors, losses, result.at));
    }
    return result;
}

}  // namespace thalweg::analysis
