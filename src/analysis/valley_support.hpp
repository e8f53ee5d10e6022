#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "thalweg/analysis/valley.hpp"

namespace thalweg::analysis {

/// The elements that get noise: those of the part, with filter norm only of entries that have filters. UsageError when there
/// are none, or for options out of range.
std::vector<std::int64_t> noisy_places(const model::ModelGraph& graph, const ValleyOptions& options);

/// θ + length · direction ([layout.size()], double), in a tensor of its own.
model::Parameters moved(const model::Parameters& parameters, const at::Tensor& direction, double length);

}  // namespace thalweg::analysis
