#include "distances.hpp"

#include <torch/types.h>

#include <algorithm>

#include "thalweg/aggregator/exchange.hpp"
#include "thalweg/aggregator/matching.hpp"
#include "thalweg/core/interrupt.hpp"

namespace thalweg::aggregator {

std::vector<double> squared_distances(const std::vector<Update>& updates, const FusionContext& context) {
    auto& communicator = context.communicator;
    const auto& members = context.members;
    core::collectively(communicator, [&] { check_updates(updates, context); });
    const std::size_t count = members.size();
    std::vector<double> mine(updates.size() * count, 0.0);
    std::size_t next = 0;
    for (std::size_t j = 0; j < count; ++j) {
        const bool is_mine = members[j].owner == communicator.rank();
        const auto visitor = broadcast_parameters(is_mine ? updates[next++].parameters : model::Parameters(),
                                                  members[j].owner, context);
        core::collectively(communicator, [&] {
            core::check_interrupt();
            for (std::size_t u = 0; u < updates.size(); ++u) {
                const double length = distance(visitor, updates[u].parameters);
                mine[u * count + j] = length * length;
            }
        });
    }
    std::size_t row = 0;
    return gather_member_rows(communicator, members, static_cast<std::int64_t>(count),
                              [&](std::size_t, std::span<double> out) {
                                  const auto from = mine.begin() + static_cast<std::ptrdiff_t>(row++ * count);
                                  std::copy(from, from + static_cast<std::ptrdiff_t>(count), out.begin());
                              });
}

}  // namespace thalweg::aggregator
