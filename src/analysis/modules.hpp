#pragma once

#include <string>
#include <vector>

#include "thalweg/model/graph.hpp"

namespace thalweg::analysis {

/// An operation that has entries.
struct Module {
    std::string name;
    std::vector<std::size_t> entries;  ///< buffers included
};

/// In order; what several operations share belongs to the first of them.
std::vector<Module> modules(const model::ModelGraph& graph);

/// Entries that an operation names, buffers included, in increasing order.
std::vector<std::size_t> entries_of(const model::Operation& operation);

}  // namespace thalweg::analysis
