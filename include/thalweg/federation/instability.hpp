#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "thalweg/analysis/measures.hpp"
#include "thalweg/core/communicator.hpp"
#include "thalweg/federation/experiment.hpp"

namespace thalweg::federation {

struct InstabilityOptions {
    std::int64_t points = 11;     ///< on the line between the two copies, ≥ 3
    std::int64_t repeats = 1;     ///< other orders for each step
    double stable_below = 0.02;   ///< error barrier on the test set, as a fraction
    std::string finish = "none";  ///< at every point between the copies, as analysis::CurveOptions
    std::shared_ptr<const data::SampleSet>
        calibration{};  ///< what a finish looks at; may be null without one
};

/// Of one step k.
struct Instability {
    std::int64_t step = 0;
    std::vector<analysis::Curve> curves;         ///< one a repeat: `train` and `test`
    double train_barrier = 0, test_barrier = 0;  ///< error barriers, mean over repeats
    double loss_barrier = 0;                     ///< on the test set
    bool stable = false;                         ///< test_barrier < stable_below
};

struct InstabilityResult {
    std::int64_t last = 0;  ///< optimizer steps of the whole training; a fork there changes nothing
    std::vector<Instability> steps;
};

/// Instability to SGD noise (Frankle, Dziugaite, Roy & Carbin, ICML 2020): two copies of one training that see the same
/// batches until step k and, from there on, batches in different orders; the error barrier between where they end. One model
/// on the whole training set, as `thalweg train` makes it. One copy is the training as configured, the same for every k (the
/// source trains two for each); the other goes on, from k, in an order of (`seed`, "instability", repeat). The learning
/// rate's schedule goes on. Trainings are spread over the ranks. UsageError for no steps, a step below 0 or above `last`, or a
/// data set without a training set as a whole. Collective. `progress`: the fraction done of this rank's trainings.
InstabilityResult instability(const Experiment& experiment, const Setting& setting,
                              const std::vector<std::int64_t>& steps, const InstabilityOptions& options,
                              core::Communicator& communicator,
                              const std::function<void(double)>& progress = {});

}  // namespace thalweg::federation
