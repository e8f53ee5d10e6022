#include "gauge_walk.hpp"

#include <torch/types.h>

#include <algorithm>
#include <iterator>
#include <map>

#include "labels.hpp"

namespace thalweg::symmetry {

namespace {

/// Without the axes along which all is alike.
at::Tensor shrunk(at::Tensor factors) {
    for (std::int64_t axis = 0; axis < factors.dim(); ++axis) {
        const at::Tensor first = factors.narrow(axis, 0, 1);
        if (factors.size(axis) > 1 && factors.eq(first).all().item<bool>()) factors = first;
    }
    return factors;
}

}  // namespace

GaugeWalk::GaugeWalk(const model::ModelGraph& graph, Gauge::Kind kind) : graph_(graph), kind_(kind) {
    channels.open_frozen("", 1, "input");
    factors_.push_back(at::zeros(std::vector<std::int64_t>(graph.input_shape().size() + 1, 1), at::kLong));
    for (operation_ = 0; operation_ < graph.operations.size(); ++operation_)
        factors_.push_back(std::visit([this](const auto& of) { return rule(of); }, step().kind));
    freeze(factors_.back(), "output");
    settle_shared();
}

GaugeWalk::Factors GaugeWalk::ones() const {
    return at::zeros(std::vector<std::int64_t>(shape().size() + 1, 1), at::kLong);
}

GaugeWalk::Factors GaugeWalk::open(std::int64_t count) {
    return at::tensor(channels.open(step().name, count), at::kLong);
}

bool GaugeWalk::are_ones(const Factors& factors) const {
    const Line line = line_of(factors);
    return std::all_of(line.begin(), line.end(), [this](Channel c) { return !channels.frozen(c).empty(); });
}

void GaugeWalk::freeze(const Factors& factors, const std::string& reason) {
    channels.freeze(line_of(factors), reason);
}

void GaugeWalk::unite(const Factors& a, const Factors& b) {
    const auto both = at::broadcast_tensors({a, b});
    channels.unite(line_of(both[0]), line_of(both[1]));
}

GaugeWalk::Factors GaugeWalk::along(std::size_t k, std::int64_t axis) {
    const Factors& factors = input(k);
    const std::int64_t size = input_shape(k)[static_cast<std::size_t>(axis - 1)];
    if (factors.size(axis) != factors.numel()) {
        freeze(factors, "their factors differ across positions");
        return at::zeros({size}, at::kLong);
    }
    return factors.flatten().expand({size}).contiguous();
}

GaugeWalk::Factors GaugeWalk::on_axis(const Factors& line, std::int64_t axis) const {
    std::vector<std::int64_t> sizes(shape().size() + 1, 1);
    sizes[static_cast<std::size_t>(axis)] = line.size(0);
    return line.view(sizes);
}

void GaugeWalk::mark(int entry, const Factors& factors, int exponent) {
    if (entry >= 0)
        marks.push_back({operation_, static_cast<std::size_t>(entry), factors.contiguous(), exponent});
}

GaugeWalk::Factors GaugeWalk::ends(const std::string& reason) {
    for (std::size_t k = 0; k < step().inputs.size(); ++k) freeze(input(k), reason);
    return ones();
}

GaugeWalk::Factors GaugeWalk::if_scales(const std::string& name, bool over_places) {
    if (signs()) return ends(name);
    return over_places ? spatial() : input(0);
}

GaugeWalk::Factors GaugeWalk::spatial() {
    const Factors line = along(0, 1);
    return on_axis(line, 1);
}

GaugeWalk::Factors GaugeWalk::reshaped(const Factors& factors) const {
    std::vector<std::int64_t> from = graph_.shapes[static_cast<std::size_t>(step().inputs.front())];
    std::vector<std::int64_t> to = shape();
    from.insert(from.begin(), 1);
    to.insert(to.begin(), 1);
    return shrunk(factors.expand(from).reshape(to));
}

GaugeWalk::Factors GaugeWalk::rule(const model::Linear& linear) {
    const std::int64_t last = input(0).dim() - 1;
    const auto& weight = entry_shape(linear.weight);
    mark(linear.weight, along(0, last), -1);
    const Factors out = open(weight.front());
    mark(linear.weight, out.unsqueeze(1), 1);
    mark(linear.bias, out, 1);
    return on_axis(out, last);
}

GaugeWalk::Factors GaugeWalk::rule(const model::Convolution& conv) {
    const Factors in = along(0, 1), out = open(shape().front());
    const std::int64_t groups = conv.groups, ins = in.size(0) / groups, outs = out.size(0) / groups;
    std::vector<std::int64_t> sizes(entry_shape(conv.weight).size(), 1);
    // Of output channel and input channel in its group; transposed: the other way round.
    Factors of_in = in.view({groups, 1, ins}).expand({groups, outs, ins});
    Factors of_out = out.view({groups, outs, 1}).expand({groups, outs, ins});
    if (conv.transposed) {
        of_in = of_in.transpose(1, 2);
        of_out = of_out.transpose(1, 2);
    }
    sizes[0] = groups * of_in.size(1);
    sizes[1] = of_in.size(2);
    mark(conv.weight, of_in.reshape(sizes), -1);
    mark(conv.weight, of_out.reshape(sizes), 1);
    mark(conv.bias, out, 1);
    return on_axis(out, 1);
}

/// `before`: the factors on the axis that pass the normalisation.
GaugeWalk::Factors GaugeWalk::after_norm(int weight, int bias, std::int64_t axis, const Factors& before) {
    if (weight < 0 || bias < 0) return on_axis(before, axis);
    const Factors out = open(before.size(0));
    mark(weight, before, -1);
    mark(weight, out, 1);
    mark(bias, out, 1);
    return on_axis(out, axis);
}

GaugeWalk::Factors GaugeWalk::rule(const model::BatchNorm& norm) {
    Factors before = along(0, 1);
    if (signs()) {
        mark(norm.running_mean, before, 1);
    } else {
        freeze(before, "the epsilon of a norm");
        before = at::zeros_like(before);
    }
    return after_norm(norm.weight, norm.bias, 1, before);
}

GaugeWalk::Factors GaugeWalk::rule(const model::LayerNorm& norm) {
    freeze(input(0), "a norm over channels");
    const std::int64_t last = input(0).dim() - 1;
    if (norm.channels_first) return after_norm(norm.weight, norm.bias, 1, at::zeros({shape()[0]}, at::kLong));
    if (norm.weight < 0 || norm.axes != 1) return ones();
    return after_norm(norm.weight, norm.bias, last, at::zeros({shape().back()}, at::kLong));
}

GaugeWalk::Factors GaugeWalk::rule(const model::GroupNorm& norm) {
    Factors before = along(0, 1);
    const bool instance = norm.groups == shape().front();
    if (!signs() || !instance) {
        freeze(before, instance ? "the epsilon of a norm" : "a norm over channels");
        before = at::zeros_like(before);
    }
    return after_norm(norm.weight, norm.bias, 1, before);
}

GaugeWalk::Factors GaugeWalk::rule(const model::Activation& activation) {
    using Kind = model::ActivationKind;
    const bool homogeneous = activation.kind == Kind::relu || activation.kind == Kind::leaky_relu;
    const bool odd = activation.kind == Kind::tanh ||
                     (activation.kind == Kind::hard_tanh && activation.first == -activation.second);
    return (signs() ? odd : homogeneous) ? input(0) : ends(model::activation_name(activation.kind));
}

GaugeWalk::Factors GaugeWalk::rule(const model::Cat& cat) {
    std::vector<at::Tensor> parts;
    std::vector<std::int64_t> sizes(shape().size() + 1, 1);
    for (std::size_t k = 0; k < step().inputs.size(); ++k) {
        for (std::size_t axis = 0; axis < sizes.size(); ++axis)
            sizes[axis] = std::max(sizes[axis], input(k).size(static_cast<std::int64_t>(axis)));
    }
    for (std::size_t k = 0; k < step().inputs.size(); ++k) {
        sizes[static_cast<std::size_t>(cat.axis)] = input_shape(k)[static_cast<std::size_t>(cat.axis - 1)];
        parts.push_back(input(k).expand(sizes));
    }
    return shrunk(at::cat(parts, cat.axis));
}

GaugeWalk::Factors GaugeWalk::rule(const model::Slice& slice) {
    if (input(0).size(slice.axis) == 1) return input(0);
    return input(0).slice(slice.axis, slice.start, slice.end, slice.step);
}

GaugeWalk::Factors GaugeWalk::rule(const model::Add&) {
    unite(input(0), input(1));
    return at::broadcast_tensors({input(0), input(1)})[0];
}

/// One side passes its factors where the other has none (a gate of sigmoids).
GaugeWalk::Factors GaugeWalk::rule(const model::Multiply&) {
    for (const std::size_t k : {0, 1}) {
        if (are_ones(input(1 - k))) return input(k);
    }
    return ends("a product of two values");
}

GaugeWalk::Factors GaugeWalk::rule(const model::Divide&) {
    return are_ones(input(1)) ? input(0) : ends("a quotient of two values");
}

GaugeWalk::Factors GaugeWalk::rule(const model::MatMul&) {
    const std::int64_t last = input(0).dim() - 1;
    if (are_ones(input(0)) && input(1).size(last - 1) == 1) return input(1);
    if (are_ones(input(1)) && input(0).size(last) == 1) return input(0);
    return ends("a product of two values");
}

/// Linear in the values.
GaugeWalk::Factors GaugeWalk::rule(const model::Attention&) {
    freeze(input(0), "softmax");
    freeze(input(1), "softmax");
    return on_axis(along(2, 2), 2);
}

GaugeWalk::Factors GaugeWalk::rule(const model::Reduce& reduce) {
    Factors kept = input(0);
    for (const auto axis : reduce.axes) {
        if (kept.size(axis) > 1) return ends("a mean or sum over channels");
    }
    if (reduce.keep) return kept;
    auto gone = reduce.axes;
    std::sort(gone.rbegin(), gone.rend());
    for (const auto axis : gone) kept = kept.squeeze(axis);
    return kept;
}

GaugeWalk::Factors GaugeWalk::rule(const model::Pad& pad) {
    if (pad.value != 0) return ends("padding with a number");
    Factors padded = input(0);
    for (std::size_t i = 0; i < pad.amounts.size(); i += 2) {
        const std::int64_t axis = padded.dim() - 1 - static_cast<std::int64_t>(i / 2);
        if (padded.size(axis) == 1 || (pad.amounts[i] == 0 && pad.amounts[i + 1] == 0)) continue;
        std::vector<std::int64_t> amounts(i + 2, 0);
        amounts[i] = pad.amounts[i];
        amounts[i + 1] = pad.amounts[i + 1];
        // Zero times any factor is zero: the new places may have any.
        padded = at::constant_pad_nd(padded, amounts, -1);
        const at::Tensor fresh = padded.eq(-1);
        padded = padded.masked_scatter(fresh, open(fresh.sum().item<std::int64_t>()));
    }
    return padded;
}

GaugeWalk::Factors GaugeWalk::rule(const model::Embedding& embedding) {
    const Factors out = open(entry_shape(embedding.weight).back());
    mark(embedding.weight, out, 1);
    return on_axis(out, static_cast<std::int64_t>(shape().size()));
}

GaugeWalk::Factors GaugeWalk::rule(const model::Parameter& parameter) {
    // Along the last axis of more than one place: the channels of positional parameters, class tokens and layer scales.
    std::int64_t axis = static_cast<std::int64_t>(shape().size());
    while (axis > 1 && shape()[static_cast<std::size_t>(axis - 1)] == 1) --axis;
    const Factors out = on_axis(open(shape()[static_cast<std::size_t>(axis - 1)]), axis);
    auto sizes = shape();
    sizes.insert(sizes.begin(), 1);
    mark(parameter.weight, shrunk(out.expand(sizes).reshape(entry_shape(parameter.weight))), 1);
    return out;
}

/// The hidden state is o·tanh(c) and c a sum of products with tanh of the cell gate: flipping the cell gate's rows and all
/// that reads the state flips both.
GaugeWalk::Factors GaugeWalk::rule(const model::Lstm& lstm) {
    mark(lstm.weight_input, along(0, 2), -1);
    const std::int64_t hidden = shape().back();
    if (!signs()) return ones();
    const Factors out = open(hidden), fixed = at::zeros({hidden}, at::kLong);
    const Factors gates = at::cat({fixed, fixed, out, fixed});
    mark(lstm.weight_input, gates.unsqueeze(1), 1);
    mark(lstm.weight_hidden, gates.unsqueeze(1), 1);
    mark(lstm.weight_hidden, out, -1);
    mark(lstm.bias_input, gates, 1);
    mark(lstm.bias_hidden, gates, 1);
    return on_axis(out, 2);
}

/// What an entry is multiplied by for one operation, it is multiplied by for all that share it.
void GaugeWalk::settle_shared() {
    std::map<std::size_t, std::map<std::size_t, std::vector<const Mark*>>> uses;  // by entry and operation
    for (const Mark& mark : marks) uses[mark.entry][mark.operation].push_back(&mark);
    std::vector<Mark> kept;
    for (const auto& [entry, by_operation] : uses) {
        const auto& first = by_operation.begin()->second;
        for (auto other = std::next(by_operation.begin()); other != by_operation.end(); ++other)
            match(first, other->second);
        for (const Mark* mark : first) kept.push_back(*mark);
    }
    marks = std::move(kept);
}

void GaugeWalk::match(std::vector<const Mark*> first, const std::vector<const Mark*>& second) {
    for (const Mark* mark : second) {
        const auto same = std::find_if(first.begin(), first.end(), [&](const Mark* other) {
            return other->factors.sizes() == mark->factors.sizes() &&
                   (signs() || other->exponent == mark->exponent);
        });
        if (same == first.end()) {
            freeze(mark->factors, "a shared parameter");
        } else {
            unite((*same)->factors, mark->factors);
            first.erase(same);
        }
    }
    for (const Mark* mark : first) freeze(mark->factors, "a shared parameter");
}

}  // namespace thalweg::symmetry
