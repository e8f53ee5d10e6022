#include <torch/types.h>

#include <functional>
#include <utility>

#include "thalweg/aggregator/matching.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/schema.hpp"

namespace thalweg::aggregator {
namespace {

/// What `align` and `lmc` hand to any method.
struct Task {
    const model::ModelGraph& graph;
    const symmetry::Symmetries& symmetries;
    const model::Parameters& a;
    const model::Parameters& b;
    const data::SampleSet* samples;
    std::uint64_t seed;
    int restarts;
};

MatchResult by_weights(const Task& task) {
    core::Random random(task.seed, "align");
    WeightMatchingOptions options;
    options.restarts = task.restarts;
    return weight_matching(task.graph, task.symmetries, task.a, task.b, random, options);
}

MatchResult by_activations(const Task& task) {
    if (task.samples == nullptr) {
        throw core::UsageError(
            "activation_matching compares the models' activations on samples, and none are at hand; name a "
            "data set "
            "with --data, or use weight_matching, which needs none");
    }
    return activation_matching(task.graph, task.symmetries, task.a, task.b, *task.samples);
}

using Method = std::function<MatchResult(const Task&)>;
const std::vector<std::pair<std::string, Method>>& methods() {
    static const std::vector<std::pair<std::string, Method>> table{
        {"weight_matching", by_weights},
        {"activation_matching", by_activations},
    };
    return table;
}

}  // namespace

MatchResult align(const std::string& method, const model::ModelGraph& graph,
                  const symmetry::Symmetries& symmetries, const model::Parameters& a,
                  const model::Parameters& b, const data::SampleSet* samples, std::uint64_t seed,
                  int restarts) {
    for (const auto& [name, run] : methods()) {
        if (name == method) return run({graph, symmetries, a, b, samples, seed, restarts});
    }
    throw core::UsageError(core::unknown_name("alignment method", method, alignment_methods()));
}

std::vector<std::string> alignment_methods() {
    std::vector<std::string> names;
    for (const auto& method : methods()) names.push_back(method.first);
    return names;
}

}  // namespace thalweg::aggregator
