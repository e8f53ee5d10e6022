#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "thalweg/aggregator/stage.hpp"
#include "thalweg/model/graph.hpp"
#include "thalweg/symmetry/assignment.hpp"
#include "thalweg/symmetry/flips.hpp"
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

/// The update in its new frame: its parameters moved, and what belongs to them: its mask, and the model it started from.
void move_update(Update& update, const FusionContext& context, const symmetry::Element& element);

/// One element a member, each computed by one rank (`compute(k)`), the same on every rank
/// afterwards. Collective; errors are agreed on.
std::vector<symmetry::Element> gather_elements(core::Communicator& communicator,
                                               const symmetry::Symmetries& symmetries, std::size_t count,
                                               const std::function<symmetry::Element(std::size_t)>& compute);

/// Moves this rank's updates, each by its member's element. Collective.
void move_updates(FusionState& state, const FusionContext& context,
                  const std::vector<symmetry::Element>& elements);

}  // namespace thalweg::aggregator
