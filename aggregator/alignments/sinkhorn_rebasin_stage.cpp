#include <memory>

#include "matching_stage.hpp"

namespace thalweg::aggregator {
namespace {

class SinkhornRebasin final : public MatchingStage {
  public:
    explicit SinkhornRebasin(const core::Value& options)
        : MatchingStage("sinkhorn_rebasin", options, options["objective"].as_text() != "l2") {
        using Objective = SinkhornOptions::Objective;
        const auto& objective = options["objective"].as_text();
        options_.objective = objective == "midpoint" ? Objective::midpoint
                             : objective == "random" ? Objective::random
                                                     : Objective::l2;
        options_.steps = options["steps"].as_int();
        options_.lr = options["lr"].as_number();
        options_.temperature = options["temperature"].as_number();
        options_.iterations = static_cast<int>(options["iterations"].as_int());
        options_.batch_size = options["batch_size"].as_int();
    }

    StageTraits traits() const override {
        auto traits = MatchingStage::traits();
        traits.frame_free = false;  // the draws meet channels
        // Losses are taken in training mode.
        traits.recomputes_norms = options_.objective != SinkhornOptions::Objective::l2;
        return traits;
    }

    MatchResult match(const MatchTask& task, core::Random& random) const override {
        return sinkhorn_rebasin(task.graph, task.symmetries, task.a, task.b, task.samples, random, options_);
    }

  private:
    SinkhornOptions options_;
};

const StageRegistration sinkhorn_rebasin_stage_registration{
    {.kind = "stage",
     .name = "sinkhorn_rebasin",
     .help = "learns soft permutations by gradients through Sinkhorn's algorithm, and hardens them",
     .citation = "Guerrero Peña et al., Re-basin via implicit Sinkhorn differentiation, CVPR 2023",
     .options = MatchingStage::options(
         {core::choice("objective", {"l2", "midpoint", "random"},
                       "what is gone down: the squared distance, the loss at the midpoint, or the loss at a "
                       "random point of the line")
              .by_default("l2"),
          core::integer("steps", "gradient steps").at_least(1).by_default(200),
          core::number("lr", "learning rate of AdamW").above(0).by_default(0.1),
          core::number("temperature", "τ; smaller is nearer to a permutation").above(0).by_default(1),
          core::integer("iterations", "of Sinkhorn's algorithm").at_least(1).by_default(20),
          core::integer("batch_size", "samples of a step, for the losses").at_least(1).by_default(100)}),
     .cost = "O(n · d) products and an O(n³) factorisation a group and step, an update; updates in parallel "
             "over ranks"},
    [](const core::Value& options) { return std::make_unique<SinkhornRebasin>(options); }};

}  // namespace
}  // namespace thalweg::aggregator
