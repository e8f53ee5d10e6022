#pragma once

#include <array>
#include <cstddef>

namespace thalweg::clients {

/// Sum of term(i) for i in [0, n), in double, over eight lanes that are added in one fixed order: as exact as a plain
/// loop and the same bits on every machine, but without its chain of dependent additions.
template <class Term>
double lane_sum(std::size_t n, Term&& term) {
    constexpr std::size_t lanes = 8;
    std::array<double, lanes> sums{};
    std::size_t i = 0;
    for (; i + lanes <= n; i += lanes) {
        for (std::size_t lane = 0; lane < lanes; ++lane) sums[lane] += static_cast<double>(term(i + lane));
    }
    for (std::size_t lane = 0; i < n; ++i, ++lane) sums[lane] += static_cast<double>(term(i));
    return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

}  // namespace thalweg::clients
