#include <memory>
#include <span>

#include "matching_support.hpp"
#include "thalweg/aggregator/matching.hpp"
#include "thalweg/aggregator/stage.hpp"

namespace thalweg::aggregator {
namespace {

/// Every model's permutations, one after another in a row of indices and back.
std::vector<std::int64_t> flattened(const std::vector<symmetry::Permutations>& all) {
    std::vector<std::int64_t> flat;
    for (const auto& permutations : all) {
        for (const auto& permutation : permutations)
            flat.insert(flat.end(), permutation.begin(), permutation.end());
    }
    return flat;
}

symmetry::Permutations permutations_of(const std::vector<std::int64_t>& flat, std::size_t model,
                                       const symmetry::Symmetries& symmetries) {
    symmetry::Permutations result;
    std::int64_t length = 0;
    for (const symmetry::Group& group : symmetries.groups) length += group.size;
    auto from = flat.begin() + static_cast<std::int64_t>(model) * length;
    for (const symmetry::Group& group : symmetries.groups) {
        result.emplace_back(from, from + group.size);
        from += group.size;
    }
    return result;
}

class MergeMany final : public Stage {
  public:
    explicit MergeMany(const core::Value& options)
        : weighting_(options["weights"].as_text() == "uniform" ? Weighting::uniform : Weighting::samples),
          max_iterations_(static_cast<int>(options["max_iterations"].as_int())) {}

    StageTraits traits() const override {
        return {
            .kind = StageKind::cross_update, .keeps_function = true, .permutes = true, .changes_frame = true};
    }

    StageNotes apply(FusionState& state, const FusionContext& context) const override {
        const auto flat = common_frame(gather_updates(state, context), context);
        core::collectively(context.communicator, [&] {
            std::size_t next = 0;
            for (std::size_t k = 0; k < context.members.size(); ++k) {
                if (context.members[k].owner != context.communicator.rank()) continue;
                permute_update(state.updates.at(next++), context.symmetries,
                               permutations_of(flat, k, context.symmetries));
            }
        });
        return {};
    }

  private:
    /// The permutations of all members, computed by rank 0 (each step needs the one before) and sent to all.
    std::vector<std::int64_t> common_frame(const std::vector<Update>& updates,
                                           const FusionContext& context) const {
        auto flat = core::collectively(context.communicator, [&] {
            std::vector<symmetry::Permutations> all(updates.size(), symmetry::identity(context.symmetries));
            if (context.communicator.rank() == 0) {
                std::vector<model::Parameters> models;
                for (const Update& update : updates) models.push_back(update.parameters);
                core::Random random(context.seed, "merge_many", context.round);
                all = merge_many(context.graph, context.symmetries, models,
                                 weights(context.members, weighting_), random, max_iterations_);
            }
            return flattened(all);
        });
        context.communicator.broadcast(std::as_writable_bytes(std::span(flat)), 0);
        return flat;
    }

    Weighting weighting_;
    int max_iterations_;
};

const StageRegistration registration{
    {.kind = "stage",
     .name = "merge_many",
     .help =
         "permutes all updates into a common frame: each in turn to the mean of the others, until none moves",
     .citation = "Ainsworth, Hayase & Srinivasa, Git Re-Basin, ICLR 2023, algorithm 3",
     .options = {core::choice("weights", {"samples", "uniform"},
                              "what a client counts in the mean of the others: its samples, or all alike")
                     .by_default("samples"),
                 core::integer("max_iterations", "stops after so many passes over the updates")
                     .at_least(1)
                     .by_default(100)}},
    [](const core::Value& options) { return std::make_unique<MergeMany>(options); }};

}  // namespace
}  // namespace thalweg::aggregator
