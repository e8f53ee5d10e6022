#include <memory>

#include "matching_stage.hpp"

namespace thalweg::aggregator {
namespace {

class SimulatedAnnealing final : public MatchingStage {
  public:
    explicit SimulatedAnnealing(const core::Value& options)
        : MatchingStage("simulated_annealing", options, true) {
        options_.steps = options["steps"].as_int();
        options_.start = options["start"].as_number();
        options_.end = options["end"].as_number();
    }

    StageTraits traits() const override {
        auto traits = MatchingStage::traits();
        traits.frame_free = false;       // the draws meet channels
        traits.recomputes_norms = true;  // losses are taken in training mode
        return traits;
    }

    MatchResult match(const MatchTask& task, core::Random& random) const override {
        return simulated_annealing(task.graph, task.symmetries, task.a, task.b, task.samples, random,
                                   options_);
    }

  private:
    AnnealingOptions options_;
};

const StageRegistration simulated_annealing_stage_registration{
    {.kind = "stage",
     .name = "simulated_annealing",
     .help = "searches permutations at random, ever more greedily, for a low loss at the midpoint: the "
             "historical baseline",
     .citation = "Entezari, Sedghi, Saukh & Neyshabur, The Role of Permutation Invariance in Linear Mode "
                 "Connectivity, ICLR 2022",
     .options = MatchingStage::options(
         {core::integer("steps", "moves that are tried").at_least(1).by_default(2000),
          core::number("start", "temperature of the first move, in units of the loss")
              .above(0)
              .by_default(0.1),
          core::number("end", "temperature of the last move").above(0).by_default(1e-4)}),
     .cost = "a pass over the samples a move, an update; updates in parallel over ranks"},
    [](const core::Value& options) { return std::make_unique<SimulatedAnnealing>(options); }};

}  // namespace
}  // namespace thalweg::aggregator
