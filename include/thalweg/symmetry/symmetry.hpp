#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "thalweg/core/random.hpp"
#include "thalweg/model/graph.hpp"
#include "thalweg/model/parameters.hpp"

namespace thalweg::symmetry {

/// π as a list of sources: position i of the permuted axis takes element permutation[i] of the original.
using Permutation = std::vector<std::int64_t>;
/// One permutation for each group of a Symmetries, in its order.
using Permutations = std::vector<Permutation>;

/// A place where a group acts: elements [offset, offset + size·block) of an axis of a tensor, `block` neighbours moving
/// together (a linear that follows a flattened convolution carries blocks of H·W).
struct AxisUse {
    std::size_t entry;  ///< index into Layout::entries()
    std::int64_t axis;
    std::int64_t offset = 0;
    std::int64_t block = 1;
};

/// Channels that may be permuted together without changing the function.
struct Group {
    std::string name;  ///< the module that produces the channels: `layers.0`
    std::int64_t size = 0;
    std::vector<AxisUse> uses;
    /// The operation whose output shows these channels last before they are consumed (after norm and activation, before
    /// pooling and flattening): where activation matching looks. Channels are axis 1 of its output.
    std::size_t activation = 0;
};

/// A tensor axis that must stay as it is, with the reason.
struct Frozen {
    std::size_t entry;
    std::int64_t axis;
    std::string reason;
};

/// The permutation symmetries of a graph.
struct Symmetries {
    std::vector<Group> groups;
    std::vector<Frozen> frozen;
    /// Share of the trainable elements that some group moves.
    double coverage = 0.0;
};

/// Reads the permutation groups off the graph by the rules of docs/algorithms.md: union-find over (tensor, axis)
/// classes in one walk. Input and output are frozen.
Symmetries derive(const model::ModelGraph& graph);

Permutations identity(const Symmetries& symmetries);
Permutations random_permutations(const Symmetries& symmetries, core::Random& random);
bool is_identity(const Permutation& permutation);
Permutation inverse(const Permutation& permutation);
/// The permutation that acts like `first`, then `second`: result[i] = first[second[i]].
Permutation compose(const Permutation& first, const Permutation& second);
/// Group by group: permute(permute(θ, first), second) = permute(θ, compose(first, second)).
Permutations compose(const Permutations& first, const Permutations& second);

/// π(θ): a new parameter vector that computes the same function. Buffers (running statistics) move with their channels.
model::Parameters permute(const model::Parameters& parameters, const Symmetries& symmetries,
                          const Permutations& permutations);

/// One entry with the permutations of all groups but `except` applied (pass groups.size() for "all").
at::Tensor permuted_entry(const model::Parameters& parameters, std::size_t entry,
                          const Symmetries& symmetries, const Permutations& permutations, std::size_t except);

}  // namespace thalweg::symmetry
