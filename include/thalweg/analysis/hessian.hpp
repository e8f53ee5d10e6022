#pragma once

#include <cstdint>
#include <vector>

#include "thalweg/core/communicator.hpp"
#include "thalweg/data/dataset.hpp"
#include "thalweg/model/graph.hpp"

namespace thalweg::analysis {

// Curvature of the loss: the Hessian H of the mean cross-entropy over `samples`, in evaluation mode (dropout off, batch
// norms by their running statistics), with respect to the trainable entries. H is never formed: products H·v come from
// differentiating twice, in double, whatever type the model has. Chunks of samples are spread over the ranks and summed in index
// order: the same bits on any number of ranks. Every rank brings the same parameters; all calls are collective.
//
// Cost: a product is a pass forward and two backward over the samples, in double; Lanczos keeps `steps` vectors of the
// model's size in double on every rank.

struct LanczosOptions {
    std::int64_t steps = 0;  ///< products at most; 0: 4·k + 60. Never more than the model has parameters
    double tolerance =
        1e-6;  ///< stops when every wanted residual is at most this times the largest |eigenvalue|
};

struct HessianTop {
    std::vector<double> eigenvalues;  ///< the largest, descending
    std::vector<double> residuals;  ///< ‖Hv − λv‖ of each one's unit vector, from Lanczos' recurrence
    double smallest = 0;            ///< the lowest Ritz value: an upper bound of the lowest eigenvalue
    std::int64_t steps = 0;         ///< products that were taken
    bool converged = false;         ///< every residual is within the tolerance
    std::int64_t parameters = 0;    ///< H's size
};
/// The `k` largest eigenvalues (algebraically) by Lanczos' method with full reorthogonalisation, from a random start of
/// (`seed`, "lanczos"). An eigenvalue that H has several times may be found once only. UsageError for k < 1, k above the
/// number of parameters, or fewer steps than k. RunError for non-finite products. Collective.
HessianTop top_eigenvalues(const model::ModelGraph& graph, const model::Parameters& parameters,
                           const data::SampleSet& samples, std::int64_t k, const LanczosOptions& options,
                           std::uint64_t seed, core::Communicator& communicator);

struct Trace {
    double trace = 0;            ///< mean of zᵀHz over the probes
    double standard_error = 0;   ///< of that mean; NaN with one probe
    std::vector<double> probes;  ///< zᵀHz of each
    std::int64_t parameters = 0;
};
/// Hutchinson's estimate (1990) with `probes` ≥ 1 vectors of random signs, from (`seed`, "probe"). Collective.
Trace hutchinson_trace(const model::ModelGraph& graph, const model::Parameters& parameters,
                       const data::SampleSet& samples, std::int64_t probes, std::uint64_t seed,
                       core::Communicator& communicator);

struct DensityOptions {
    std::int64_t probes = 4;    ///< random starts
    std::int64_t steps = 40;    ///< of Lanczos from each
    std::int64_t points = 400;  ///< of the grid
    double width =
        0.01;  ///< the Gaussians' σ ÷ the range of the Ritz values (σ = 1 when that range is empty)
};
struct SpectralDensity {
    std::vector<double> grid,
        density;          ///< the density integrates to 1 over the grid (trapezoids), but for cut-off tails
    double sigma = 0;     ///< of the Gaussians, in eigenvalues' units
    double mean = 0;      ///< of the eigenvalues, by the quadrature: trace ÷ parameters
    double negative = 0;  ///< share of the eigenvalues below 0, by the quadrature
    double smallest = 0, largest = 0;  ///< Ritz values of all probes
    std::vector<std::vector<double>> nodes,
        weights;  ///< the quadrature of each probe: Ritz values, weights of sum 1
    std::int64_t parameters = 0;
};
/// The eigenvalues' density by stochastic Lanczos quadrature, smoothed by Gaussians on a grid that reaches four of their σ
/// beyond the Ritz values (Ghorbani, Krishnan & Xiao, ICML 2019; Yao et al., *PyHessian*, 2020). The starts are unit vectors of random signs,
/// those of hutchinson_trace with this seed. UsageError for options out of range. Collective.
SpectralDensity spectral_density(const model::ModelGraph& graph, const model::Parameters& parameters,
                                 const data::SampleSet& samples, const DensityOptions& options,
                                 std::uint64_t seed, core::Communicator& communicator);

/// One product H·v, in layout order; `v` has layout.trainable_size() elements. Collective.
std::vector<double> hessian_product(const model::ModelGraph& graph, const model::Parameters& parameters,
                                    const data::SampleSet& samples, const std::vector<double>& v,
                                    core::Communicator& communicator);

}  // namespace thalweg::analysis
