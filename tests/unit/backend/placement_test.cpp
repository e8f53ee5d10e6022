#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "thalweg/backend/backend.hpp"
#include "thalweg/core/random.hpp"

namespace thalweg::backend::placement_test {
namespace {

std::vector<std::int64_t> loads(const std::vector<std::int64_t>& costs, const std::vector<int>& owner,
                                int ranks) {
    std::vector<std::int64_t> loads(static_cast<std::size_t>(ranks));
    for (std::size_t i = 0; i < costs.size(); ++i) loads[static_cast<std::size_t>(owner[i])] += costs[i];
    return loads;
}

std::int64_t makespan(const std::vector<std::int64_t>& costs, const std::vector<int>& owner, int ranks) {
    return std::ranges::max(loads(costs, owner, ranks));
}

/// Tries every placement.
std::int64_t best_makespan(const std::vector<std::int64_t>& costs, int ranks) {
    std::vector<int> owner(costs.size(), 0);
    std::int64_t best = std::numeric_limits<std::int64_t>::max();
    while (true) {
        best = std::min(best, makespan(costs, owner, ranks));
        std::size_t digit = 0;
        while (digit < owner.size() && ++owner[digit] == ranks) owner[digit++] = 0;
        if (digit == owner.size()) return best;
    }
}

TEST(Place, LargestFirstToTheLeastLoaded) {
    // By hand: 7 to rank 0, 6 to 1, 4 to 1 (10), the first 3 to 0 (10), the second 3 to 0 (a tie: the lower rank).
    EXPECT_EQ(place(std::vector<std::int64_t>{3, 7, 4, 6, 3}, 2), (std::vector<int>{0, 0, 1, 1, 0}));
}

TEST(Place, TiesGoToTheLowerIndexAndRank) {
    EXPECT_EQ(place(std::vector<std::int64_t>{2, 2, 2, 2}, 3), (std::vector<int>{0, 1, 2, 0}));
}

TEST(Place, FewerClientsThanRanksAndNone) {
    EXPECT_EQ(place(std::vector<std::int64_t>{5}, 4), (std::vector<int>{0}));
    EXPECT_TRUE(place(std::vector<std::int64_t>{}, 4).empty());
    EXPECT_EQ(place(std::vector<std::int64_t>{0, 0}, 1), (std::vector<int>{0, 0}));
}

TEST(Place, WithinFourThirdsOfTheBest) {
    core::Random random(3, "test");
    for (int trial = 0; trial < 200; ++trial) {
        const int ranks = 2 + static_cast<int>(random.below(2));
        std::vector<std::int64_t> costs(1 + static_cast<std::size_t>(random.below(8)));
        for (auto& cost : costs) cost = 1 + random.below(50);
        const auto owner = place(costs, ranks);
        const auto best = best_makespan(costs, ranks);
        // Graham's bound: 4/3 − 1/(3m) of the best.
        EXPECT_LE(3 * ranks * makespan(costs, owner, ranks), (4 * ranks - 1) * best);
    }
}

}  // namespace
}  // namespace thalweg::backend::placement_test
