#include "thalweg/model/interpreter.hpp"

#include <torch/types.h>

#include <algorithm>
#include <stdexcept>

#include "thalweg/core/error.hpp"
#include "thalweg/core/text.hpp"

namespace thalweg::model {

namespace {

/// One run of a graph. Each operation reads the values it names and returns its own.
class Run {
  public:
    Run(const ModelGraph& graph, const Views& views, Mode mode, bool tapped)
        : graph_(graph), views_(views), mode_(mode), tapped_(tapped) {}

    at::Tensor operator()(std::size_t index, const at::Tensor& x, bool sole_reader) {
        index_ = index;
        sole_reader_ = sole_reader;
        return std::visit([&](const auto& kind) { return apply(kind, x); }, graph_.operations[index].kind);
    }

  private:
    at::Tensor entry(int index) const {
        return index < 0 ? at::Tensor() : views_.entries[static_cast<std::size_t>(index)];
    }

    at::Tensor apply(const Linear& linear, const at::Tensor& x) const {
        // What at::linear comes down to, without its own trip through the dispatcher.
        const auto transposed = entry(linear.weight).t();
        return linear.bias < 0 ? at::mm(x, transposed) : at::addmm(entry(linear.bias), x, transposed);
    }

    at::Tensor apply(const Conv2d& conv, const at::Tensor& x) const {
        return at::conv2d(x, entry(conv.weight), entry(conv.bias), conv.stride, conv.padding, conv.dilation,
                          conv.groups);
    }

    at::Tensor apply(const BatchNorm& norm, const at::Tensor& x) const {
        const bool train = mode_ == Mode::train;
        if (train) {
            require_two_values(x);
            views_.counters.data_ptr<std::int64_t>()[norm.counter] += 1;
        }
        return at::batch_norm(x, entry(norm.weight), entry(norm.bias), entry(norm.running_mean),
                              entry(norm.running_var), train, norm.momentum, norm.epsilon, true);
    }

    at::Tensor apply(const LayerNorm& norm, const at::Tensor& x) const {
        const auto weight = entry(norm.weight);
        const auto bias = entry(norm.bias);
        if (x.dim() == 2) return at::layer_norm(x, weight.sizes(), weight, bias, norm.epsilon);
        const auto channels_last = x.permute({0, 2, 3, 1});
        return at::layer_norm(channels_last, weight.sizes(), weight, bias, norm.epsilon)
            .permute({0, 3, 1, 2});
    }

    at::Tensor apply(const Activation& activation, const at::Tensor& x) const {
        switch (activation.kind) {
            case ActivationKind::relu:
                return may_overwrite() ? x.relu_() : at::relu(x);
            case ActivationKind::tanh:
                return may_overwrite() ? x.tanh_() : at::tanh(x);
            case ActivationKind::gelu:
                return at::gelu(x);
        }
        throw std::logic_error("forward: not an activation");
    }

    at::Tensor apply(const MaxPool2d& pool, const at::Tensor& x) const {
        return at::max_pool2d(x, pool.kernel, pool.stride, pool.padding);
    }

    at::Tensor apply(const AvgPool2d& pool, const at::Tensor& x) const {
        return at::avg_pool2d(x, pool.kernel, pool.stride, pool.padding);
    }

    at::Tensor apply(const Flatten&, const at::Tensor& x) const {
        const auto value = static_cast<std::size_t>(graph_.operations[index_].output);
        return x.reshape({x.size(0), graph_.shapes[value].front()});
    }

    /// The value this operation reads may be written over when nobody else sees it (no tap, no other reader)
    /// and its producer does not need it for its gradient. Linear, convolution and norms need their inputs
    /// only.
    bool may_overwrite() const {
        if (tapped_ || !sole_reader_) return false;
        const int value = graph_.operations[index_].inputs.front();
        if (value == 0) return false;
        const auto& producer = graph_.operations[static_cast<std::size_t>(value) - 1].kind;
        // An image's layer norm ends in a view, and autograd is slow when a view is written to.
        const bool flat = graph_.shapes[static_cast<std::size_t>(value)].size() == 1;
        return std::holds_alternative<Linear>(producer) || std::holds_alternative<Conv2d>(producer) ||
               std::holds_alternative<BatchNorm>(producer) ||
               (std::holds_alternative<LayerNorm>(producer) && flat);
    }

    void require_two_values(const at::Tensor& x) const {
        if (x.numel() / std::max<std::int64_t>(x.size(1), 1) > 1) return;
        throw core::RunError(
            "Batch norm " + graph_.operations[index_].name + " was given a training batch of " +
            std::to_string(x.size(0)) +
            " sample(s) with one value a channel: a variance needs at least two. Choose a batch "
            "size that leaves no single sample over, or another norm.");
    }

    const ModelGraph& graph_;
    const Views& views_;
    Mode mode_;
    bool tapped_;
    std::size_t index_ = 0;
    bool sole_reader_ = false;
};

void check_input(const ModelGraph& graph, const Views& views, const at::Tensor& input) {
    const auto& shape = graph.input_shape();
    const bool fits = input.dim() == static_cast<std::int64_t>(shape.size()) + 1 &&
                      std::equal(shape.begin(), shape.end(), input.sizes().begin() + 1);
    if (!fits) {
        throw std::logic_error("forward: input " + core::shape_text(input.sizes().vec()) +
                               " for a model of inputs " + core::shape_text(shape));
    }
    if (views.entries.size() != graph.layout->entries().size()) {
        throw std::logic_error("forward: views of another model");
    }
    if (!views.entries.empty() && views.entries.front().scalar_type() != input.scalar_type()) {
        throw std::logic_error("forward: input and parameters differ in type (float or double)");
    }
}

}  // namespace

Views views(const Parameters& parameters) {
    const at::NoGradGuard no_grad;
    Views result;
    result.entries.reserve(parameters.layout->entries().size());
    for (std::size_t i = 0; i < parameters.layout->entries().size(); ++i) {
        result.entries.push_back(parameters.view(i));
    }
    result.counters = parameters.counters;
    return result;
}

Views leaf_views(const Parameters& parameters, const at::Tensor& gradient) {
    if (gradient.dim() != 1 || gradient.size(0) != parameters.layout->trainable_size() ||
        gradient.scalar_type() != parameters.values.scalar_type() || !gradient.is_contiguous()) {
        throw std::logic_error("leaf_views: the gradient is not [trainable_size()] of the parameters' type");
    }
    const at::NoGradGuard no_grad;
    Views result;
    result.entries.reserve(parameters.layout->entries().size());
    for (std::size_t i = 0; i < parameters.layout->entries().size(); ++i) {
        const auto& entry = parameters.layout->entries()[i];
        // variable_data gives each view a version counter of its own: otherwise a running statistic written
        // between forward and backward looks to autograd like a change of every parameter.
        auto leaf = parameters.view(i).variable_data();
        if (entry.trainable) {
            leaf.set_requires_grad(true);
            leaf.mutable_grad() = gradient.narrow(0, entry.offset, entry.size).view(entry.shape);
        }
        result.entries.push_back(std::move(leaf));
    }
    result.counters = parameters.counters;
    return result;
}

at::Tensor forward(const ModelGraph& graph, const Views& views, const at::Tensor& input, Mode mode,
                   const Tap& tap, std::size_t last) {
    check_input(graph, views, input);
    const bool to_the_end = last == static_cast<std::size_t>(-1);
    if (!to_the_end && last >= graph.operations.size()) throw std::logic_error("forward: no such operation");
    const auto count = to_the_end ? graph.operations.size() : last + 1;
    std::vector<int> readers(graph.shapes.size(), 0);
    for (const auto& operation : graph.operations) {
        for (const int value : operation.inputs) readers[static_cast<std::size_t>(value)] += 1;
    }
    std::vector<int> left = readers;
    std::vector<at::Tensor> values(graph.shapes.size());
    values[0] = input;
    Run run(graph, views, mode, static_cast<bool>(tap));
    for (std::size_t i = 0; i < count; ++i) {
        const auto& operation = graph.operations[i];
        const auto from = static_cast<std::size_t>(operation.inputs.front());
        auto output = run(i, values[from], readers[from] == 1);
        if (tap) tap(i, output);
        // Activations are the bulk of the memory: let each go after its last reader.
        if (--left[from] == 0) values[from].reset();
        values[static_cast<std::size_t>(operation.output)] = std::move(output);
    }
    return values[static_cast<std::size_t>(graph.operations[count - 1].output)];
}

}  // namespace thalweg::model
