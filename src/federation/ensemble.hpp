#pragma once

#include <vector>

#include "thalweg/aggregator/stage.hpp"
#include "thalweg/analysis/evaluate.hpp"

namespace thalweg::federation {

/// Every client's model alone, in the members' order, and the ensemble of all: the mean of their logits, an upper mark that
/// no single model is.
struct EnsembleScore {
    std::vector<analysis::Evaluation> clients;
    analysis::Evaluation ensemble;
};

/// One pass over the samples for each client, on its rank; logits are added up in client-id order. Memory does not grow with
/// the cohort. Collective; the same on every rank and any number of ranks.
EnsembleScore score_ensemble(const aggregator::FusionState& state, const aggregator::FusionContext& context,
                             const data::SampleSet& samples);

}  // namespace thalweg::federation
