#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "shape_error.hpp"
#include "thalweg/core/text.hpp"
#include "thalweg/model/graph.hpp"

namespace thalweg::model {

namespace {

/// More than any machine holds, and far from overflow in every later product.
constexpr std::int64_t largest_model = std::int64_t{1} << 40;

/// Replaces entry numbers of the building order by those of the layout.
struct Renumber {
    const std::vector<int>& layout_entry;
    void entry(const char*, int& index) const {
        if (index >= 0) index = layout_entry.at(static_cast<std::size_t>(index));
    }
    void counter(const char*, int&) const {}
    template <class Other>
    void value(const char*, Other&) const {}
};

bool is_buffer(Role role) {
    return role == Role::running_mean || role == Role::running_var;
}

Initial uniform(double bound) {
    return {Initial::Kind::uniform, bound};
}
Initial constant_of(double value) {
    return {Initial::Kind::constant, value};
}

Sizes sizes_of(const GraphBuilder::Pair& pair) {
    return {pair[0], pair[1]};
}

}  // namespace

GraphBuilder::GraphBuilder(std::vector<std::int64_t> input_shape) {
    shapes_.push_back(std::move(input_shape));
}

const Sizes& GraphBuilder::shape(int value) const {
    return shapes_.at(static_cast<std::size_t>(value));
}

int GraphBuilder::entry(std::string name, Sizes shape, Role role, Initial initial) {
    std::int64_t size = 1;
    bool too_large = false;
    for (const auto extent : shape) {
        too_large = too_large || __builtin_mul_overflow(size, extent, &size) || size > largest_model;
    }
    if (too_large) {
        throw ShapeError(name + " would have the shape " + core::shape_text(shape) +
                         ", more than 2^40 numbers; choose a smaller model");
    }
    pending_.push_back({std::move(name), role, initial});
    pending_shapes_.push_back(std::move(shape));
    return static_cast<int>(pending_.size()) - 1;
}

int GraphBuilder::counter(std::string name) {
    counters_.push_back(std::move(name));
    return static_cast<int>(counters_.size()) - 1;
}

std::int64_t GraphBuilder::constant(at::Tensor tensor) {
    constants_.push_back(std::move(tensor));
    return static_cast<std::int64_t>(constants_.size()) - 1;
}

void GraphBuilder::start(const std::string& name, Initial initial) {
    const auto found = std::find_if(pending_.begin(), pending_.end(),
                                    [&](const Pending& pending) { return pending.name == name; });
    if (found == pending_.end()) throw std::logic_error("GraphBuilder::start: no entry " + name);
    found->initial = initial;
}

int GraphBuilder::append(std::string name, OperationKind kind, std::vector<int> inputs) {
    if (name.empty()) {
        // Modules without parameters have no name in a state_dict; they get one for messages.
        const auto same = std::count_if(operations_.begin(), operations_.end(), [&](const Operation& other) {
            return kind_name(other.kind) == kind_name(kind);
        });
        name = kind_name(kind) + "_" + std::to_string(same + 1);
    }
    std::vector<Sizes> shapes;
    for (const int value : inputs) shapes.push_back(shape(value));
    auto written = output_shape(name, kind, shapes, pending_shapes_);
    const int output = static_cast<int>(shapes_.size());
    operations_.push_back({std::move(name), std::move(kind), std::move(inputs), output});
    shapes_.push_back(std::move(written));
    return output;
}

int GraphBuilder::linear(const std::string& name, int from, std::int64_t out, bool bias) {
    const auto& in = shape(from);
    const auto features = in.empty() ? 1 : in.back();
    if (out < 1) {
        throw ShapeError(name + " (linear layer) has " + std::to_string(out) +
                         " outputs, at least 1 is needed");
    }
    if (in.size() == 3) {
        throw ShapeError(name + " (linear layer) cannot take an input of " + core::shape_text(in) +
                         ": it needs a vector [features]; flatten images before it");
    }
    const auto initial = uniform(1.0 / std::sqrt(static_cast<double>(features)));
    Linear linear;
    linear.weight = entry(name + ".weight", {out, features}, Role::weight, initial);
    if (bias) linear.bias = entry(name + ".bias", {out}, Role::bias, initial);
    return append(name, linear, {from});
}

int GraphBuilder::conv2d(const std::string& name, int from, std::int64_t out, Pair kernel, Pair stride,
                         Pair padding, bool bias, std::int64_t groups) {
    const auto& in = shape(from);
    const auto channels = in.empty() ? 1 : in[0];
    const auto fan_in = channels / std::max<std::int64_t>(groups, 1) * kernel[0] * kernel[1];
    const auto initial = uniform(1.0 / std::sqrt(static_cast<double>(std::max<std::int64_t>(fan_in, 1))));
    Convolution conv;
    conv.stride = sizes_of(stride);
    conv.padding = sizes_of(padding);
    conv.dilation = {1, 1};
    conv.output_padding = {0, 0};
    conv.groups = groups;
    conv.weight =
        entry(name + ".weight", {out, channels / std::max<std::int64_t>(groups, 1), kernel[0], kernel[1]},
              Role::weight, initial);
    if (bias) conv.bias = entry(name + ".bias", {out}, Role::bias, initial);
    return append(name, conv, {from});
}

int GraphBuilder::batch_norm(const std::string& name, int from) {
    const auto channels = shape(from).at(0);
    BatchNorm norm;
    norm.weight = entry(name + ".weight", {channels}, Role::norm_scale, constant_of(1));
    norm.bias = entry(name + ".bias", {channels}, Role::norm_shift, constant_of(0));
    norm.running_mean = entry(name + ".running_mean", {channels}, Role::running_mean, constant_of(0));
    norm.running_var = entry(name + ".running_var", {channels}, Role::running_var, constant_of(1));
    norm.counter = counter(name + ".num_batches_tracked");
    return append(name, norm, {from});
}

int GraphBuilder::layer_norm(const std::string& name, int from, double epsilon) {
    LayerNorm norm;
    norm.channels_first = shape(from).size() == 3;
    norm.epsilon = epsilon;
    const auto channels = norm.channels_first ? shape(from)[0] : shape(from).back();
    norm.weight = entry(name + ".weight", {channels}, Role::norm_scale, constant_of(1));
    norm.bias = entry(name + ".bias", {channels}, Role::norm_shift, constant_of(0));
    return append(name, norm, {from});
}

int GraphBuilder::group_norm(const std::string& name, int from, std::int64_t groups) {
    const auto channels = shape(from).at(0);
    GroupNorm norm;
    norm.groups = groups;
    norm.weight = entry(name + ".weight", {channels}, Role::norm_scale, constant_of(1));
    norm.bias = entry(name + ".bias", {channels}, Role::norm_shift, constant_of(0));
    return append(name, norm, {from});
}

int GraphBuilder::embedding(const std::string& name, int from, std::int64_t symbols, std::int64_t channels) {
    Embedding embedding;
    embedding.weight =
        entry(name + ".weight", {symbols, channels}, Role::embedding, {Initial::Kind::normal, 1.0});
    return append(name, embedding, {from});
}

int GraphBuilder::lstm(const std::string& name, int from, std::int64_t hidden, int layer) {
    const auto suffix = "_l" + std::to_string(layer);
    const auto initial = uniform(1.0 / std::sqrt(static_cast<double>(hidden)));
    Lstm lstm;
    lstm.weight_input =
        entry(name + ".weight_ih" + suffix, {4 * hidden, shape(from).back()}, Role::weight, initial);
    lstm.weight_hidden = entry(name + ".weight_hh" + suffix, {4 * hidden, hidden}, Role::weight, initial);
    lstm.bias_input = entry(name + ".bias_ih" + suffix, {4 * hidden}, Role::bias, initial);
    lstm.bias_hidden = entry(name + ".bias_hh" + suffix, {4 * hidden}, Role::bias, initial);
    return append(name + suffix, lstm, {from});
}

int GraphBuilder::parameter(const std::string& name, Sizes entry_shape, Sizes shape, Initial initial) {
    const int index = entry(name, std::move(entry_shape), Role::free, initial);
    return append(name, Parameter{index, std::move(shape)}, {});
}

int GraphBuilder::activation(int from, ActivationKind kind, double first, double second) {
    return append("", Activation{kind, first, second}, {from});
}

int GraphBuilder::max_pool2d(int from, Pair kernel, Pair stride, Pair padding) {
    return append("", MaxPool{sizes_of(kernel), sizes_of(stride), sizes_of(padding), {1, 1}}, {from});
}

int GraphBuilder::avg_pool2d(int from, Pair kernel, Pair stride, Pair padding) {
    return append("", AvgPool{sizes_of(kernel), sizes_of(stride), sizes_of(padding)}, {from});
}

int GraphBuilder::adaptive_avg_pool2d(int from, Pair output) {
    return append("", AdaptivePool{sizes_of(output)}, {from});
}

int GraphBuilder::flatten(int from) {
    return append("", Flatten{}, {from});
}
int GraphBuilder::reshape(int from, Sizes shape) {
    return append("", Reshape{std::move(shape)}, {from});
}
int GraphBuilder::permute(int from, Sizes order) {
    return append("", Permute{std::move(order)}, {from});
}
int GraphBuilder::slice(int from, std::int64_t axis, std::int64_t start, std::int64_t end,
                        std::int64_t step) {
    return append("", Slice{axis, start, end, step}, {from});
}
int GraphBuilder::cat(const std::vector<int>& from, std::int64_t axis) {
    return append("", Cat{axis}, from);
}
int GraphBuilder::add(int first, int second) {
    return append("", Add{}, {first, second});
}
int GraphBuilder::multiply(int first, int second) {
    return append("", Multiply{}, {first, second});
}
int GraphBuilder::dropout(int from, double p) {
    return append("", Dropout{p}, {from});
}
int GraphBuilder::mean(int from, Sizes axes) {
    return append("", Reduce{std::move(axes)}, {from});
}
int GraphBuilder::pad(int from, Sizes amounts) {
    return append("", Pad{std::move(amounts)}, {from});
}
int GraphBuilder::attention(int queries, int keys, int values, std::int64_t heads, bool causal) {
    return append("", Attention{heads, causal}, {queries, keys, values});
}

ModelGraph GraphBuilder::build(core::Value spec) && {
    if (operations_.empty()) throw std::logic_error("GraphBuilder::build: a graph without operations");
    auto layout = std::make_shared<Layout>();
    ModelGraph graph;
    std::vector<int> entry(pending_.size(), -1);
    for (const bool buffers : {false, true}) {
        for (std::size_t i = 0; i < pending_.size(); ++i) {
            if (is_buffer(pending_[i].role) != buffers) continue;
            entry[i] = static_cast<int>(layout->add(pending_[i].name, pending_shapes_[i], pending_[i].role));
            graph.initial.push_back(pending_[i].initial);
        }
    }
    for (const auto& counter : counters_) layout->add_counter(counter);
    Renumber renumber{entry};
    for (auto& operation : operations_) {
        std::visit([&](auto& kind) { kind.fields(kind, renumber); }, operation.kind);
    }
    graph.operations = std::move(operations_);
    graph.layout = std::move(layout);
    graph.shapes = std::move(shapes_);
    graph.constants = std::move(constants_);
    graph.spec = std::move(spec);
    return graph;
}

}  // namespace thalweg::model
