#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "thalweg/data/dataset.hpp"
#include "thalweg/model/graph.hpp"

namespace thalweg::analysis {

/// Values `values` (ModelGraph::shapes' indexes; 0 is the input) of all samples, chunk by chunk in index order, in evaluation mode and
/// in double: `use(i, value)` gets values[i] of a chunk. `parameters` must be double. Stops after the last of them. Not
/// collective.
void for_values(const model::ModelGraph& graph, const model::Parameters& parameters,
                const data::SampleSet& samples, const std::vector<int>& values,
                const std::function<void(std::size_t, const at::Tensor&)>& use);

/// UsageError unless there are at least `least` samples of the graph's input shape.
void require_samples(const model::ModelGraph& graph, const data::SampleSet& samples, std::int64_t least);

}  // namespace thalweg::analysis
