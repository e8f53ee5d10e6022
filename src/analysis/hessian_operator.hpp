#pragma once

#include <ATen/core/Tensor.h>

#include "thalweg/core/communicator.hpp"
#include "thalweg/data/dataset.hpp"
#include "thalweg/model/graph.hpp"
#include "thalweg/model/interpreter.hpp"

namespace thalweg::analysis {

/// v ↦ H·v of the mean cross-entropy over `samples`, in double. Keeps references to all but the parameters.
class HessianOperator {
  public:
    /// UsageError for no samples, or samples of another shape. Collective.
    HessianOperator(const model::ModelGraph& graph, const model::Parameters& parameters,
                    const data::SampleSet& samples, core::Communicator& communicator);
    /// `v` [size()] double; the result is new. RunError when it is not finite. Collective.
    at::Tensor operator()(const at::Tensor& v) const;
    std::int64_t size() const { return parameters_.layout->trainable_size(); }

  private:
    /// Of one chunk's summed cross-entropy.
    at::Tensor chunk_product(std::int64_t chunk, const at::Tensor& v) const;

    const model::ModelGraph& graph_;
    model::Parameters parameters_;
    const data::SampleSet& samples_;
    core::Communicator& communicator_;
    model::Views views_;                ///< trainable entries are leaves
    std::vector<at::Tensor> leaves_;    ///< the trainable ones among them
    std::vector<std::size_t> entries_;  ///< and their indexes
    std::int64_t at_once_;
};

}  // namespace thalweg::analysis
