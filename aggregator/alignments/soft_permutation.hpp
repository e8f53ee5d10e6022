#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "thalweg/model/parameters.hpp"
#include "thalweg/symmetry/symmetry.hpp"

namespace thalweg::aggregator {

/// A matrix for each group, [size, size], in its order: row c says how much of each channel comes to place c. Permutations
/// are the corners; the methods that relax the matching (Frank–Wolfe, Sinkhorn) move inside.
using SoftPermutations = std::vector<at::Tensor>;

/// Models under soft permutations: every axis that a group acts on is multiplied by the group's matrix instead of being
/// indexed. Speaks of trainable entries only, as the matching objectives do.
///
/// The weight of a grouped convolution is the block diagonal of a dense one; it is multiplied as such and cut back to its
/// blocks. Where every matrix is a permutation that respects the blocks, nothing is cut off, and the result is
/// symmetry::permute's.
class SoftPermuter {
  public:
    SoftPermuter(const symmetry::Symmetries& symmetries, const model::Layout& layout);

    /// The trainable part [layout.trainable_size()] of the model under `matrices`, in the model's type.
    at::Tensor apply(const model::Parameters& model, const SoftPermutations& matrices) const;

    /// d⟨upstream, apply(model, M)⟩ ÷ dM at `matrices`, for every group. `upstream`: [layout.trainable_size()].
    SoftPermutations gradient(const model::Parameters& model, const SoftPermutations& matrices,
                              const at::Tensor& upstream) const;

    /// The largest number of axes of one entry that are multiplied: the degree of `apply` in the matrices.
    int degree() const { return degree_; }

  private:
    struct Axis {
        std::size_t group;
        std::int64_t axis;
        at::Tensor places;  ///< int64; undefined: the whole axis in its order
        std::int64_t each;
    };
    struct Acted {
        std::size_t entry;
        std::int64_t slabs = 0;  ///< of a grouped convolution; 0: dense as it is
        std::vector<Axis> axes;
    };

    at::Tensor dense(const at::Tensor& entry, const Acted& acted) const;
    at::Tensor compact(const at::Tensor& dense, const Acted& acted) const;
    static at::Tensor channels_of(const at::Tensor& tensor, const Axis& axis, std::int64_t size);
    at::Tensor multiplied(const at::Tensor& tensor, const Axis& axis, const at::Tensor& matrix) const;

    const symmetry::Symmetries& symmetries_;
    const model::Layout& layout_;
    std::vector<Acted> acted_;
    int degree_ = 0;
};

SoftPermutations as_matrices(const symmetry::Permutations& permutations, at::ScalarType type);

/// The permutations that maximise Σ_g ⟨P_g, gains_g⟩, blocks and bonds respected: the corner that a linear objective points
/// to. RunError as best_assignment.
symmetry::Permutations best_permutations(const symmetry::Symmetries& symmetries,
                                         const SoftPermutations& gains);

}  // namespace thalweg::aggregator
