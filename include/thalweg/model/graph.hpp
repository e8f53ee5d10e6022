#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "thalweg/core/random.hpp"
#include "thalweg/core/value.hpp"
#include "thalweg/model/operations.hpp"
#include "thalweg/model/parameters.hpp"

namespace thalweg::model {

/// How an entry of the flat vector starts.
struct Initial {
    enum class Kind { constant, uniform, normal } kind = Kind::constant;
    double amount = 0;  ///< the constant, the bound ±amount, or the standard deviation
};

/// One name of a Python state_dict: an entry of the layout (tied ones have several names), a counter, or a tensor that
/// training leaves alone.
struct StateItem {
    enum class Kind { entry, counter, fixed };
    std::string name;
    Kind kind = Kind::entry;
    std::size_t index = 0;
};

/// A model: an immutable list of operations in execution order. The last one's value is the output, the
/// logits [N, classes].
struct ModelGraph {
    std::vector<Operation> operations;
    std::shared_ptr<const Layout> layout;
    std::vector<std::vector<std::int64_t>> shapes;  ///< of each value, for one sample (no batch axis)
    std::vector<at::Tensor> constants;  ///< what Constant operations give; not part of the model's state
    std::vector<Initial> initial;       ///< how each entry starts, by index
    core::Value spec;                   ///< resolved `model` section plus `input` and `classes`
    /// Of imported models: the state_dict's names in Python's order, and its tensors that are neither entry nor counter
    /// (masks, positions, unused parameters), which are written back as they were.
    std::vector<StateItem> state;
    std::vector<at::Tensor> fixed;
    /// Of imported models: the values that training starts from, instead of what `initial` says.
    std::shared_ptr<const Parameters> start;
    /// `state`, or the layout's own names in state_dict order.
    std::vector<StateItem> state_items() const;
    /// Hash-free description for messages: `mlp 784-200-200-10 (199,210 parameters)`.
    std::string summary() const;
    const std::vector<std::int64_t>& input_shape() const { return shapes.front(); }
    std::int64_t classes() const { return shapes.back().back(); }
    /// Indexes of the operations that are Linear or Convolution, in order.
    std::vector<std::size_t> affine_operations() const;
    /// Where an operation's output has its channels: the last axis where it works on that one (Linear, Embedding,
    /// LayerNorm, Attention, Lstm), else axis 1; and how many they are.
    std::int64_t channel_axis(std::size_t operation) const;
    std::int64_t channels(std::size_t operation) const;
    /// The operations that read value `value`.
    std::vector<std::size_t> consumers(int value) const;
};

/// Builds graphs: every method appends one operation and returns the value it writes. Wrong shapes (a kernel
/// larger than the image, a pool that leaves nothing) are a UsageError that names the module and the shapes.
class GraphBuilder {
  public:
    explicit GraphBuilder(std::vector<std::int64_t> input_shape);
    static constexpr int input = 0;
    using Pair = std::array<std::int64_t, 2>;

    // Modules with parameters. `name` is the module's in a state_dict.
    int linear(const std::string& name, int from, std::int64_t out, bool bias = true);
    int conv2d(const std::string& name, int from, std::int64_t out, Pair kernel, Pair stride = {1, 1},
               Pair padding = {0, 0}, bool bias = true, std::int64_t groups = 1);
    int batch_norm(const std::string& name, int from);
    /// Over the last axis of [T, E] and [features]; over the channels at each position of an image.
    int layer_norm(const std::string& name, int from, double epsilon = 1e-5);
    int group_norm(const std::string& name, int from, std::int64_t groups);
    int embedding(const std::string& name, int from, std::int64_t symbols, std::int64_t channels);
    /// An LSTM of one layer; entries `name.weight_ih_l{layer}`, … as in torch.nn.LSTM.
    int lstm(const std::string& name, int from, std::int64_t hidden, int layer = 0);
    /// A trainable tensor of a shape of its own, seen as a sample of `shape`.
    int parameter(const std::string& name, Sizes entry_shape, Sizes shape, Initial initial);

    // Operations without parameters.
    int activation(int from, ActivationKind kind, double first = 0, double second = 0);
    int max_pool2d(int from, Pair kernel, Pair stride, Pair padding = {0, 0});
    int avg_pool2d(int from, Pair kernel, Pair stride, Pair padding = {0, 0});
    int adaptive_avg_pool2d(int from, Pair output);
    int flatten(int from);
    int reshape(int from, Sizes shape);
    int permute(int from, Sizes order);
    int slice(int from, std::int64_t axis, std::int64_t start, std::int64_t end, std::int64_t step = 1);
    int cat(const std::vector<int>& from, std::int64_t axis);
    int add(int first, int second);
    int multiply(int first, int second);
    int dropout(int from, double p);
    int mean(int from, Sizes axes);
    int pad(int from, Sizes amounts);
    int attention(int queries, int keys, int values, std::int64_t heads, bool causal);

    /// Any operation. Its entries are numbers that `entry` gave.
    int append(std::string name, OperationKind kind, std::vector<int> inputs);
    /// A new entry; for `append`, and for entries that several operations share. Buffers have roles of buffers.
    int entry(std::string name, Sizes shape, Role role, Initial initial);
    int counter(std::string name);
    std::int64_t constant(at::Tensor tensor);
    /// How the entry `name` starts, instead of PyTorch's default; std::logic_error when there is none.
    void start(const std::string& name, Initial initial);
    const Sizes& shape(int value) const;

    /// Lays the parameters out (trainable first, then buffers) and ends the building.
    ModelGraph build(core::Value spec) &&;

  private:
    struct Pending {
        std::string name;
        Role role;
        Initial initial;
    };
    std::vector<Operation> operations_;
    std::vector<Sizes> shapes_;
    std::vector<Pending> pending_;
    std::vector<Sizes> pending_shapes_;
    std::vector<std::string> counters_;
    std::vector<at::Tensor> constants_;
};

/// Builds the model a resolved `model` section describes for samples of `input_shape` ([C, H, W], [C, T]
/// or [features]) and so many classes. Registry kind `model`; builders are registered as
/// core::Registration<ModelGraph, const std::vector<std::int64_t>&, std::int64_t>. UsageError with the
/// section's place when the layers do not fit the input.
ModelGraph build_model(const core::Value& options, const std::vector<std::int64_t>& input_shape,
                       std::int64_t classes);

/// Builds from a model file's spec: the `model` section plus `input` and `classes`. UsageError when it is not
/// valid.
ModelGraph build_model_from_spec(const core::Value& spec);

/// The tensor that an item of `graph.state_items()` stands for; shares memory with the parameters.
at::Tensor state_tensor(const ModelGraph& graph, const Parameters& parameters, const StateItem& item);

/// The graph's `start` if it has one, else as its `initial` says; the draws go through the entries in layout order. What the builder's methods say is
/// PyTorch's default: weights and biases uniform in ±1/√fan_in (of an LSTM ±1/√hidden), embeddings normal, norm scales 1,
/// shifts and running means 0, running variances 1.
Parameters initialise(const ModelGraph& graph, core::Random& random);

}  // namespace thalweg::model
