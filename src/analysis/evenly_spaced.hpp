#pragma once

#include <cstdint>
#include <vector>

namespace thalweg::analysis {

/// `count` ≥ 2 numbers from `low` to `high`, both exactly.
inline std::vector<double> evenly_spaced(double low, double high, std::int64_t count) {
    std::vector<double> values;
    for (std::int64_t i = 0; i < count; ++i)
        values.push_back(low + (high - low) * static_cast<double>(i) / static_cast<double>(count - 1));
    values.back() = high;  // whatever the sum rounds to
    return values;
}

}  // namespace thalweg::analysis
