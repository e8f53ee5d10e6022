#include <memory>

#include "matching_stage.hpp"

namespace thalweg::aggregator {
namespace {

class ActivationMatching final : public MatchingStage {
  public:
    explicit ActivationMatching(const core::Value& options)
        : MatchingStage("activation_matching", options, true) {
        using Kernel = ActivationMatchingOptions::Kernel;
        options_.kernel = options["kernel"].as_text() == "cosine" ? Kernel::cosine : Kernel::correlation;
        options_.flips = options["flips"].as_bool();
    }

    StageTraits traits() const override {
        auto traits = MatchingStage::traits();
        traits.min_holdout = 2;  // correlations of one sample do not exist
        return traits;
    }

    MatchResult match(const MatchTask& task, core::Random&) const override {
        return activation_matching(task.graph, task.symmetries, task.a, task.b, *task.samples, options_);
    }

  private:
    ActivationMatchingOptions options_;
};

const StageRegistration activation_matching_stage_registration{
    {.kind = "stage",
     .name = "activation_matching",
     .help = "permutes every update's channels so that they fire with the anchor's on the server's samples",
     .citation =
         "Li et al., Convergent Learning, 2015; Jordan et al., REPAIR, ICLR 2023; cosine: Benzing et al., "
         "Random initialisations performing above chance, 2022",
     .options = MatchingStage::options(
         {core::choice("kernel", {"correlation", "cosine"},
                       "channels are compared by Pearson's correlation, or by the cosine of their values")
              .by_default("correlation"),
          core::boolean("flips", "channels between odd activations (tanh) may change sign as well")
              .by_default(true)}),
     .cost = "a forward pass of both models over the samples and O(n² · samples · positions) a group"},
    [](const core::Value& options) { return std::make_unique<ActivationMatching>(options); }};

}  // namespace
}  // namespace thalweg::aggregator
