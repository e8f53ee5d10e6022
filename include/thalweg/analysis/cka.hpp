#pragma once

#include <string>
#include <vector>

#include "thalweg/core/communicator.hpp"
#include "thalweg/data/dataset.hpp"
#include "thalweg/model/graph.hpp"

namespace thalweg::analysis {

/// What the features of a value with positions (images, sequences) are.
enum class Spatial {
    flatten,   ///< every channel at every position
    channels,  ///< every channel, its mean over the positions
};
/// `flatten|channels`; UsageError for anything else.
Spatial spatial_of(const std::string& text);

/// Linear CKA of the layers of two models.
struct Cka {
    std::vector<std::string> layers_a, layers_b;
    std::vector<std::vector<double>>
        matrix;  ///< [layer of A][layer of B], 0 … 1; NaN where a layer does not vary
    /// Of layers of one index, where both models have as many; else empty.
    std::vector<double> diagonal;
};

/// Linear centred kernel alignment (Kornblith, Norouzi, Lee & Hinton, ICML 2019): ⟨K, L⟩ ÷ (‖K‖·‖L‖) with K = XXᵀ, L = YYᵀ of
/// the column-centred features X [n, p], Y [n, q] of n samples. Layers are the outputs of the affine operations
/// (pre-activations, the logits last), in evaluation mode. It does not change when channels are permuted, rotated or scaled as
/// a whole. The models may differ in architecture, as long as both take the samples.
///
/// Computed in double from n×n Gram matrices, since flattened convolutions have more features than there are samples: memory
/// 8·n² bytes a layer of each model on every rank (a triangle of doubles, twice while they are gathered; on few ranks up to
/// twice as much), and 2·n·p + n² doubles for the layer at hand. Layers are spread over the ranks; the same bits on any number. UsageError for fewer than 2 samples. Collective.
Cka cka(const model::ModelGraph& graph_a, const model::Parameters& a, const model::ModelGraph& graph_b,
        const model::Parameters& b, const data::SampleSet& samples, Spatial spatial,
        core::Communicator& communicator);

}  // namespace thalweg::analysis
