#include <torch/types.h>

#include <algorithm>
#include <stdexcept>

#include "shape_error.hpp"
#include "thalweg/core/text.hpp"
#include "thalweg/model/graph.hpp"

namespace thalweg::model {

namespace {

using Pair = std::array<std::int64_t, 2>;

/// More than any machine holds, and far from overflow in every later product.
constexpr std::int64_t largest_model = std::int64_t{1} << 40;

std::string by(const Pair& pair) {
    return std::to_string(pair[0]) + "x" + std::to_string(pair[1]);
}

[[noreturn]] void refuse(const std::string& what, const std::vector<std::int64_t>& shape,
                         const std::string& reason) {
    throw ShapeError(what + " cannot take an input of " + core::shape_text(shape) + ": " + reason);
}

/// Height and width after a window of `kernel` has moved over them. `dilation` is 1 everywhere here.
Pair window_output(const std::string& what, const std::vector<std::int64_t>& shape, const Pair& kernel,
                   const Pair& stride, const Pair& padding) {
    if (shape.size() != 3) refuse(what, shape, "it needs an image [channels, height, width]");
    Pair result{};
    for (std::size_t axis = 0; axis < 2; ++axis) {
        if (kernel[axis] < 1 || stride[axis] < 1 || padding[axis] < 0) {
            refuse(what, shape, "kernel and stride are at least 1, padding at least 0");
        }
        const auto room = shape[axis + 1] + 2 * padding[axis];
        if (kernel[axis] > room) {
            refuse(what, shape,
                   "the kernel is larger than the image with its padding (" +
                       by({shape[1] + 2 * padding[0], shape[2] + 2 * padding[1]}) +
                       "); choose a smaller kernel, more padding, or fewer pools before it");
        }
        result[axis] = (room - kernel[axis]) / stride[axis] + 1;
    }
    return result;
}

void check_pool_padding(const std::string& what, const std::vector<std::int64_t>& shape, const Pair& kernel,
                        const Pair& padding) {
    if (2 * padding[0] > kernel[0] || 2 * padding[1] > kernel[1]) {
        refuse(what, shape, "a pool's padding is at most half its kernel");
    }
}

/// Replaces entry numbers of the building order by those of the layout.
struct Renumber {
    const std::vector<int>& entry;
    int operator[](int pending) const {
        return pending < 0 ? -1 : entry.at(static_cast<std::size_t>(pending));
    }
    void operator()(Linear& linear) const {
        linear.weight = (*this)[linear.weight];
        linear.bias = (*this)[linear.bias];
    }
    void operator()(Conv2d& conv) const {
        conv.weight = (*this)[conv.weight];
        conv.bias = (*this)[conv.bias];
    }
    void operator()(BatchNorm& norm) const {
        norm.weight = (*this)[norm.weight];
        norm.bias = (*this)[norm.bias];
        norm.running_mean = (*this)[norm.running_mean];
        norm.running_var = (*this)[norm.running_var];
    }
    void operator()(LayerNorm& norm) const {
        norm.weight = (*this)[norm.weight];
        norm.bias = (*this)[norm.bias];
    }
    template <class Other>
    void operator()(Other&) const {}
};

}  // namespace

GraphBuilder::GraphBuilder(std::vector<std::int64_t> input_shape) {
    shapes_.push_back(std::move(input_shape));
}

const std::vector<std::int64_t>& GraphBuilder::shape(int value) const {
    return shapes_.at(static_cast<std::size_t>(value));
}

int GraphBuilder::append(std::string name, OperationKind kind, int from, std::vector<std::int64_t> shape) {
    if (name.empty()) {
        // Modules without parameters have no name in a state_dict; they get one for messages.
        const auto same = std::count_if(operations_.begin(), operations_.end(), [&](const Operation& other) {
            return kind_name(other.kind) == kind_name(kind);
        });
        name = kind_name(kind) + "_" + std::to_string(same + 1);
    }
    const int output = static_cast<int>(shapes_.size());
    operations_.push_back({std::move(name), kind, {from}, output});
    shapes_.push_back(std::move(shape));
    return output;
}

int GraphBuilder::pend(std::string name, std::vector<std::int64_t> shape, Role role) {
    std::int64_t size = 1;
    bool too_large = false;
    for (const auto extent : shape) {
        too_large = too_large || __builtin_mul_overflow(size, extent, &size) || size > largest_model;
    }
    if (too_large) {
        throw ShapeError(name + " would have the shape " + core::shape_text(shape) +
                         ", more than 2^40 numbers; choose a smaller model");
    }
    pending_.push_back({std::move(name), std::move(shape), role});
    return static_cast<int>(pending_.size()) - 1;
}

int GraphBuilder::linear(const std::string& name, int from, std::int64_t out, bool bias) {
    const auto in = shape(from);
    const auto what = name + " (linear layer)";
    if (in.size() != 1) refuse(what, in, "it needs a vector [features]; flatten images before it");
    if (out < 1) refuse(what, in, "it has " + std::to_string(out) + " outputs, at least 1 is needed");
    Linear linear{};
    linear.weight = pend(name + ".weight", {out, in[0]}, Role::weight);
    linear.bias = bias ? pend(name + ".bias", {out}, Role::bias) : -1;
    return append(name, linear, from, {out});
}

int GraphBuilder::conv2d(const std::string& name, int from, std::int64_t out, Pair kernel, Pair stride,
                         Pair padding, bool bias) {
    const auto in = shape(from);
    const auto what =
        name + " (convolution " + by(kernel) + ", stride " + by(stride) + ", padding " + by(padding) + ")";
    const auto size = window_output(what, in, kernel, stride, padding);
    if (out < 1) refuse(what, in, "it has " + std::to_string(out) + " output channels, at least 1 is needed");
    Conv2d conv{};
    conv.weight = pend(name + ".weight", {out, in[0], kernel[0], kernel[1]}, Role::weight);
    conv.bias = bias ? pend(name + ".bias", {out}, Role::bias) : -1;
    conv.stride = stride;
    conv.padding = padding;
    return append(name, conv, from, {out, size[0], size[1]});
}

int GraphBuilder::batch_norm(const std::string& name, int from) {
    const auto in = shape(from);
    BatchNorm norm{};
    norm.weight = pend(name + ".weight", {in[0]}, Role::norm_scale);
    norm.bias = pend(name + ".bias", {in[0]}, Role::norm_shift);
    norm.running_mean = pend(name + ".running_mean", {in[0]}, Role::running_mean);
    norm.running_var = pend(name + ".running_var", {in[0]}, Role::running_var);
    norm.counter = static_cast<int>(counters_.size());
    counters_.push_back(name + ".num_batches_tracked");
    return append(name, norm, from, in);
}

int GraphBuilder::layer_norm(const std::string& name, int from) {
    const auto in = shape(from);
    LayerNorm norm{};
    norm.weight = pend(name + ".weight", {in[0]}, Role::norm_scale);
    norm.bias = pend(name + ".bias", {in[0]}, Role::norm_shift);
    return append(name, norm, from, in);
}

int GraphBuilder::activation(int from, ActivationKind kind) {
    return append("", Activation{kind}, from, shape(from));
}

int GraphBuilder::max_pool2d(int from, Pair kernel, Pair stride, Pair padding) {
    const auto in = shape(from);
    const auto what =
        "the max pool " + by(kernel) + " (stride " + by(stride) + ", padding " + by(padding) + ")";
    const auto size = window_output(what, in, kernel, stride, padding);
    check_pool_padding(what, in, kernel, padding);
    return append("", MaxPool2d{kernel, stride, padding}, from, {in[0], size[0], size[1]});
}

int GraphBuilder::avg_pool2d(int from, Pair kernel, Pair stride, Pair padding) {
    const auto in = shape(from);
    const auto what =
        "the average pool " + by(kernel) + " (stride " + by(stride) + ", padding " + by(padding) + ")";
    const auto size = window_output(what, in, kernel, stride, padding);
    check_pool_padding(what, in, kernel, padding);
    return append("", AvgPool2d{kernel, stride, padding}, from, {in[0], size[0], size[1]});
}

int GraphBuilder::flatten(int from) {
    std::int64_t features = 1;
    for (const auto extent : shape(from)) features *= extent;
    return append("", Flatten{}, from, {features});
}

ModelGraph GraphBuilder::build(core::Value spec) && {
    if (operations_.empty()) throw std::logic_error("GraphBuilder::build: a graph without operations");
    auto layout = std::make_shared<Layout>();
    std::vector<int> entry(pending_.size(), -1);
    for (const bool buffers : {false, true}) {
        for (std::size_t i = 0; i < pending_.size(); ++i) {
            const auto role = pending_[i].role;
            if ((role == Role::running_mean || role == Role::running_var) != buffers) continue;
            entry[i] = static_cast<int>(layout->add(pending_[i].name, pending_[i].shape, role));
        }
    }
    for (const auto& counter : counters_) layout->add_counter(counter);
    for (auto& operation : operations_) std::visit(Renumber{entry}, operation.kind);

    ModelGraph graph;
    graph.operations = std::move(operations_);
    graph.layout = std::move(layout);
    graph.shapes = std::move(shapes_);
    graph.spec = std::move(spec);
    return graph;
}

}  // namespace thalweg::model
