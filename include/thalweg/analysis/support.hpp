#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "thalweg/core/communicator.hpp"
#include "thalweg/data/dataset.hpp"
#include "thalweg/model/graph.hpp"

namespace thalweg::analysis {

/// (Σλ)² ÷ Σλ² = tr(A)² ÷ ‖A‖² of a symmetric, positive semidefinite matrix [n, n], without its eigenvalues: n for the
/// identity, 1 for rank one. NaN for zero.
double effective_dimension(const at::Tensor& matrix);

/// Of one layer z = Wx + b, W [out, in·kernel].
struct LayerSupport {
    std::string layer;
    std::int64_t inputs = 0, outputs = 0;  ///< channels: of x (of a linear layer its features), and of z
    double weights = 0;                    ///< of WᵀW
    double outputs_covariance = 0;         ///< of WΣWᵀ, Σ the covariance of what W is multiplied with
    double inputs_covariance = 0;          ///< of the covariance of the activations x
};

/// Effective dimension of the support of every affine layer (linear and convolution, the classifier last), which bounds how
/// wide a layer must be for two of them to be matched (Ferbach, Goujaud, Gidel & Dieuleveut, AISTATS 2024). WΣWᵀ is the
/// covariance of the layer's output, and measured as such. Covariances are those of channels, over samples and positions, in
/// evaluation mode, centred, in double. Layers are spread over the ranks; the same bits on any number. UsageError for fewer than 2 samples.
/// Collective.
std::vector<LayerSupport> support(const model::ModelGraph& graph, const model::Parameters& parameters,
                                  const data::SampleSet& samples, core::Communicator& communicator);

}  // namespace thalweg::analysis
