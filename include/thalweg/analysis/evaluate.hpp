#pragma once

#include <cstdint>
#include <vector>

#include "thalweg/core/communicator.hpp"
#include "thalweg/data/dataset.hpp"
#include "thalweg/model/graph.hpp"

namespace thalweg::analysis {

/// Mean cross-entropy and share of right answers.
struct Evaluation {
    double loss = 0;
    double accuracy = 0;  ///< fraction
    std::int64_t samples = 0;
};

/// Chunks of model::samples_at_once, chunk i on rank i mod size, combined in index order in double: the same bits on any
/// number of ranks. Every rank brings the same parameters. Collective.
Evaluation evaluate(const model::ModelGraph& graph, const model::Parameters& parameters,
                    const data::SampleSet& samples, core::Communicator& communicator);

/// The same on this rank alone (the same bits). Not collective.
Evaluation evaluate_alone(const model::ModelGraph& graph, const model::Parameters& parameters,
                          const data::SampleSet& samples);

/// Logits of all samples [n, classes], float, on this rank alone.
at::Tensor logits(const model::ModelGraph& graph, const model::Parameters& parameters,
                  const data::SampleSet& samples);

/// Loss and accuracy of given logits against the set's labels; of `logits(graph, …)` the bits that evaluate gives.
Evaluation score(const model::ModelGraph& graph, const at::Tensor& logits, const data::SampleSet& samples);

}  // namespace thalweg::analysis
