#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "thalweg/federation/measure.hpp"

namespace thalweg::federation {

/// The first `count` test samples, or all.
inline data::Subset first_test_samples(const RoundView& view, std::int64_t count) {
    const auto test = view.data.test();
    std::vector<std::uint32_t> first(static_cast<std::size_t>(std::min(count, test->size())));
    for (std::size_t i = 0; i < first.size(); ++i) first[i] = static_cast<std::uint32_t>(i);
    return {test, std::move(first)};
}

}  // namespace thalweg::federation
