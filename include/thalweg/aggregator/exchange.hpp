#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "thalweg/aggregator/stage.hpp"
#include "thalweg/core/communicator.hpp"

namespace thalweg::aggregator {

/// The layout of a member's update.
std::shared_ptr<const model::Layout> layout_of(const Member& member, const FusionContext& context);

/// std::logic_error unless `updates` are exactly those of the context's members that this rank owns, in their order
/// (increasing client ids), with vectors and masks of their layouts' lengths, all the round's unless `any_width`. Not
/// collective.
void check_updates(const std::vector<Update>& updates, const FusionContext& context, bool any_width = false);

/// The part [first, second) of 0…size that `rank` of `ranks` works on.
std::pair<std::int64_t, std::int64_t> slice_of(std::int64_t size, int rank, int ranks);

/// Elements [first, first + out.size()) of a contiguous float32 or float64 vector, in double.
void load(const at::Tensor& values, std::int64_t first, std::span<double> out);

/// All updates of a round seen through one slice of their vectors: what a rank needs to work coordinate by coordinate
/// over all clients in client-id order, whatever the number of ranks.
///
/// Memory a rank: its own updates are read in place, and of the others its slice only (cohort × model ÷ ranks), masks
/// one byte an entry; while the exchange runs, the same again for what is sent.
class UpdateSlices {
  public:
    /// `size`: how much of the vectors is divided among the ranks: layout.trainable_size() or layout.size(). One
    /// exchange. Collective.
    UpdateSlices(const std::vector<Update>& updates, const FusionContext& context, std::int64_t size);

    std::int64_t begin() const { return begin_; }
    std::int64_t end() const { return end_; }
    /// Updates of the round; index k is the context's members[k].
    std::size_t count() const { return parts_.size(); }
    bool is_double() const { return is_double_; }
    bool has_masks() const { return has_masks_; }
    /// Elements [first, first + out.size()) of update k in double; within [begin(), end()).
    void load(std::size_t k, std::int64_t first, std::span<double> out) const;
    /// The mask of update k from element `first` on; nullptr: it has none. Within the trainable part of the slice.
    const std::uint8_t* mask(std::size_t k, std::int64_t first) const;

  private:
    struct Part {
        const std::byte* values = nullptr;  ///< of element begin_; not aligned
        const std::uint8_t* mask = nullptr;
    };
    core::Bytes pack(const std::vector<Update>& updates, std::pair<std::int64_t, std::int64_t> slice,
                     std::int64_t trainable) const;
    Part unpack(const std::byte*& position, std::int64_t trainable);

    std::int64_t begin_ = 0, end_ = 0;
    bool is_double_ = false;
    bool has_masks_ = false;
    std::vector<Part> parts_;
    std::vector<Update> own_;            ///< handles: keep the memory that parts_ points to
    std::vector<core::Bytes> received_;  ///< likewise
};

/// Calls `use(first, length)` for blocks of [begin, end) that are small enough for caches and never cross `border`.
void for_each_block(std::int64_t begin, std::int64_t end, std::int64_t border,
                    const std::function<void(std::int64_t first, std::int64_t length)>& use);
constexpr std::int64_t block_length = 2048;

/// A matrix of doubles with a row for each member, each filled by the member's owner (`compute(k, row)`, rows are zero
/// before). The same on every rank, any number of ranks. Collective; errors of `compute` are agreed on.
std::vector<double> gather_member_rows(
    core::Communicator& communicator, const std::vector<Member>& members, std::int64_t width,
    const std::function<void(std::size_t k, std::span<double> row)>& compute);

/// One model from rank `root` to all; `mine` counts on `root` only and is returned there as it is. `layout`: the model's,
/// where it is not the round's. Collective.
model::Parameters broadcast_parameters(const model::Parameters& mine, int root, const FusionContext& context,
                                       std::shared_ptr<const model::Layout> layout = nullptr);

}  // namespace thalweg::aggregator
