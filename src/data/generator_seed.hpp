#pragma once

#include <cstdint>

#include "thalweg/core/schema.hpp"
#include "thalweg/data/dataset.hpp"

namespace thalweg::data {

/// Generated data follow the experiment's seed unless they have one of their own: the same data, other
/// initialisations.
inline core::Option generator_seed_option() {
    return core::integer("seed", "of the generated data (default: the experiment's)").at_least(0).optional();
}

inline std::uint64_t generator_seed(const core::Value& options, const DatasetContext& context) {
    return options.has("seed") ? static_cast<std::uint64_t>(options["seed"].as_int()) : context.seed;
}

}  // namespace thalweg::data
