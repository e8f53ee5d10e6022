#pragma once

#include <memory>
#include <string>
#include <vector>

#include "thalweg/aggregator/repair.hpp"
#include "thalweg/aggregator/stage.hpp"
#include "thalweg/analysis/measures.hpp"

namespace thalweg::analysis {

/// Mends points between two models as the aggregator's finishers mend a merged model. The ends' moments are taken once;
/// only the weights differ from point to point.
class Finisher {
  public:
    /// UsageError for an unknown `how`, or one that needs `calibration` when there is none. Collective.
    Finisher(const model::ModelGraph& graph, const model::Parameters& a, const model::Parameters& b,
             const std::string& how, std::shared_ptr<const data::SampleSet> calibration,
             core::Communicator& communicator);

    /// The mended point in a tensor of its own (`between` itself when nothing is to be done). Collective.
    model::Parameters finish(const model::Parameters& between, double lambda) const;

    /// The ratio of each layer at λ = 1/2, where `midpoint` is the model, mended. Needs calibration. Collective.
    std::vector<double> midpoint_variance_ratio(const model::Parameters& midpoint) const;

  private:
    aggregator::FusionContext context() const;

    const model::ModelGraph& graph_;
    std::string how_;
    std::shared_ptr<const data::SampleSet> calibration_;
    core::Communicator& communicator_;
    symmetry::Symmetries symmetries_;  ///< none: no finisher looks at them
    std::vector<aggregator::Member> members_;
    aggregator::EndMoments ends_;           ///< of all hidden affine layers
    aggregator::EndMoments repaired_ends_;  ///< of those that REPAIR touches
};

/// The model with its batch norms' running statistics taken anew on `calibration`, as aggregator::reset_batch_norm does, in
/// a tensor of its own. On this rank alone.
model::Parameters with_fresh_norms(const model::ModelGraph& graph, const model::Parameters& parameters,
                                   std::shared_ptr<const data::SampleSet> calibration);

}  // namespace thalweg::analysis
