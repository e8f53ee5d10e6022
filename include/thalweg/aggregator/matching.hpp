#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "thalweg/core/random.hpp"
#include "thalweg/data/dataset.hpp"
#include "thalweg/model/graph.hpp"
#include "thalweg/symmetry/symmetry.hpp"

namespace thalweg::aggregator {

/// Result of bringing B into A's basin.
struct MatchResult {
    symmetry::Permutations permutations;  ///< apply to B
    double objective = 0;  ///< weight matching: ⟨A, π(B)⟩ over trainable entries; activation: Σ correlation
    int sweeps = 0;
    int starts = 1;  ///< of weight matching; the others found nothing better
};

struct WeightMatchingOptions {
    int max_sweeps = 100;
    double tolerance = 1e-12;  ///< a group must gain more than this (relative to the objective's scale)
    int restarts = 1;  ///< runs in all: the first starts at the identity, the others at random permutations
    double enough =
        std::numeric_limits<double>::infinity();  ///< no more starts once the objective reaches this
};

/// Weight matching (Ainsworth, Hayase & Srinivasa, Git Re-Basin, ICLR 2023, algorithm 1): coordinate descent over groups
/// in random order on ⟨A, π(B)⟩. Only trainable entries count.
MatchResult weight_matching(const model::ModelGraph& graph, const symmetry::Symmetries& symmetries,
                            const model::Parameters& a, const model::Parameters& b, core::Random& random,
                            const WeightMatchingOptions& options = {});

/// Activation matching (Li et al. 2015; Jordan et al., REPAIR, ICLR 2023): one assignment a group on the Pearson
/// correlation of post-activation channels over `samples`.
MatchResult activation_matching(const model::ModelGraph& graph, const symmetry::Symmetries& symmetries,
                                const model::Parameters& a, const model::Parameters& b,
                                const data::SampleSet& samples);

/// Merge-many (Git Re-Basin, appendix; algorithm 3): repeat over models in random order: align model i to the weighted
/// mean of the others, until the mean stops moving. Returns one set of permutations a model.
std::vector<symmetry::Permutations> merge_many(const model::ModelGraph& graph,
                                               const symmetry::Symmetries& symmetries,
                                               const std::vector<model::Parameters>& models,
                                               const std::vector<double>& weights, core::Random& random,
                                               int max_iterations = 100);

/// ⟨A, B⟩ and ‖A − B‖ over trainable entries, in double.
double inner_product(const model::Parameters& a, const model::Parameters& b);
double distance(const model::Parameters& a, const model::Parameters& b);

/// Aligns one model to another by method name (`weight_matching`, `activation_matching`), for `align` and `lmc`.
/// `samples` may be null for methods that need none; UsageError otherwise. Valid names: `alignment_methods()`.
MatchResult align(const std::string& method, const model::ModelGraph& graph,
                  const symmetry::Symmetries& symmetries, const model::Parameters& a,
                  const model::Parameters& b, const data::SampleSet* samples, std::uint64_t seed,
                  int restarts);
std::vector<std::string> alignment_methods();

}  // namespace thalweg::aggregator
