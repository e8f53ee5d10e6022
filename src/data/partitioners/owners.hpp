#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "thalweg/core/schema.hpp"
#include "thalweg/data/partition.hpp"

namespace thalweg::data {

/// What the partitioners decide: owners[i] is the client that gets pool[i].
using Owners = std::vector<std::uint32_t>;
constexpr std::uint32_t nobody = std::numeric_limits<std::uint32_t>::max();

/// Sorts the pool by owner in O(samples + clients). A client's samples keep the pool's order: ascending, so
/// that a pass over a client walks forward through memory (training shuffles for itself).
Assignment assign(std::span<const std::uint32_t> pool, const Owners& owners, std::int64_t clients);

/// Positions of the pool by label: those of label c are positions[begin[c]…begin[c+1]), ascending.
struct ByLabel {
    std::vector<std::uint32_t> positions;
    std::vector<std::size_t> begin;

    std::span<const std::uint32_t> of(std::size_t label) const {
        return {positions.data() + begin[label], begin[label + 1] - begin[label]};
    }
    std::span<std::uint32_t> of(std::size_t label) {
        return {positions.data() + begin[label], begin[label + 1] - begin[label]};
    }
};
ByLabel group_by_label(std::span<const std::uint8_t> labels, std::int64_t classes);

/// The option every scheme has.
core::Option clients_option();

/// UsageError at `clients` when there are more clients than samples.
void require_a_sample_each(const core::Value& options, std::size_t samples);

}  // namespace thalweg::data
