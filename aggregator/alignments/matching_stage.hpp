#pragma once

#include <memory>
#include <string>

#include "thalweg/aggregator/matching.hpp"
#include "thalweg/aggregator/stage.hpp"

namespace thalweg::aggregator {

/// A stage that brings every update into its anchor's basin by an element of the model's symmetry group: what it finds for
/// one pair of models is all there is to write. `align` and `lmc` use the same stages on two model files.
///
/// `permutation_from` and `apply_to` (Benzing et al., 2022): what is found for the models before or after the local training may
/// be applied to those after or before it; with `apply_to: start` the updates become the (permuted) models the trainings
/// started from, and the mean one of initialisations.
class MatchingStage : public PerUpdateStage {
  public:
    /// `samples` may be null unless traits().needs_holdout. Not collective.
    virtual MatchResult match(const MatchTask& task, core::Random& random) const = 0;
    StageTraits traits() const override;
    StageNotes apply(FusionState& state, const FusionContext& context) const final;
    /// `anchor`, `permutation_from`, `apply_to`, then the method's own.
    static core::Schema options(std::vector<core::Option> own);

  protected:
    /// `options` with those of `options()`; `name` names the stream of random numbers as well.
    MatchingStage(std::string name, const core::Value& options, bool needs_holdout = false);
    std::string anchor() const final { return anchor_; }
    void treat(Update& update, const model::Parameters& anchor, const FusionContext& context) const final;

  private:
    std::string name_, anchor_;
    bool from_start_, to_start_, needs_holdout_;
};

}  // namespace thalweg::aggregator
