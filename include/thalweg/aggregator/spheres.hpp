#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "thalweg/model/graph.hpp"
#include "thalweg/model/parameters.hpp"
#include "thalweg/symmetry/gauge.hpp"

namespace thalweg::aggregator {

/// The hidden units of a net with positively homogeneous activations, each with the vector of what comes in (weights and
/// bias), whose length is arbitrary: the spheres whose product is a torus of sorts in Pittorino et al., *Deep Networks on
/// Toroids*, ICML 2022. The channels of a residual stream are no units: what a rescaling takes from the branch that is added,
/// the layers inside the branch give back, so that they have no length of their own. Batch norms behind a linear or convolution are folded in first, see `fold_batch_norms`.
class Spheres {
  public:
    explicit Spheres(const model::ModelGraph& graph);

    /// Numbers of units; those of a residual stream's channels stand for nothing.
    std::int64_t units() const { return gauge_.channels; }
    /// For every trainable element the unit whose incoming vector it belongs to; `units()` for the classifier, which is one
    /// vector as a whole; −1 for none. int64 [layout.trainable_size()].
    const at::Tensor& unit_of() const { return unit_of_; }

    /// The batch norms that only undo themselves: y = γ(z − μ)/√(v + ε) + β becomes weights times γ/√(v + ε) and a batch norm
    /// that adds β − γμ/√(v + ε) and does nothing else. The function (in evaluation) stays.
    void fold_batch_norms(model::Parameters& model) const;
    /// Every unit's vector to length 1, from input to output, what is taken from it given to what comes out; then the
    /// classifier as a whole: all logits are divided by one number, so that the arg-max stays. A unit whose vector is zero
    /// is left alone.
    void normalise(model::Parameters& model) const;

  private:
    struct Folded {
        std::size_t weight;
        int bias;
        std::size_t norm_weight, norm_bias, running_mean, running_var;
        double epsilon;
        bool transposed;
    };
    void find_foldable();
    model::ModelGraph without_folded() const;

    const model::ModelGraph& graph_;
    std::vector<std::size_t> foldable_;  ///< operations
    std::vector<Folded> folded_;
    symmetry::Gauge gauge_;
    std::vector<bool> is_unit_;  ///< by group of the gauge
    at::Tensor unit_of_;
};

}  // namespace thalweg::aggregator
