#include <algorithm>
#include <utility>

#include "matching_stage.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/schema.hpp"

namespace thalweg::aggregator {
namespace {

/// The stage, or nullptr when it is no matching stage.
std::unique_ptr<MatchingStage> as_matching(std::unique_ptr<Stage> stage) {
    auto* matching = dynamic_cast<MatchingStage*>(stage.get());
    if (matching != nullptr) stage.release();
    return std::unique_ptr<MatchingStage>(matching);
}

std::unique_ptr<MatchingStage> matching_stage(const std::string& method, int restarts) {
    const auto valid = alignment_methods();
    const std::string name = method.substr(0, method.find('('));
    if (std::find(valid.begin(), valid.end(), name) == valid.end())
        throw core::UsageError(core::unknown_name("alignment method", name, valid));
    core::Value options = parse_stage(method);
    if (restarts > 1) {
        if (!options.has("restarts")) {
            throw core::UsageError("--restarts has no effect with " + name +
                                   ", which does not start anew; leave it out, or use weight_matching");
        }
        if (options["restarts"].as_int() == 1)
            options.set("restarts", core::Value::of(std::int64_t{restarts}));
    }
    return as_matching(core::Registry<std::unique_ptr<Stage>>::make(options));
}

}  // namespace

MatchResult align(const std::string& method, const MatchTask& task, std::uint64_t seed, int restarts) {
    const auto stage = matching_stage(method, restarts);
    const auto traits = stage->traits();
    const std::int64_t samples = task.samples == nullptr ? 0 : task.samples->size();
    if (traits.needs_holdout && samples < traits.min_holdout) {
        throw core::UsageError(method + " looks at samples, at least " + std::to_string(traits.min_holdout) +
                               ", and there are " + std::to_string(samples) +
                               "; name a data set with --data, or use weight_matching, which needs none");
    }
    core::Random random(seed, "align");
    return stage->match(task, random);
}

void require_alignment_method(const std::string& method) {
    matching_stage(method, 1);
}

std::vector<std::string> alignment_methods() {
    std::vector<std::string> names;
    for (const auto& plugin : core::plugins_of("stage")) {
        auto stage = core::Registry<std::unique_ptr<Stage>>::make(core::example_options(plugin));
        if (as_matching(std::move(stage))) names.push_back(plugin.name);
    }
    return names;
}

}  // namespace thalweg::aggregator
