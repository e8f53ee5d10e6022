#pragma once

#include "thalweg/model/graph.hpp"

namespace thalweg::study {

/// An MLP with batch norms as the MLP without norms that computes the same function in evaluation: W' = W γ/√(v + ε),
/// b' = (b − μ) γ/√(v + ε) + β, in double. `graph` is the model's, `flat` that of the same hidden layers with `norm: none`.
model::Parameters folded_mlp(const model::ModelGraph& graph, const model::Parameters& parameters,
                             const model::ModelGraph& flat);

}  // namespace thalweg::study
