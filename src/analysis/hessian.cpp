#include "thalweg/analysis/hessian.hpp"

#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <string>

#include "evenly_spaced.hpp"
#include "hessian_operator.hpp"
#include "lanczos.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/memory.hpp"
#include "thalweg/core/random.hpp"
#include "thalweg/core/text.hpp"

namespace thalweg::analysis {

namespace {

at::Tensor normal_vector(std::int64_t n, core::Random& random) {
    at::Tensor vector = at::empty({n}, at::kDouble);
    double* values = vector.data_ptr<double>();
    for (std::int64_t i = 0; i < n; ++i) values[i] = random.normal();
    return vector;
}

/// Probe `index`: ±1 for every entry.
at::Tensor sign_vector(std::int64_t n, std::uint64_t seed, std::int64_t index) {
    core::Random random(seed, "probe", index);
    at::Tensor vector = at::empty({n}, at::kDouble);
    double* values = vector.data_ptr<double>();
    std::uint64_t bits = 0;
    for (std::int64_t i = 0; i < n; ++i) {
        if (i % 64 == 0) bits = random.next();
        values[i] = (bits & 1) != 0 ? 1.0 : -1.0;
        bits >>= 1;
    }
    return vector;
}

void require_probes(std::int64_t probes) {
    if (probes < 1) {
        throw core::UsageError("An estimate needs at least 1 random probe, not " + std::to_string(probes) +
                               ".");
    }
}

void check(const LanczosOptions& options, std::int64_t k, std::int64_t n) {
    if (k < 1 || k > n) {
        throw core::UsageError("The Hessian of a model of " + std::to_string(n) + " parameters has 1 to " +
                               std::to_string(n) + " eigenvalues to show, not " + std::to_string(k) + ".");
    }
    if (options.steps != 0 && options.steps < k) {
        throw core::UsageError(
            "Lanczos finds at most as many eigenvalues as it takes steps: " + std::to_string(k) +
            " eigenvalues need at least as many, not " + std::to_string(options.steps) + ".");
    }
    if (!(options.tolerance >= 0)) throw core::UsageError("The tolerance must be 0 or more.");
}

void check(const DensityOptions& options) {
    require_probes(options.probes);
    if (options.steps < 1) throw core::UsageError("The spectral density needs at least 1 step of Lanczos.");
    if (!(options.width > 0 && options.width <= 1)) {
        throw core::UsageError(
            "The width of the density's Gaussians is a part of the spectrum's range: above 0, "
            "at most 1.");
    }
    if (static_cast<double>(options.points) * options.width < 1 + 8 * options.width) {
        throw core::UsageError(
            "A grid of " + std::to_string(options.points) +
            " points is too coarse for Gaussians of that width; give more points, or a larger "
            "width.");
    }
}

/// `vectors` of n numbers that are kept, and what a product takes besides: a chunk's gradients, their derivatives, the
/// product itself, what is sent of it, what is received, the sum, and the whole again. Collective.
void require_room(std::int64_t vectors, std::int64_t n, const std::string& what,
                  core::Communicator& communicator) {
    constexpr std::int64_t of_a_product = 7;
    core::collectively(communicator, [&] {
        core::require_memory(8 * static_cast<double>(vectors + of_a_product) * static_cast<double>(n),
                             what + " on " + std::to_string(n) + " parameters");
    });
}

/// Lanczos keeps a vector for each step, one more, and one to work with. Collective.
void require_steps(std::int64_t steps, std::int64_t n, const std::string& option,
                   core::Communicator& communicator) {
    require_room(steps + 2, n, std::to_string(steps) + " steps of Lanczos (take fewer: " + option + ")",
                 communicator);
}

/// Rank 0's decisions are everybody's: on unlike processors others may round to another side, and the ranks would no longer
/// make the same calls.
Lanczos::Decide decided_by_root(core::Communicator& communicator) {
    return [&communicator](bool mine) {
        std::byte said{static_cast<unsigned char>(mine ? 1 : 0)};
        communicator.broadcast({&said, 1}, 0);
        return said != std::byte{0};
    };
}

/// The `k` largest, once the recurrence has as many.
HessianTop top_of(const Lanczos::Ritz& ritz, std::int64_t k, double tolerance) {
    HessianTop top;
    top.smallest = ritz.values.front();
    const double largest = std::max(std::abs(ritz.values.front()), std::abs(ritz.values.back()));
    top.converged = true;
    for (std::int64_t i = 0; i < k; ++i) {
        const std::size_t at = ritz.values.size() - 1 - static_cast<std::size_t>(i);
        top.eigenvalues.push_back(ritz.values[at]);
        top.residuals.push_back(ritz.residuals[at]);
        top.converged = top.converged && ritz.residuals[at] <= tolerance * largest;
    }
    return top;
}

/// Adds one probe's quadrature, which has weight 1/probes, to the density.
void add_gaussians(SpectralDensity& result, std::size_t probe) {
    const double scale =
        1 / (result.sigma * std::sqrt(2 * std::numbers::pi) * static_cast<double>(result.nodes.size()));
    for (std::size_t g = 0; g < result.grid.size(); ++g) {
        double sum = 0;
        for (std::size_t i = 0; i < result.nodes[probe].size(); ++i) {
            const double off = (result.grid[g] - result.nodes[probe][i]) / result.sigma;
            sum += result.weights[probe][i] * std::exp(-off * off / 2);
        }
        result.density[g] += scale * sum;
    }
}

void smooth(SpectralDensity& result, const DensityOptions& options) {
    const double range = result.largest - result.smallest;
    const double size = std::max(std::abs(result.largest), std::abs(result.smallest));
    result.sigma = range > 1e-12 * size ? options.width * range : 1;
    result.grid =
        evenly_spaced(result.smallest - 4 * result.sigma, result.largest + 4 * result.sigma, options.points);
    result.density.resize(result.grid.size());
    for (std::size_t probe = 0; probe < result.nodes.size(); ++probe) add_gaussians(result, probe);
    const auto probes = static_cast<double>(result.nodes.size());
    for (std::size_t probe = 0; probe < result.nodes.size(); ++probe) {
        for (std::size_t i = 0; i < result.nodes[probe].size(); ++i) {
            const double node = result.nodes[probe][i], weight = result.weights[probe][i];
            result.mean += weight * node / probes;
            if (node < -1e-6 * size) result.negative += weight / probes;
        }
    }
}

}  // namespace

HessianTop top_eigenvalues(const model::ModelGraph& graph, const model::Parameters& parameters,
                           const data::SampleSet& samples, std::int64_t k, const LanczosOptions& options,
                           std::uint64_t seed, core::Communicator& communicator) {
    const at::NoGradGuard no_grad;
    const HessianOperator hessian(graph, parameters, samples, communicator);
    const std::int64_t n = hessian.size();
    check(options, k, n);
    const std::int64_t most = std::min(n, options.steps > 0 ? options.steps : 4 * k + 60);
    require_steps(most, n, "--steps, or a smaller --top", communicator);
    core::Random random(seed, "lanczos");
    const auto decide = decided_by_root(communicator);
    Lanczos lanczos(std::cref(hessian), normal_vector(n, random), decide);
    HessianTop top;
    while (lanczos.steps() < most) {
        const bool more = lanczos.step();
        const std::int64_t done = lanczos.steps();
        if (done >= k && (done % 5 == 0 || done == most || !more)) {
            top = top_of(lanczos.ritz(), k, options.tolerance);
            top.converged = decide(top.converged);
            if (top.converged) break;
        }
        // An exhausted space has only one vector of each eigenvalue's space: others come from a new start.
        if (!more && done < most && !lanczos.restart(normal_vector(n, random))) break;
    }
    top.steps = lanczos.steps();
    top.parameters = n;
    return top;
}

Trace hutchinson_trace(const model::ModelGraph& graph, const model::Parameters& parameters,
                       const data::SampleSet& samples, std::int64_t probes, std::uint64_t seed,
                       core::Communicator& communicator) {
    const at::NoGradGuard no_grad;
    require_probes(probes);
    const HessianOperator hessian(graph, parameters, samples, communicator);
    require_room(1, hessian.size(), "a product with the Hessian", communicator);
    Trace result;
    result.parameters = hessian.size();
    for (std::int64_t probe = 0; probe < probes; ++probe) {
        const at::Tensor z = sign_vector(hessian.size(), seed, probe);
        result.probes.push_back(at::dot(z, hessian(z)).item<double>());
        result.trace += result.probes.back();
    }
    const auto count = static_cast<double>(probes);
    result.trace /= count;
    double squares = 0;
    for (const double value : result.probes) squares += (value - result.trace) * (value - result.trace);
    result.standard_error =
        probes > 1 ? std::sqrt(squares / (count - 1) / count) : std::numeric_limits<double>::quiet_NaN();
    return result;
}

SpectralDensity spectral_density(const model::ModelGraph& graph, const model::Parameters& parameters,
                                 const data::SampleSet& samples, const DensityOptions& options,
                                 std::uint64_t seed, core::Communicator& communicator) {
    const at::NoGradGuard no_grad;
    check(options);
    const HessianOperator hessian(graph, parameters, samples, communicator);
    SpectralDensity result;
    result.parameters = hessian.size();
    result.smallest = std::numeric_limits<double>::infinity();
    result.largest = -result.smallest;
    const std::int64_t most = std::min(options.steps, result.parameters);
    require_steps(most, result.parameters, "--density-steps", communicator);
    for (std::int64_t probe = 0; probe < options.probes; ++probe) {
        Lanczos lanczos(std::cref(hessian), sign_vector(hessian.size(), seed, probe),
                        decided_by_root(communicator));
        while (lanczos.steps() < most && lanczos.step()) {
        }
        auto ritz = lanczos.ritz();
        result.smallest = std::min(result.smallest, ritz.values.front());
        result.largest = std::max(result.largest, ritz.values.back());
        result.nodes.push_back(std::move(ritz.values));
        result.weights.push_back(std::move(ritz.weights));
    }
    smooth(result, options);
    return result;
}

std::vector<double> hessian_product(const model::ModelGraph& graph, const model::Parameters& parameters,
                                    const data::SampleSet& samples, const std::vector<double>& v,
                                    core::Communicator& communicator) {
    const HessianOperator hessian(graph, parameters, samples, communicator);
    if (static_cast<std::int64_t>(v.size()) != hessian.size()) {
        throw core::UsageError("The Hessian of a model of " + std::to_string(hessian.size()) +
                               " parameters cannot be multiplied with a vector of " +
                               std::to_string(v.size()) + " numbers.");
    }
    const at::Tensor product = hessian(at::tensor(at::ArrayRef<double>(v), at::kDouble));
    const double* begin = product.data_ptr<double>();
    return {begin, begin + product.numel()};
}

}  // namespace thalweg::analysis
