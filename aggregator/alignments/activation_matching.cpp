#include <optional>

#include "activation_similarity.hpp"
#include "matching_support.hpp"
#include "thalweg/aggregator/matching.hpp"

namespace thalweg::aggregator {

MatchResult activation_matching(const model::ModelGraph& graph, const symmetry::Symmetries& symmetries,
                                const model::Parameters& a, const model::Parameters& b,
                                const data::SampleSet& samples, const ActivationMatchingOptions& options) {
    require_same_layout(graph, a, b);
    if (symmetries.groups.empty()) return {symmetry::identity(symmetries), 0.0, 1};
    std::optional<symmetry::Flips> flips;
    if (options.flips) flips.emplace(graph, symmetries);
    return assign_similar(symmetries, activation_similarity(graph, symmetries, a, b, samples, options.kernel),
                          flips ? &*flips : nullptr);
}

}  // namespace thalweg::aggregator
