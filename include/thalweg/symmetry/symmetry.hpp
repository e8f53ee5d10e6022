#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
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

/// Where a group acts on an axis of a tensor: channel c stands at the places [c·each, (c + 1)·each) of the list, which move
/// together (a linear that follows a flattened convolution has `each` = H·W).
///
/// `slabs` > 0: the weight of a grouped convolution. Its axis 0 is cut into so many slabs, and `axis` shows other channels
/// in each: those of the group's block b stand in slab slab_of[b], and places[c] is where in its slab channel c stands.
struct AxisUse {
    std::size_t entry;  ///< index into Layout::entries()
    std::int64_t axis;
    std::vector<std::int64_t> places;
    std::int64_t each = 1;
    std::int64_t slabs = 0;
    std::vector<std::int64_t> slab_of{};

    /// The first place, when the places are neighbours in order.
    std::optional<std::int64_t> run() const;
};

/// Channels that may be permuted together without changing the function.
struct Group {
    std::string name;  ///< the module that produces the channels: `layers.0`
    std::int64_t size = 0;
    std::vector<AxisUse> uses;
    /// Blocks of size ÷ blocks neighbouring channels (heads, groups of a convolution or a norm) that stay together:
    /// inside a block channels move freely, and blocks move as wholes. 1: no such bounds.
    std::int64_t blocks = 1;
    /// Groups of one bond (≥ 0) have as many blocks, and move them alike: the queries and values of an attention.
    int bond = -1;
    /// The operation whose output shows these channels last before they are consumed (after norm and activation, before
    /// pooling and flattening): where activation matching looks. Where on axis `axis` says `places`. No operation
    /// shows them all: `none`.
    struct Sight {
        static constexpr std::size_t none = static_cast<std::size_t>(-1);
        std::size_t operation = none;
        std::int64_t axis = 1;
        std::vector<std::int64_t> places;
        std::int64_t each = 1;  ///< places of a channel, as in AxisUse
    } sight;
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
    /// Channels between the model's input and output, and how many of them are in a group.
    std::int64_t hidden_channels = 0, covered_channels = 0;
};

/// Reads the permutation groups off the graph by the rules of docs/algorithms.md: union-find over (tensor, axis)
/// classes in one walk. Input and output are frozen.
Symmetries derive(const model::ModelGraph& graph);

Permutations identity(const Symmetries& symmetries);
/// A random element of every group, blocks and bonds respected.
Permutations random_permutations(const Symmetries& symmetries, core::Random& random);
/// True when the permutation moves the group's blocks as wholes.
bool respects_blocks(const Group& group, const Permutation& permutation);
bool is_identity(const Permutation& permutation);
Permutation inverse(const Permutation& permutation);
/// The permutation that acts like `first`, then `second`: result[i] = first[second[i]].
Permutation compose(const Permutation& first, const Permutation& second);
/// Group by group: permute(permute(θ, first), second) = permute(θ, compose(first, second)).
Permutations compose(const Permutations& first, const Permutations& second);

/// π(θ): a new parameter vector that computes the same function. Buffers (running statistics) move with their channels.
model::Parameters permute(const model::Parameters& parameters, const Symmetries& symmetries,
                          const Permutations& permutations);

/// One entry with the permutations of all groups but `except` applied; `except_axis` ≥ 0: of those, too, but on that axis.
at::Tensor permuted_entry(const model::Parameters& parameters, std::size_t entry,
                          const Symmetries& symmetries, const Permutations& permutations,
                          const std::vector<std::size_t>& except, std::int64_t except_axis = -1);

/// The largest error that a proof takes for rounding.
inline constexpr double rounding = 1e-9;

/// What a proof by random elements found.
struct Proof {
    double max_error = 0;  ///< ‖f(π(θ)) − f(θ)‖∞ over all draws, in double, relative to max(1, ‖f(θ)‖∞)
    /// The same of elements that are wrong on purpose, the first or the last tensor of a group left out: of the group
    /// that shows it least, in the first draw that shows it at all. A proof is worth as much as this is larger than
    /// max_error. Infinite where no group acts on two tensors.
    double control = std::numeric_limits<double>::infinity();
    int draws = 0;              ///< random elements, every group moved in each
    std::int64_t elements = 0;  ///< of the parameter vector that a draw moved, at least
};

/// Proves the symmetries on the spot: random parameters (running statistics and norms, too), random inputs, random
/// elements of every group at once and of one group at a time; the model's function must not change. Evaluation mode, in
/// double. An error above `rounding` is a wrong group. RunError when the model's outputs are not finite, on random
/// parameters and on those an imported one starts from, so that nothing can be proved. Not collective.
Proof verify(const model::ModelGraph& graph, const Symmetries& symmetries, core::Random& random,
             int draws = 3);

/// Asked before models are aligned: moves all groups at once, as verify() does, for two forward passes in double.
/// RunError unless the function stays (to `rounding`). Not collective.
void require_proof(const model::ModelGraph& graph, const Symmetries& symmetries);

/// Parameters for proofs, in double: the graph's initial weights, which keep deep models well-conditioned, with all other
/// entries, and weights that start at a constant, drawn at random, so that nothing is alike or zero.
model::Parameters random_parameters(const model::ModelGraph& graph, core::Random& random);
/// Inputs [count, input shape…] in double: normal numbers, or symbols where the graph begins with an embedding.
at::Tensor random_inputs(const model::ModelGraph& graph, std::int64_t count, core::Random& random);

}  // namespace thalweg::symmetry
