#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "thalweg/model/graph.hpp"
#include "thalweg/model/parameters.hpp"
#include "thalweg/symmetry/symmetry.hpp"

namespace thalweg::aggregator {

/// Two architectures that differ in nothing but how many channels their groups have: the same operations, entries and groups
/// in the same order. What transport fusion and matched averaging carry models across.
class Widths {
  public:
    /// `to` may be the same architecture. RunError that names the first difference which is not a width, a group in
    /// blocks (heads) of two widths, or one that runs through a grouped convolution.
    Widths(const model::ModelGraph& from, const symmetry::Symmetries& from_groups,
           const model::ModelGraph& to, const symmetry::Symmetries& to_groups);

    /// How a group's channels are carried: `made`, [to, from], for what makes them (rows of weights, biases, norms), and
    /// `read`, [to, from], for what reads them. Undefined: the group stays as it is, which needs one width.
    struct Plan {
        at::Tensor made, read;
    };
    /// An entry of `from` carried along all axes, of `to`'s shape, in double; `except`: a group that is not carried where its
    /// channels are made.
    at::Tensor carried(const at::Tensor& entry, std::size_t index, const std::vector<Plan>& plans,
                       std::size_t except = static_cast<std::size_t>(-1)) const;
    /// All entries, running statistics too; counters as they are.
    model::Parameters carried(const model::Parameters& model, const std::vector<Plan>& plans) const;

    /// True where an axis of an entry is read by its operation: a linear's or convolution's inputs, an LSTM's.
    bool reads(std::size_t entry, std::int64_t axis) const;
    const symmetry::Symmetries& from_groups() const { return from_groups_; }
    const symmetry::Symmetries& to_groups() const { return to_groups_; }
    /// The groups in the order in which their channels are first made.
    std::vector<std::size_t> order() const;
    /// Where a group's channels are made: rows [channels, …] of every trainable entry whose reading axes' groups are
    /// in `known`, one row a channel, next to each other. `model` of `from` (with plans of the known groups) or of `to` (plans
    /// empty). In double; undefined when there is none.
    at::Tensor features_of_from(const model::Parameters& model, std::size_t group,
                                const std::vector<Plan>& plans, const std::vector<bool>& known) const;
    at::Tensor features_of_to(const model::Parameters& model, std::size_t group,
                              const std::vector<bool>& known) const;

  private:
    struct Use {
        std::size_t group;
        std::int64_t axis;
        at::Tensor from_places, to_places;
        std::int64_t each;
    };
    void require_alike(const model::ModelGraph& from, const model::ModelGraph& to) const;
    std::vector<std::size_t> feature_entries(std::size_t group, const std::vector<bool>& known) const;

    const symmetry::Symmetries& from_groups_;
    const symmetry::Symmetries& to_groups_;
    const model::ModelGraph& to_;
    std::vector<std::vector<Use>> uses_;              ///< by entry
    std::vector<std::vector<std::int64_t>> reading_;  ///< by entry, the axes that are read
    std::vector<std::size_t> first_made_;             ///< by group, the operation
};

}  // namespace thalweg::aggregator
