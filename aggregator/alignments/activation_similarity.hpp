#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "thalweg/aggregator/matching.hpp"

namespace thalweg::aggregator {

/// How alike the channels of two models fire over `samples`: of every group [size, size], the rows A's channels, the columns
/// B's, in double; undefined for groups that no operation shows. RunError for fewer than 2 samples, or where there is no
/// memory for it.
std::vector<at::Tensor> activation_similarity(const model::ModelGraph& graph,
                                              const symmetry::Symmetries& symmetries,
                                              const model::Parameters& a, const model::Parameters& b,
                                              const data::SampleSet& samples,
                                              ActivationMatchingOptions::Kernel kernel);

/// One assignment for each group and each bond, the objective Σ of the similarities that are matched. Groups without any stay
/// as they are. `flips` may be null: no signs.
MatchResult assign_similar(const symmetry::Symmetries& symmetries, const std::vector<at::Tensor>& similarity,
                           const symmetry::Flips* flips);

}  // namespace thalweg::aggregator
