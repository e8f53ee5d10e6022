#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "thalweg/aggregator/exchange.hpp"
#include "thalweg/aggregator/stage.hpp"

namespace thalweg::aggregator {

/// Fills `out` with the merged values of the coordinates [first, first + out.size()), which are either all trainable or
/// all running statistics. May throw; each coordinate must depend on its own values alone, so that it does not matter
/// which rank computes it.
using CoordinateRule =
    std::function<void(const UpdateSlices& slices, std::int64_t first, std::span<double> out)>;

/// A model made coordinate by coordinate: each rank computes a slice of the vector, all get the whole. Counters take the
/// maximum. Collective; the same bits on any number of ranks.
model::Parameters reduce_coordinates(const std::vector<Update>& updates, const FusionContext& context,
                                     const CoordinateRule& rule);

/// RunError that says whose value is not finite at coordinate `element`, and in which tensor. Call it when a result is not.
[[noreturn]] void refuse_coordinate(const FusionContext& context, const UpdateSlices& slices,
                                    std::int64_t element);

}  // namespace thalweg::aggregator
