#include <utility>

#include "thalweg/aggregator/stage.hpp"
#include "thalweg/core/text.hpp"

namespace thalweg::aggregator {

namespace {

std::string kind_text(const StageTraits& traits) {
    if (traits.plays_clients) return "plays what happens at the clients, before the server sees the updates";
    switch (traits.kind) {
        case StageKind::per_update:
            return "treats every update by itself, on its rank";
        case StageKind::cross_update:
            return "looks at all updates at once";
        case StageKind::reduction:
            return "reduction: makes one model of them";
        case StageKind::finisher:
            return "finisher: mends the merged model";
    }
    return {};
}

std::string needs_text(const StageTraits& traits) {
    std::vector<std::string> needs;
    if (traits.needs_anchor) needs.emplace_back("an anchor");
    if (traits.needs_start) needs.emplace_back("the models the trainings started from");
    if (traits.needs_base) needs.emplace_back("a base, the previous global model");
    if (traits.needs_holdout) {
        needs.emplace_back(traits.min_holdout > 1
                               ? std::to_string(traits.min_holdout) + " samples of the server's"
                               : "samples of the server's");
    }
    if (traits.needs_clients) needs.emplace_back("statistics from the clients");
    if (traits.needs_homogeneous) needs.emplace_back("positively homogeneous nets (ReLU)");
    if (traits.needs_linear) needs.emplace_back("a reduction that is the weighted mean of the updates");
    if (traits.needs_global_frame) needs.emplace_back("updates in the previous global model's frame");
    return needs.empty() ? "nothing beside the models" : core::join(needs);
}

std::string keeps_text(const StageTraits& traits) {
    if (traits.kind == StageKind::reduction || traits.kind == StageKind::finisher) {
        return traits.fixed_point ? "identical models come out as they were"
                                  : "identical models need not stay";
    }
    const std::string function = traits.keeps_function   ? "every model's function"
                                 : traits.keeps_decision ? "every model's arg-max, not its logits"
                                                         : "not the models' functions";
    return "keeps " + function +
           (traits.changes_frame ? "; may leave the previous global model's frame" : "");
}

/// What not every stage has to say.
std::vector<std::string> remarks(const StageTraits& traits) {
    std::vector<std::string> lines;
    if (traits.upper_mark) lines.emplace_back("an upper mark, not a merging method");
    if (traits.takes_any_width) lines.emplace_back("takes models of other widths, and brings them to one");
    if (traits.grows) lines.emplace_back("the fused model may have more channels than the round's");
    if (traits.sets_mask) lines.emplace_back("sets masks, which the reduction must be able to use");
    if (traits.uses_mask && traits.kind == StageKind::reduction) lines.emplace_back("uses masks");
    if (traits.folds_norms)
        lines.emplace_back("folds batch norms away; nothing after it may take their statistics anew");
    return lines;
}

}  // namespace

std::vector<std::string> contract_of(const core::PluginInfo& info, const core::Value& options) {
    const auto traits = core::Registry<std::unique_ptr<Stage>>::make(options)->traits();
    std::vector<std::string> lines{kind_text(traits), "needs " + needs_text(traits), keeps_text(traits)};
    for (auto& remark : remarks(traits)) lines.push_back(std::move(remark));
    if (!info.cost.empty()) lines.emplace_back("costs ").append(info.cost);
    return lines;
}

}  // namespace thalweg::aggregator
