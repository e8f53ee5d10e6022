#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "thalweg/aggregator/stage.hpp"
#include "thalweg/analysis/evaluate.hpp"
#include "thalweg/core/communicator.hpp"
#include "thalweg/federation/experiment.hpp"

namespace thalweg::federation {

struct CompareOptions {
    std::vector<std::string> pipelines;  ///< in the short form, `weight_matching+mean+repair`
    std::int64_t seeds = 1;              ///< the experiment's seed and those after it
    /// Whose fused model the next round starts from: a pipeline's number, or −1: each pipeline goes on from its own (and
    /// the clients are then trained once for each).
    std::int64_t follow = 0;
    std::int64_t barrier_pairs = 3;  ///< client pairs the barrier is measured on; 0: it is not
    bool progress = true;
    /// Called on every rank after each seed with all that is known so far, so that what comes later can lose nothing of it.
    std::function<void(const struct Comparison&)> after_seed{};
};

/// What one pipeline made of one round's updates.
struct CompareRow {
    std::uint64_t seed = 0;
    std::int64_t round = 0;
    std::int64_t pipeline = 0;
    /// Of the fused model on the test set; where each pipeline goes its own way, of what the server optimizer makes of it.
    double accuracy = 0, loss = 0;
    double barrier =
        0;  ///< mean error barrier between client pairs after the alignments, on test samples; NaN: none
    double variance_ratio =
        0;  ///< mean over layers after the reduction, before finishers; NaN: there is no hold-out
    double seconds = 0;  ///< of the pipeline on one rank
    std::string error;   ///< why it could not be run on these models; then the numbers are NaN
};

/// The clients' models themselves.
struct CompareMarks {
    std::uint64_t seed = 0;
    std::int64_t round = 0;
    std::int64_t pipeline = 0;      ///< that the clients started from (in round 1 all start alike)
    std::vector<double> clients;    ///< test accuracy of each alone
    analysis::Evaluation ensemble;  ///< of their mean logits: an upper mark
};

struct Comparison {
    std::vector<CompareRow> rows;     ///< by seed, round, pipeline
    std::vector<CompareMarks> marks;  ///< by seed, round, pipeline
};

/// Trains every round's cohort once (a trajectory; with `follow` −1 from round 2 on one for each pipeline) and applies all
/// pipelines to the same updates. Pipelines are spread over ranks, one rank a pipeline, which then holds the whole cohort;
/// the numbers but `seconds` do not depend on the ranks. A pipeline that fails leaves a row that says why, and the others go
/// on, unless the next round was to start from it. UsageError for a pipeline that cannot be read or needs what the
/// experiment has not. Collective; the same on every rank.
Comparison compare(const Experiment& experiment, const CompareOptions& options,
                   core::Communicator& communicator);

/// Mean and standard error of those values that are numbers, and how many they are; NaN: not known.
struct Spread {
    double mean = 0, error = 0;
    std::int64_t count = 0;
};
Spread spread_of(const std::vector<double>& values);

/// Mean of paired differences with its interval of 95% (Student's t); of one pair without an interval (NaN). Pairs with a
/// NaN are left out.
struct PairedDifference {
    double mean = 0, low = 0, high = 0;
};
PairedDifference paired_difference(const std::vector<double>& values, const std::vector<double>& reference);

}  // namespace thalweg::federation
