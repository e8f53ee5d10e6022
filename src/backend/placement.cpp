#include <algorithm>
#include <functional>
#include <numeric>
#include <queue>
#include <stdexcept>

#include "thalweg/backend/backend.hpp"

namespace thalweg::backend {

std::vector<int> place(std::span<const std::int64_t> costs, int ranks) {
    if (ranks < 1) throw std::invalid_argument("place: ranks must be >= 1");
    std::vector<std::size_t> order(costs.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return costs[a] > costs[b]; });

    using Load = std::pair<std::int64_t, int>;  // compares by load, then rank
    std::priority_queue<Load, std::vector<Load>, std::greater<>> loads;
    for (int rank = 0; rank < ranks; ++rank) loads.emplace(0, rank);
    std::vector<int> owner(costs.size());
    for (const std::size_t item : order) {
        const auto [load, rank] = loads.top();
        loads.pop();
        owner[item] = rank;
        loads.emplace(load + costs[item], rank);
    }
    return owner;
}

}  // namespace thalweg::backend
