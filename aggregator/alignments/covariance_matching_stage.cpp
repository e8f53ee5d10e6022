#include <memory>

#include "matching_stage.hpp"

namespace thalweg::aggregator {
namespace {

class CovarianceMatching final : public MatchingStage {
  public:
    explicit CovarianceMatching(const core::Value& options)
        : MatchingStage("covariance_matching", options, true),
          max_sweeps_(static_cast<int>(options["max_sweeps"].as_int())) {}

    MatchResult match(const MatchTask& task, core::Random&) const override {
        return covariance_matching(task.graph, task.symmetries, task.a, task.b, *task.samples, max_sweeps_);
    }

  private:
    int max_sweeps_;
};

const StageRegistration covariance_matching_stage_registration{
    {.kind = "stage",
     .name = "covariance_matching",
     .help = "permutes channels so that weights agree on what the anchor's layers read, from input to output",
     .citation = "Ferbach, Goujaud, Gidel & Dieuleveut, Proving Linear Mode Connectivity via Optimal "
                 "Transport, AISTATS 2024",
     .options = MatchingStage::options(
         {core::integer("max_sweeps", "residual streams are solved again so many times at most")
              .at_least(1)
              .by_default(10)}),
     .cost = "a forward pass a group and sweep, and O(n² · samples · positions), an update; updates in "
             "parallel over "
             "ranks"},
    [](const core::Value& options) { return std::make_unique<CovarianceMatching>(options); }};

}  // namespace
}  // namespace thalweg::aggregator
