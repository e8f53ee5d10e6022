#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "thalweg/core/random.hpp"
#include "thalweg/core/value.hpp"
#include "thalweg/model/parameters.hpp"

namespace thalweg::model {

/// The operations of a graph. Numbers named after entries index Layout::entries(); -1 means "has none".
struct Linear {
    int weight;  ///< [out, in]
    int bias;    ///< [out] or -1
};
struct Conv2d {
    int weight;  ///< [out, in / groups, kernel_h, kernel_w]
    int bias;    ///< [out] or -1
    std::array<std::int64_t, 2> stride{1, 1};
    std::array<std::int64_t, 2> padding{0, 0};
    std::array<std::int64_t, 2> dilation{1, 1};
    std::int64_t groups = 1;
};
/// Over axis 1 of [N, C] or [N, C, H, W].
struct BatchNorm {
    int weight, bias, running_mean, running_var;
    int counter;  ///< index among Layout::counters()
    double momentum = 0.1;
    double epsilon = 1e-5;
};
/// Over everything but the batch axis of [N, C] (an MLP); for images over the channel axis at each position,
/// as ConvNeXt's channel-first layer norm does, so that channels stay permutable.
struct LayerNorm {
    int weight, bias;
    double epsilon = 1e-5;
};
enum class ActivationKind { relu, tanh, gelu };
struct Activation {
    ActivationKind kind;
};
struct MaxPool2d {
    std::array<std::int64_t, 2> kernel, stride, padding{0, 0};
};
struct AvgPool2d {
    std::array<std::int64_t, 2> kernel, stride, padding{0, 0};
};
/// [N, …] to [N, product of the rest].
struct Flatten {};

using OperationKind =
    std::variant<Linear, Conv2d, BatchNorm, LayerNorm, Activation, MaxPool2d, AvgPool2d, Flatten>;

/// One step of the graph: reads values, writes one value. Value 0 is the input; operation i of a graph writes
/// value i + 1.
struct Operation {
    /// The module's name (`layers.0`); for modules without parameters the kind with a number (`relu_1`).
    std::string name;
    OperationKind kind;
    std::vector<int> inputs;
    int output = 0;
};

std::string kind_name(const OperationKind& kind);

/// A model: an immutable list of operations in execution order. The last one's value is the output, the
/// logits [N, classes].
struct ModelGraph {
    std::vector<Operation> operations;
    std::shared_ptr<const Layout> layout;
    std::vector<std::vector<std::int64_t>> shapes;  ///< of each value, for one sample (no batch axis)
    core::Value spec;                               ///< resolved `model` section plus `input` and `classes`
    /// Hash-free description for messages: `mlp 784-200-200-10 (199,210 parameters)`.
    std::string summary() const;
    const std::vector<std::int64_t>& input_shape() const { return shapes.front(); }
    std::int64_t classes() const { return shapes.back().back(); }
    /// Indexes of the operations that are Linear or Conv2d, in order.
    std::vector<std::size_t> affine_operations() const;
    /// The operations that read value `value`.
    std::vector<std::size_t> consumers(int value) const;
};

/// Builds graphs: every method appends one operation and returns the value it writes. Wrong shapes (a kernel
/// larger than the image, a pool that leaves nothing) are a UsageError that names the module and the shapes.
class GraphBuilder {
  public:
    explicit GraphBuilder(std::vector<std::int64_t> input_shape);
    static constexpr int input = 0;

    int linear(const std::string& name, int from, std::int64_t out, bool bias = true);
    int conv2d(const std::string& name, int from, std::int64_t out, std::array<std::int64_t, 2> kernel,
               std::array<std::int64_t, 2> stride = {1, 1}, std::array<std::int64_t, 2> padding = {0, 0},
               bool bias = true);
    int batch_norm(const std::string& name, int from);
    int layer_norm(const std::string& name, int from);
    int activation(int from, ActivationKind kind);
    int max_pool2d(int from, std::array<std::int64_t, 2> kernel, std::array<std::int64_t, 2> stride,
                   std::array<std::int64_t, 2> padding = {0, 0});
    int avg_pool2d(int from, std::array<std::int64_t, 2> kernel, std::array<std::int64_t, 2> stride,
                   std::array<std::int64_t, 2> padding = {0, 0});
    int flatten(int from);
    const std::vector<std::int64_t>& shape(int value) const;

    /// Lays the parameters out (trainable first, then buffers) and ends the building.
    ModelGraph build(core::Value spec) &&;

  private:
    struct Pending {
        std::string name;
        std::vector<std::int64_t> shape;
        Role role;
    };
    int append(std::string name, OperationKind kind, int from, std::vector<std::int64_t> shape);
    int pend(std::string name, std::vector<std::int64_t> shape, Role role);
    std::vector<Operation> operations_;
    std::vector<std::vector<std::int64_t>> shapes_;
    std::vector<Pending> pending_;
    std::vector<std::string> counters_;
};

/// Builds the model a resolved `model` section describes for samples of `input_shape` ([C, H, W] or
/// [features]) and so many classes. Registry kind `model`; builders are registered as
/// core::Registration<ModelGraph, const std::vector<std::int64_t>&, std::int64_t>. UsageError with the
/// section's place when the layers do not fit the input.
ModelGraph build_model(const core::Value& options, const std::vector<std::int64_t>& input_shape,
                       std::int64_t classes);

/// Builds from a model file's spec: the `model` section plus `input` and `classes`. UsageError when it is not
/// valid.
ModelGraph build_model_from_spec(const core::Value& spec);

/// PyTorch's default initialisation: weights and biases uniform in ±1/√fan_in, norm scales 1, shifts and
/// running means 0, running variances 1. The draws go through the entries in layout order.
Parameters initialise(const ModelGraph& graph, core::Random& random);

}  // namespace thalweg::model
