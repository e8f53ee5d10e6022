#include <memory>

#include "matching_stage.hpp"

namespace thalweg::aggregator {
namespace {

class WeightMatching final : public MatchingStage {
  public:
    explicit WeightMatching(const core::Value& options) : MatchingStage("weight_matching", options) {
        using Options = WeightMatchingOptions;
        const auto& order = options["order"].as_text();
        options_.restarts = static_cast<int>(options["restarts"].as_int());
        options_.max_sweeps = static_cast<int>(options["max_sweeps"].as_int());
        options_.kernel =
            options["kernel"].as_text() == "cosine" ? Options::Kernel::cosine : Options::Kernel::inner;
        options_.order = order == "forward"    ? Options::Order::forward
                         : order == "backward" ? Options::Order::backward
                                               : Options::Order::random;
        options_.bias_weight = options["bias_weight"].as_number();
        options_.flips = options["flips"].as_bool();
    }

    StageTraits traits() const override {
        auto traits = MatchingStage::traits();
        traits.frame_free = options_.restarts == 1;  // random starts meet channels
        return traits;
    }

    MatchResult match(const MatchTask& task, core::Random& random) const override {
        return weight_matching(task.graph, task.symmetries, task.a, task.b, random, options_);
    }

  private:
    WeightMatchingOptions options_;
};

const StageRegistration weight_matching_stage_registration{
    {.kind = "stage",
     .name = "weight_matching",
     .help = "permutes every update's channels so that its weights lie along the anchor's",
     .citation = "Ainsworth, Hayase & Srinivasa, Git Re-Basin, ICLR 2023, algorithm 1",
     .options = MatchingStage::options(
         {core::integer("restarts",
                        "runs; the first starts as the models are, the others from random "
                        "permutations, and the best counts")
              .at_least(1)
              .by_default(1),
          core::integer("max_sweeps", "stops after so many sweeps over the groups")
              .at_least(1)
              .by_default(100),
          core::choice("kernel", {"inner", "cosine"},
                       "what a group's assignment maximises: inner products of channels, or cosines")
              .by_default("inner"),
          core::choice("order", {"random", "forward", "backward"}, "how a sweep goes through the groups")
              .by_default("random"),
          core::number("bias_weight", "what products of biases count").at_least(0).by_default(1),
          core::boolean("flips", "channels between odd activations (tanh) may change sign as well")
              .by_default(true)}),
     .cost = "O(n² · fan + assignment) a group and sweep, an update; updates in parallel over ranks"},
    [](const core::Value& options) { return std::make_unique<WeightMatching>(options); }};

}  // namespace
}  // namespace thalweg::aggregator
