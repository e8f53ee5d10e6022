#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "thalweg/core/communicator.hpp"
#include "thalweg/model/parameters.hpp"
#include "thalweg/symmetry/symmetry.hpp"

namespace thalweg::aggregator {

/// Places as an index tensor.
at::Tensor index_of(const std::vector<std::int64_t>& places);

/// The places where a group acts on an entry, channel by channel: [size, everything else].
at::Tensor unfold(const at::Tensor& entry, const symmetry::AxisUse& use, std::int64_t size);

/// gain += Σ aᵀb over pairs of [size, rest]. With a communicator each rank multiplies its share of the rows, in fixed blocks,
/// because a product of other rows at once may have other bits; collective then.
struct GainTerm {
    at::Tensor a, b;
};
void add_products(const at::Tensor& gain, const std::vector<GainTerm>& terms,
                  core::Communicator* communicator);

/// The channels that stand elsewhere, or are turned, once a group has gone from one permutation to another.
struct ChannelMoves {
    std::vector<std::int64_t> places, before, after;  ///< before, after: which channel of B stands there
    std::vector<double> signs;                        ///< of the channels after

    /// `signs`: by place; empty: none.
    ChannelMoves(const symmetry::Permutation& from, const symmetry::Permutation& to,
                 const std::vector<double>& signs);
};
/// What these moves gain, in double: Σ ⟨a, s · b after − b before⟩ over the terms.
double improvement(const std::vector<GainTerm>& terms, const ChannelMoves& moves);

/// ⟨channel i of A, channel j of B⟩ over all tensors that a group acts on, kept from visit to visit. When only some channels
/// of the neighbouring groups have moved since, only their share of the products is computed anew: towards the end of a
/// descent that is a few per cent. What rounding this adds is that of one longer sum.
class KeptGains {
  public:
    /// True when the group's gains can be kept: one block, and every tensor has it on one axis and others on at most one
    /// other, none of them in slabs.
    static bool can_keep(const symmetry::Symmetries& symmetries, std::size_t group,
                         const std::vector<symmetry::AxisUse>& uses);

    /// `uses`: of the group, on the entries that count. `cosine`: channels count as if of length 1.
    KeptGains(const symmetry::Symmetries& symmetries, const model::Parameters& a, std::size_t group,
              const std::vector<symmetry::AxisUse>& uses, bool cosine);

    /// The gains [size, size] while the other groups stand as `permutations` say. Collective with a communicator.
    at::Tensor at(const model::Parameters& b, const symmetry::Permutations& permutations,
                  core::Communicator* communicator);
    /// What the objective gains by these moves, in double, at the permutations of the last `at`.
    double improvement(const model::Parameters& b, const ChannelMoves& moves) const;
    /// B is another one now.
    void forget();

  private:
    struct Neighbour {
        std::size_t group;
        symmetry::AxisUse use;
    };
    struct Tensor {
        symmetry::AxisUse use;
        std::int64_t other_axis = -1;  ///< −1: no other group acts on it
        std::vector<Neighbour> neighbours;
        std::vector<std::int64_t> source;  ///< along other_axis, at the last visit
    };
    std::vector<std::int64_t> source_of(const Tensor& tensor, std::int64_t length,
                                        const symmetry::Permutations& permutations) const;
    void measure_lengths(const model::Parameters& b);

    const model::Parameters a_;
    std::int64_t size_;
    bool cosine_;
    std::vector<Tensor> tensors_;
    at::Tensor gain_;
    at::Tensor factor_a_, factor_b_;  ///< 1 ÷ length of each channel, for the cosine
};

}  // namespace thalweg::aggregator
