#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <utility>
#include <vector>

#include "thalweg/aggregator/update.hpp"
#include "thalweg/model/graph.hpp"
#include "thalweg/symmetry/assignment.hpp"
#include "thalweg/symmetry/symmetry.hpp"

namespace thalweg::aggregator {

/// std::logic_error unless both models have the graph's layout and one floating type.
void require_same_layout(const model::ModelGraph& graph, const model::Parameters& a,
                         const model::Parameters& b);

/// The assignment that maximises `gain` [n, n], float or double. RunError naming the group when the gain is not finite
/// (a model with a NaN, or with values whose products overflow).
symmetry::Permutation best_assignment(symmetry::AssignmentSolver& solver, const at::Tensor& gain,
                                      const std::string& group);

/// The best permutations of groups of one bond, which move their blocks alike: every pair of blocks is worth what the best
/// order of the channels inside gives, all groups together, and the blocks are assigned by that. `gains`: [size, size] of
/// each group. RunError as best_assignment.
std::vector<std::pair<std::size_t, symmetry::Permutation>> best_blocks(const symmetry::Symmetries& symmetries,
                                                                       const std::vector<std::size_t>& groups,
                                                                       const std::vector<at::Tensor>& gains);

/// The update in its new frame: its parameters permuted, and its mask with them.
void permute_update(Update& update, const symmetry::Symmetries& symmetries,
                    const symmetry::Permutations& permutations);

}  // namespace thalweg::aggregator
