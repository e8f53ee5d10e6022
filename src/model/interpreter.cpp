#include "thalweg/model/interpreter.hpp"

#include <c10/util/accumulate.h>
#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "thalweg/core/error.hpp"
#include "thalweg/core/text.hpp"

namespace thalweg::model {

namespace {

/// One run of a graph. Each operation reads the values it names and returns its own.
class Run {
  public:
    using Inputs = std::vector<at::Tensor>;

    Run(const ModelGraph& graph, const Views& views, at::ScalarType type, Mode mode, bool tapped)
        : graph_(graph), views_(views), type_(type), mode_(mode), tapped_(tapped) {}

    at::Tensor operator()(std::size_t index, const Inputs& inputs, bool sole_reader) {
        index_ = index;
        sole_reader_ = sole_reader;
        return std::visit([&](const auto& kind) { return apply(kind, inputs); },
                          graph_.operations[index].kind);
    }

  private:
    at::Tensor entry(int index) const {
        return index < 0 ? at::Tensor() : views_.entries[static_cast<std::size_t>(index)];
    }
    bool training() const { return mode_ == Mode::train; }

    at::Tensor apply(const Linear& linear, const Inputs& in) const {
        const auto& x = in[0];
        if (x.dim() != 2) return at::linear(x, entry(linear.weight), entry(linear.bias));
        // What at::linear comes down to, without its own trip through the dispatcher.
        const auto transposed = entry(linear.weight).t();
        return linear.bias < 0 ? at::mm(x, transposed) : at::addmm(entry(linear.bias), x, transposed);
    }

    at::Tensor apply(const Convolution& conv, const Inputs& in) const {
        if (!conv.transposed && conv.stride.size() == 2) {
            return at::conv2d(in[0], entry(conv.weight), entry(conv.bias), conv.stride, conv.padding,
                              conv.dilation, conv.groups);
        }
        return at::convolution(in[0], entry(conv.weight), entry(conv.bias), conv.stride, conv.padding,
                               conv.dilation, conv.transposed, conv.output_padding, conv.groups);
    }

    at::Tensor apply(const BatchNorm& norm, const Inputs& in) const {
        if (training()) {
            require_two_values(in[0]);
            if (norm.counter >= 0) views_.counters.data_ptr<std::int64_t>()[norm.counter] += 1;
        }
        return at::batch_norm(in[0], entry(norm.weight), entry(norm.bias), entry(norm.running_mean),
                              entry(norm.running_var), training() || norm.running_mean < 0, norm.momentum,
                              norm.epsilon, true);
    }

    at::Tensor apply(const LayerNorm& norm, const Inputs& in) const {
        const auto& x = in[0];
        const auto weight = entry(norm.weight);
        const auto bias = entry(norm.bias);
        if (!norm.channels_first) {
            return at::layer_norm(x, x.sizes().slice(static_cast<std::size_t>(x.dim() - norm.axes)), weight,
                                  bias, norm.epsilon);
        }
        const auto channels_last = x.movedim(1, -1);
        return at::layer_norm(channels_last, {x.size(1)}, weight, bias, norm.epsilon).movedim(-1, 1);
    }

    at::Tensor apply(const GroupNorm& norm, const Inputs& in) const {
        return at::group_norm(in[0], norm.groups, entry(norm.weight), entry(norm.bias), norm.epsilon);
    }

    at::Tensor apply(const Activation& activation, const Inputs& in) const {
        const auto& x = in[0];
        switch (activation.kind) {
            case ActivationKind::relu:
                return may_overwrite() ? x.relu_() : at::relu(x);
            case ActivationKind::tanh:
                return may_overwrite() ? x.tanh_() : at::tanh(x);
            case ActivationKind::gelu:
                return at::gelu(x);
            case ActivationKind::gelu_tanh:
                return at::gelu(x, "tanh");
            case ActivationKind::leaky_relu:
                return at::leaky_relu(x, activation.first);
            case ActivationKind::relu6:
                return at::hardtanh(x, 0.0, 6.0);
            case ActivationKind::elu:
                return at::elu(x, activation.first);
            case ActivationKind::silu:
                return at::silu(x);
            case ActivationKind::sigmoid:
                return at::sigmoid(x);
            case ActivationKind::hard_swish:
                return at::hardswish(x);
            case ActivationKind::hard_sigmoid:
                return at::hardsigmoid(x);
            case ActivationKind::hard_tanh:
                return at::hardtanh(x, activation.first, activation.second);
            case ActivationKind::softplus:
                return at::softplus(x);
        }
        throw std::logic_error("forward: not an activation");
    }

    at::Tensor apply(const PRelu& prelu, const Inputs& in) const {
        return at::prelu(in[0], entry(prelu.weight));
    }
    at::Tensor apply(const Softmax& softmax, const Inputs& in) const {
        return softmax.log ? at::log_softmax(in[0], softmax.axis) : at::softmax(in[0], softmax.axis);
    }

    at::Tensor apply(const Dropout& dropout, const Inputs& in) const {
        if (!training() || dropout.p == 0.0) return in[0];
        if (views_.random == nullptr)
            throw std::logic_error("forward: dropout in train mode without random draws");
        auto mask = at::empty(in[0].sizes(), in[0].options().dtype(at::kFloat).requires_grad(false));
        auto* data = mask.data_ptr<float>();
        const auto kept = dropout.p < 1.0 ? static_cast<float>(1.0 / (1.0 - dropout.p)) : 0.0F;
        std::generate(data, data + mask.numel(),
                      [&] { return views_.random->uniform() < dropout.p ? 0.0F : kept; });
        return in[0] * mask.to(in[0].scalar_type());
    }

    at::Tensor apply(const MaxPool& pool, const Inputs& in) const {
        switch (pool.kernel.size()) {
            case 1:
                return at::max_pool1d(in[0], pool.kernel, pool.stride, pool.padding, pool.dilation,
                                      pool.ceil);
            case 2:
                return at::max_pool2d(in[0], pool.kernel, pool.stride, pool.padding, pool.dilation,
                                      pool.ceil);
            default:
                return at::max_pool3d(in[0], pool.kernel, pool.stride, pool.padding, pool.dilation,
                                      pool.ceil);
        }
    }

    at::Tensor apply(const AvgPool& pool, const Inputs& in) const {
        switch (pool.kernel.size()) {
            case 1:
                return at::avg_pool1d(in[0], pool.kernel, pool.stride, pool.padding, pool.ceil,
                                      pool.count_padding);
            case 2:
                return at::avg_pool2d(in[0], pool.kernel, pool.stride, pool.padding, pool.ceil,
                                      pool.count_padding);
            default:
                return at::avg_pool3d(in[0], pool.kernel, pool.stride, pool.padding, pool.ceil,
                                      pool.count_padding);
        }
    }

    at::Tensor apply(const AdaptivePool& pool, const Inputs& in) const {
        const auto& x = in[0];
        switch (pool.output.size()) {
            case 1:
                return pool.max ? std::get<0>(at::adaptive_max_pool1d(x, pool.output))
                                : at::adaptive_avg_pool1d(x, pool.output);
            case 2:
                return pool.max ? std::get<0>(at::adaptive_max_pool2d(x, pool.output))
                                : at::adaptive_avg_pool2d(x, pool.output);
            default:
                return pool.max ? std::get<0>(at::adaptive_max_pool3d(x, pool.output))
                                : at::adaptive_avg_pool3d(x, pool.output);
        }
    }

    /// The batch's size and what a sample has after this operation.
    std::vector<std::int64_t> batched(const at::Tensor& x, const Sizes& sample) const {
        std::vector<std::int64_t> shape{x.size(0)};
        shape.insert(shape.end(), sample.begin(), sample.end());
        return shape;
    }

    at::Tensor apply(const Flatten&, const Inputs& in) const {
        const auto value = static_cast<std::size_t>(graph_.operations[index_].output);
        return in[0].reshape({in[0].size(0), graph_.shapes[value].front()});
    }
    at::Tensor apply(const Reshape& reshape, const Inputs& in) const {
        return in[0].reshape(batched(in[0], reshape.shape));
    }
    at::Tensor apply(const Permute& permute, const Inputs& in) const { return in[0].permute(permute.order); }
    at::Tensor apply(const Expand& expand, const Inputs& in) const {
        return in[0].expand(batched(in[0], expand.shape));
    }

    at::Tensor apply(const Cat& cat, const Inputs& in) const {
        std::int64_t batch = 1;
        for (const auto& x : in) batch = std::max(batch, x.size(0));
        std::vector<at::Tensor> parts;
        for (const auto& x : in) {  // parameters and constants have a batch of one
            auto shape = x.sizes().vec();
            shape[0] = batch;
            parts.push_back(x.expand(shape));
        }
        return at::cat(parts, cat.axis);
    }

    at::Tensor apply(const Slice& slice, const Inputs& in) const {
        return in[0].slice(slice.axis, slice.start, slice.end, slice.step);
    }
    at::Tensor apply(const Add& add, const Inputs& in) const { return at::add(in[0], in[1], add.factor); }
    at::Tensor apply(const Multiply&, const Inputs& in) const { return in[0] * in[1]; }
    at::Tensor apply(const Divide&, const Inputs& in) const { return in[0] / in[1]; }
    at::Tensor apply(const Affine& affine, const Inputs& in) const {
        return affine.offset == 0.0 ? in[0] * affine.factor : in[0] * affine.factor + affine.offset;
    }
    at::Tensor apply(const MatMul&, const Inputs& in) const { return at::matmul(in[0], in[1]); }

    at::Tensor apply(const Attention& attention, const Inputs& in) const {
        // [N, T, E] → [N, heads, T, E / heads]
        const auto split = [&](const at::Tensor& x) {
            return x.unflatten(2, {attention.heads, x.size(2) / attention.heads}).transpose(1, 2);
        };
        const auto q = split(in[0]);
        auto scores = at::matmul(q, split(in[1]).transpose(2, 3)) / std::sqrt(static_cast<double>(q.size(3)));
        if (attention.causal) {
            const auto later =
                at::ones({scores.size(2), scores.size(3)}, scores.options().dtype(at::kBool)).triu(1);
            scores = scores.masked_fill(later, -std::numeric_limits<double>::infinity());
        }
        return at::matmul(at::softmax(scores, 3), split(in[2])).transpose(1, 2).flatten(2);
    }

    at::Tensor apply(const Reduce& reduce, const Inputs& in) const {
        return reduce.mean ? in[0].mean(reduce.axes, reduce.keep) : in[0].sum(reduce.axes, reduce.keep);
    }
    at::Tensor apply(const Upsample& upsample, const Inputs& in) const {
        return upsample.bilinear ? at::upsample_bilinear2d(in[0], upsample.size, upsample.align_corners)
                                 : at::upsample_nearest2d(in[0], upsample.size);
    }
    at::Tensor apply(const Pad& pad, const Inputs& in) const {
        return at::constant_pad_nd(in[0], pad.amounts, pad.value);
    }
    at::Tensor apply(const Embedding& embedding, const Inputs& in) const {
        const auto weight = entry(embedding.weight);
        const auto symbols = in[0].detach().to(at::kLong);
        require_symbols(in[0], symbols, weight.size(0));
        return at::embedding(weight, symbols);
    }

    at::Tensor apply(const Parameter& parameter, const Inputs&) const {
        Sizes shape{1};
        shape.insert(shape.end(), parameter.shape.begin(), parameter.shape.end());
        return entry(parameter.weight).reshape(shape);
    }
    at::Tensor apply(const Constant& constant, const Inputs&) const {
        Sizes shape{1};
        shape.insert(shape.end(), constant.shape.begin(), constant.shape.end());
        return graph_.constants.at(static_cast<std::size_t>(constant.index)).to(type_).reshape(shape);
    }

    at::Tensor apply(const Lstm& lstm, const Inputs& in) const {
        const auto& x = in[0];
        std::vector<at::Tensor> weights{entry(lstm.weight_input), entry(lstm.weight_hidden)};
        if (lstm.bias_input >= 0) weights.push_back(entry(lstm.bias_input));
        if (lstm.bias_hidden >= 0) weights.push_back(entry(lstm.bias_hidden));
        const auto zero = at::zeros({1, x.size(0), weights[1].size(1)}, x.options().requires_grad(false));
        return std::get<0>(
            at::lstm(x, {zero, zero}, weights, lstm.bias_input >= 0, 1, 0.0, training(), false, true));
    }

    /// The value this operation reads may be written over when nobody else sees it (no tap, no other reader)
    /// and its producer does not need it for its gradient. Linear, convolution and norms need their inputs
    /// only.
    bool may_overwrite() const {
        if (tapped_ || !sole_reader_) return false;
        const int value = graph_.operations[index_].inputs.front();
        if (value == 0) return false;
        const auto& producer = graph_.operations[static_cast<std::size_t>(value) - 1].kind;
        // Channels-first layer norm ends in a view, and autograd is slow when a view is written to; so may a linear
        // over more than one axis.
        const bool flat = graph_.shapes[static_cast<std::size_t>(value)].size() == 1;
        return std::holds_alternative<Convolution>(producer) || std::holds_alternative<BatchNorm>(producer) ||
               (flat &&
                (std::holds_alternative<Linear>(producer) || std::holds_alternative<LayerNorm>(producer)));
    }

    void require_symbols(const at::Tensor& given, const at::Tensor& symbols, std::int64_t count) const {
        if (symbols.numel() == 0) return;
        const bool valid = symbols.min().item<std::int64_t>() >= 0 &&
                           symbols.max().item<std::int64_t>() < count && at::equal(given, symbols.to(type_));
        if (valid) return;
        throw core::RunError("The embedding " + graph_.operations[index_].name +
                             " was given numbers that are no symbols: it needs whole numbers from 0 to " +
                             std::to_string(count - 1) + ", such as a data set of text has.");
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
    at::ScalarType type_;
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

at::Tensor run_operation(const ModelGraph& graph, const Views& views, std::size_t operation,
                         const std::vector<at::Tensor>& inputs) {
    const auto type = inputs.empty() ? views.entries.front().scalar_type() : inputs.front().scalar_type();
    Run run(graph, views, type, Mode::evaluate, true);
    return run(operation, inputs, false);
}

std::int64_t samples_at_once(const ModelGraph& graph) {
    constexpr std::int64_t wanted = std::int64_t{1} << 21, least = 16, most = 500;
    std::int64_t largest = 1;
    for (const auto& shape : graph.shapes) largest = std::max(largest, c10::multiply_integers(shape));
    const std::int64_t fitting = wanted / largest;
    return fitting >= most ? most : std::max(least, fitting / least * least);
}

namespace {

/// `touch(i, inputs, output)` after every operation; what it returns is written.
template <class Touch>
at::Tensor run_through(const ModelGraph& graph, const Views& views, const at::Tensor& input, Mode mode,
                       bool tapped, std::size_t last, const Touch& touch) {
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
    Run run(graph, views, input.scalar_type(), mode, tapped);
    std::vector<at::Tensor> inputs;
    for (std::size_t i = 0; i < count; ++i) {
        const auto& operation = graph.operations[i];
        inputs.clear();
        for (const int value : operation.inputs) inputs.push_back(values[static_cast<std::size_t>(value)]);
        const bool sole_reader =
            operation.inputs.size() == 1 && readers[static_cast<std::size_t>(operation.inputs[0])] == 1;
        auto output = touch(i, inputs, run(i, inputs, sole_reader));
        // Activations are the bulk of the memory: let each go after its last reader.
        inputs.clear();
        for (const int from : operation.inputs) {
            const auto value = static_cast<std::size_t>(from);
            if (--left[value] == 0) values[value].reset();
        }
        values[static_cast<std::size_t>(operation.output)] = std::move(output);
    }
    return values[static_cast<std::size_t>(graph.operations[count - 1].output)];
}

}  // namespace

at::Tensor forward(const ModelGraph& graph, const Views& views, const at::Tensor& input, Mode mode,
                   const Tap& tap, std::size_t last) {
    return run_through(graph, views, input, mode, static_cast<bool>(tap), last,
                       [&](std::size_t i, const std::vector<at::Tensor>&, at::Tensor output) {
                           if (tap) tap(i, output);
                           return output;
                       });
}

at::Tensor forward_edited(const ModelGraph& graph, const Views& views, const at::Tensor& input,
                          const Edit& edit, std::size_t last) {
    return run_through(graph, views, input, Mode::evaluate, true, last, edit);
}

}  // namespace thalweg::model
