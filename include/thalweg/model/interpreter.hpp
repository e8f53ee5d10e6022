#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

#include "thalweg/model/graph.hpp"

namespace thalweg::model {

/// A model's entries as tensors, ready to compute with. Index i is Layout::entries()[i]; `counters` shares memory with
/// Parameters::counters.
struct Views {
    std::vector<at::Tensor> entries;
    at::Tensor counters;
};

/// Views for inference: they share the memory of `parameters` and record nothing for autograd.
Views views(const Parameters& parameters);

/// Leaf views for training: trainable entries require gradients, which are accumulated into `gradient`
/// ([layout.trainable_size()], same type). The idiom that keeps them aliased: DESIGN and docs/decisions/.
Views leaf_views(const Parameters& parameters, const at::Tensor& gradient);

enum class Mode {
    evaluate,  ///< batch norm uses its running statistics
    train,     ///< batch norm uses the batch's and updates the running ones in place
};

/// Called after operation `operation` (index into graph.operations) with its output.
using Tap = std::function<void(std::size_t operation, const at::Tensor& output)>;

/// Runs the graph on `input` [N, input_shape…] and returns the logits [N, classes]. The batch norms of a model in train
/// mode write their running statistics. `tap` sees every operation's output (an empty function: none). `last`: stops
/// after that operation and returns its output.
at::Tensor forward(const ModelGraph& graph, const Views& views, const at::Tensor& input, Mode mode,
                   const Tap& tap = {}, std::size_t last = static_cast<std::size_t>(-1));

}  // namespace thalweg::model
