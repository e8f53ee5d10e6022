#pragma once

#include <cstdint>
#include <vector>

#include "thalweg/analysis/evaluate.hpp"
#include "thalweg/core/communicator.hpp"
#include "thalweg/data/dataset.hpp"
#include "thalweg/model/graph.hpp"

namespace thalweg::analysis {

/// Error under noise of one strength.
struct LocalEnergyPoint {
    double sigma = 0;
    double energy = 0;           ///< mean error under noise − error without
    double standard_error = 0;   ///< of the mean over repeats; NaN with one
    double loss_rise = 0;        ///< the same of the loss
    std::vector<double> errors;  ///< 1 − accuracy, one a repeat
};
struct LocalEnergy {
    Evaluation at;  ///< the model itself
    std::vector<LocalEnergyPoint> points;
};

/// Local energy (Pittorino et al., *Deep Networks on Toroids*, ICML 2022): how much the error of a model rises, on average,
/// when each trainable entry θ becomes θ·(1 + σz), z standard normal; low where the minimum is flat. Repeat r draws one z,
/// from (`seed`, "local energy", r), for all σ, so that the curve over σ is smooth. Buffers of batch norms stay. At σ = 0 the
/// energy is 0 exactly. (σ, repeat) are spread over the ranks; the same bits on any number. UsageError when a σ is negative
/// or not finite, there is none, or `repeats` < 1. Collective.
LocalEnergy local_energy(const model::ModelGraph& graph, const model::Parameters& parameters,
                         const data::SampleSet& samples, const std::vector<double>& sigmas,
                         std::int64_t repeats, std::uint64_t seed, core::Communicator& communicator);

}  // namespace thalweg::analysis
