#include "thalweg/federation/measure.hpp"

#include <algorithm>

namespace thalweg::federation {

std::vector<std::pair<std::size_t, std::size_t>> sample_pairs(const aggregator::FusionContext& context,
                                                              std::int64_t count) {
    const auto n = static_cast<std::int64_t>(context.members.size());
    const std::int64_t all = n * (n - 1) / 2;
    core::Random random(context.seed, "pairs", context.round);
    std::vector<std::pair<std::size_t, std::size_t>> pairs;
    // Pair number p counts the upper triangle row by row.
    for (auto p : random.sample(all, std::min(count, all))) {
        std::int64_t row = 0;
        while (p >= n - 1 - row) p -= n - 1 - row++;
        pairs.emplace_back(row, row + 1 + p);
    }
    return pairs;
}

aggregator::Update fetch_update(std::size_t member, const aggregator::FusionState& state,
                                const aggregator::FusionContext& context) {
    const auto& wanted = context.members[member];
    aggregator::Update update{.client = wanted.client, .samples = wanted.samples};
    const auto mine = std::find_if(state.updates.begin(), state.updates.end(),
                                   [&](const auto& candidate) { return candidate.client == wanted.client; });
    update.parameters =
        mine != state.updates.end() ? mine->parameters : model::Parameters(context.graph.layout);
    for (const auto& tensor : {update.parameters.values, update.parameters.counters}) {
        if (!tensor.defined() || tensor.numel() == 0) continue;
        context.communicator.broadcast(std::span(static_cast<std::byte*>(tensor.data_ptr()), tensor.nbytes()),
                                       wanted.owner);
    }
    return update;
}

}  // namespace thalweg::federation
