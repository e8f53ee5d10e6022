#include "owners.hpp"

#include <numeric>
#include <string>

namespace thalweg::data {

Assignment assign(std::span<const std::uint32_t> pool, const Owners& owners, std::int64_t clients) {
    Assignment assignment;
    assignment.offsets.assign(static_cast<std::size_t>(clients) + 1, 0);
    for (const std::uint32_t owner : owners) {
        if (owner != nobody) ++assignment.offsets[owner + std::size_t{1}];
    }
    std::partial_sum(assignment.offsets.begin(), assignment.offsets.end(), assignment.offsets.begin());
    assignment.indices.resize(assignment.offsets.back());
    // offsets[c] walks from the begin of c to its end, the begin of c + 1; shifting by one restores it.
    for (std::size_t i = 0; i < pool.size(); ++i) {
        if (owners[i] != nobody) assignment.indices[assignment.offsets[owners[i]]++] = pool[i];
    }
    for (std::size_t c = assignment.offsets.size() - 1; c > 0; --c)
        assignment.offsets[c] = assignment.offsets[c - 1];
    assignment.offsets[0] = 0;
    return assignment;
}

ByLabel group_by_label(std::span<const std::uint8_t> labels, std::int64_t classes) {
    ByLabel groups{std::vector<std::uint32_t>(labels.size()),
                   std::vector<std::size_t>(static_cast<std::size_t>(classes) + 1, 0)};
    for (const std::uint8_t label : labels) ++groups.begin[label + std::size_t{1}];
    std::partial_sum(groups.begin.begin(), groups.begin.end(), groups.begin.begin());
    std::vector<std::size_t> next = groups.begin;
    for (std::size_t i = 0; i < labels.size(); ++i)
        groups.positions[next[labels[i]]++] = static_cast<std::uint32_t>(i);
    return groups;
}

core::Option clients_option() {
    return core::integer("clients", "number of clients").at_least(1).at_most(1000000);
}

void require_a_sample_each(const core::Value& options, std::size_t samples) {
    const std::int64_t clients = options["clients"].as_int();
    if (static_cast<std::uint64_t>(clients) <= samples) return;
    options["clients"].reject(
        std::to_string(clients) + " clients are more than the " + std::to_string(samples) +
        " samples there are to share (the training set less the hold-out); every client needs one");
}

}  // namespace thalweg::data
