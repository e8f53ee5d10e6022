#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

#include "thalweg/model/graph.hpp"

namespace thalweg::model {

/// A model's entries as tensors, ready to compute with. Index i is Layout::entries()[i]; `counters` shares
/// memory with Parameters::counters.
struct Views {
    std::vector<at::Tensor> entries;
    at::Tensor counters;
    /// Where dropout draws from in train mode; std::logic_error when a graph needs it and there is none. Not owned.
    core::Random* random = nullptr;
};

/// Views for inference: they share the memory of `parameters` and record nothing for autograd.
Views views(const Parameters& parameters);

/// Leaf views for training: trainable entries require gradients, which are accumulated into `gradient`
/// ([layout.trainable_size()], same type, contiguous; std::logic_error otherwise): zero it, run backward,
/// read it. The leaves stay valid as long as both memories do and see every write to `parameters.values`.
/// Each has a version counter of its own, so that the flat vector may be written between forward and
/// backward: running statistics safely in train mode, anything else at the writer's risk, since autograd then
/// notices nothing. `create_graph` breaks the alias: use autograd::grad there.
Views leaf_views(const Parameters& parameters, const at::Tensor& gradient);

enum class Mode {
    evaluate,  ///< batch norm uses its running statistics
    train,     ///< batch norm uses the batch's and updates the running ones in place
};

/// Called after operation `operation` (index into graph.operations) with its output.
using Tap = std::function<void(std::size_t operation, const at::Tensor& output)>;

/// Runs the graph on `input` [N, input_shape…] and returns the logits [N, classes]. The batch norms of a
/// model in train mode write their running statistics. `tap` sees every operation's output (an empty
/// function: none). `last`: stops after that operation and returns its output. Without a tap, ReLU and tanh
/// write over the pre-activation they read, where nothing else (autograd included) needs it; the bits are the
/// same.
///
/// std::logic_error when the input's shape or type (float, double) is not the model's. RunError when a batch
/// norm in train mode is given one value a channel (a batch of one sample), as PyTorch's modules do: its
/// variance is not defined.
at::Tensor forward(const ModelGraph& graph, const Views& views, const at::Tensor& input, Mode mode,
                   const Tap& tap = {}, std::size_t last = static_cast<std::size_t>(-1));

/// Called after operation `operation` with what it read and wrote; what it returns is written in its place.
using Edit = std::function<at::Tensor(std::size_t operation, const std::vector<at::Tensor>& inputs,
                                      const at::Tensor& output)>;

/// As `forward` in evaluation mode, up to and with operation `last`, with `edit` between the operations.
at::Tensor forward_edited(const ModelGraph& graph, const Views& views, const at::Tensor& input,
                          const Edit& edit, std::size_t last);

/// Runs one operation, in evaluation mode, on values of its inputs' shapes (with the batch axis), whoever made them.
at::Tensor run_operation(const ModelGraph& graph, const Views& views, std::size_t operation,
                         const std::vector<at::Tensor>& inputs);

/// How many samples to run forward together where the batch's size is ours to choose (evaluation, statistics): 500, or
/// fewer, the multiple of 16 (at least 16) with which the graph's largest value takes no more than 8 MiB in float, so that
/// values stay near the caches. It depends on the graph alone: another batch size gives other bits in BLAS.
std::int64_t samples_at_once(const ModelGraph& graph);

}  // namespace thalweg::model
