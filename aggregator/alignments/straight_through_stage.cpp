#include <memory>

#include "matching_stage.hpp"

namespace thalweg::aggregator {
namespace {

class StraightThrough final : public MatchingStage {
  public:
    explicit StraightThrough(const core::Value& options) : MatchingStage("straight_through", options, true) {
        options_.epochs = options["epochs"].as_int();
        options_.batch_size = options["batch_size"].as_int();
        options_.lr = options["lr"].as_number();
    }

    StageTraits traits() const override {
        auto traits = MatchingStage::traits();
        traits.recomputes_norms = true;  // losses are taken in training mode
        return traits;
    }

    MatchResult match(const MatchTask& task, core::Random& random) const override {
        return straight_through(task.graph, task.symmetries, task.a, task.b, task.samples, random, options_);
    }

  private:
    StraightThroughOptions options_;
};

const StageRegistration straight_through_stage_registration{
    {.kind = "stage",
     .name = "straight_through",
     .help = "learns which permutation lowers the loss at the midpoint, with the straight-through estimator",
     .citation = "Ainsworth, Hayase & Srinivasa, Git Re-Basin, ICLR 2023, algorithm 2",
     .options = MatchingStage::options(
         {core::integer("epochs", "passes over the server's samples").at_least(1).by_default(5),
          core::integer("batch_size", "samples of a step").at_least(1).by_default(100),
          core::number("lr", "learning rate of Adam").above(0).by_default(1e-3)}),
     .cost = "a training step and a warm-started weight matching a step, an update; updates in parallel over "
             "ranks"},
    [](const core::Value& options) { return std::make_unique<StraightThrough>(options); }};

}  // namespace
}  // namespace thalweg::aggregator
