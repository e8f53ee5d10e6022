#include "walk.hpp"

#include <torch/types.h>

#include <algorithm>

namespace thalweg::symmetry {

namespace {

/// Operations whose output activation matching may look at: where a channel is shown last before it is consumed. Not
/// pools, which show less of it, nor what only moves it about.
bool shows(const model::OperationKind& kind) {
    return std::holds_alternative<model::Linear>(kind) || std::holds_alternative<model::Convolution>(kind) ||
           std::holds_alternative<model::BatchNorm>(kind) || std::holds_alternative<model::LayerNorm>(kind) ||
           std::holds_alternative<model::GroupNorm>(kind) ||
           std::holds_alternative<model::Activation>(kind) || std::holds_alternative<model::PRelu>(kind) ||
           std::holds_alternative<model::Add>(kind) || std::holds_alternative<model::Multiply>(kind) ||
           std::holds_alternative<model::Embedding>(kind) || std::holds_alternative<model::Attention>(kind) ||
           std::holds_alternative<model::Lstm>(kind);
}

}  // namespace

Walk::Walk(const model::ModelGraph& graph) : graph_(graph) {
    Labels labels(graph.input_shape());
    // Of an image the channels; the positions need no label to stay.
    const std::int64_t labelled = labels.rank() > 3 ? 1 : labels.rank() - 1;
    for (std::int64_t axis = 1; axis <= labelled; ++axis) {
        const auto size = labels.shape()[static_cast<std::size_t>(axis)];
        labels.add(axis, channels.open_frozen("input", size, "input"));
    }
    labels_.push_back(std::move(labels));
    for (operation_ = 0; operation_ < graph.operations.size(); ++operation_) {
        Labels written = std::visit([this](const auto& kind) { return rule(kind); }, step().kind);
        if (shows(step().kind)) look(operation_, written);
        labels_.push_back(std::move(written));
    }
    for (const at::Tensor& patch : labels_.back().patches()) channels.freeze(line_of(patch), "output");
    channels.settle();
}

void Walk::look(std::size_t operation, const Labels& labels) {
    for (const at::Tensor& patch : labels.patches()) {
        const auto axes = axes_of(patch);
        if (axes.size() == 1) sights.push_back({operation, axes.front(), line_of(patch)});
    }
}

EntryAxis* Walk::find(int entry, std::int64_t axis) {
    for (EntryAxis& known : axes) {
        if (known.entry == static_cast<std::size_t>(entry) && known.axis == axis) return &known;
    }
    return nullptr;
}

void Walk::mark(int entry, std::int64_t axis, const Line& line) {
    if (entry < 0) return;
    if (EntryAxis* known = find(entry, axis)) {
        if (known->slabs.size() == 1) {
            channels.unite(known->slabs.front(), line);
        } else {
            channels.freeze(line, "a weight is used both grouped and whole");
            for (const Line& slab : known->slabs)
                channels.freeze(slab, "a weight is used both grouped and whole");
        }
        return;
    }
    axes.push_back({static_cast<std::size_t>(entry), axis, {line}});
}

void Walk::mark_slabs(int entry, std::int64_t axis, const Line& line, std::int64_t slabs) {
    EntryAxis* known = find(entry, axis);
    std::vector<Line> parts;
    const auto each = static_cast<std::ptrdiff_t>(line.size()) / slabs;
    for (auto begin = line.begin(); begin != line.end(); begin += each)
        parts.emplace_back(begin, begin + each);
    if (known == nullptr) {
        axes.push_back({static_cast<std::size_t>(entry), axis, std::move(parts)});
    } else if (known->slabs.size() == parts.size()) {
        for (std::size_t g = 0; g < parts.size(); ++g) channels.unite(known->slabs[g], parts[g]);
    } else {
        channels.freeze(line, "a weight is used both grouped and whole");
        for (const Line& slab : known->slabs)
            channels.freeze(slab, "a weight is used both grouped and whole");
    }
}

Line Walk::opened(int entry, std::int64_t axis) {
    const EntryAxis* known = find(entry, axis);
    if (known != nullptr && known->slabs.size() == 1) return known->slabs.front();
    const Line line = channels.open(step().name, shape_of(entry)[static_cast<std::size_t>(axis)]);
    mark(entry, axis, line);
    return line;
}

Line Walk::opened_slabs(int entry, std::int64_t axis, std::int64_t count) {
    const EntryAxis* known = find(entry, axis);
    if (known == nullptr) return channels.open(step().name, count);
    Line line;
    for (const Line& slab : known->slabs) line.insert(line.end(), slab.begin(), slab.end());
    return static_cast<std::int64_t>(line.size()) == count ? line : channels.open(step().name, count);
}

Labels Walk::with_axis(const Labels& labels, std::int64_t axis, const Line& line) {
    Labels result(shape());
    for (const at::Tensor& patch : labels.patches()) {
        if (patch.size(axis) == 1) result.add(patch);
    }
    result.add(axis, line);
    return result;
}

Labels Walk::channelwise(std::initializer_list<int> entries) {
    const Line on_channels = line(0, 1);
    for (const int entry : entries) mark(entry, 0, on_channels);
    return input(0);
}

/// Axes past the channels are treated place by place: what they stand for is fixed.
Labels Walk::spatial(const std::string& what) {
    Labels result(shape());
    for (const at::Tensor& patch : input(0).patches()) {
        const auto patch_axes = axes_of(patch);
        if (patch_axes.back() > 1) {
            channels.freeze(line_of(patch), "its places are " + what);
        } else {
            result.add(patch);
        }
    }
    return result;
}

Labels Walk::rule(const model::Linear& linear) {
    const std::int64_t last = input(0).rank() - 1;
    mark(linear.weight, 1, line(0, last));
    const Line out = opened(linear.weight, 0);
    mark(linear.bias, 0, out);
    return with_axis(input(0), last, out);
}

Labels Walk::rule(const model::Convolution& conv) {
    const Line in = line(0, 1);
    const std::int64_t out_axis = conv.transposed ? 1 : 0;
    const auto channels_in = static_cast<std::int64_t>(in.size());
    Labels result(shape());
    spatial("convolved");  // freezes what stands on spatial axes
    Line out;
    if (conv.groups == 1) {
        mark(conv.weight, 1 - out_axis, in);
        out = opened(conv.weight, out_axis);
    } else if (conv.groups == channels_in && shape().front() == channels_in) {
        mark(conv.weight, 0, in);  // depthwise: the same channels come out
        out = in;
    } else {
        // Output channels belong to the inputs of their group; the weight shows one of the two on axis 0, the other group
        // by group on axis 1.
        if (conv.transposed) {
            mark(conv.weight, 0, in);
            out = opened_slabs(conv.weight, 1, shape().front());
        } else {
            out = opened(conv.weight, 0);
        }
        channels.bind(conv.groups == channels_in ? in : channels.blocks(in, conv.groups), out);
        if (conv.transposed) mark_slabs(conv.weight, 1, out, conv.groups);
        if (!conv.transposed && conv.groups != channels_in) mark_slabs(conv.weight, 1, in, conv.groups);
    }
    mark(conv.bias, 0, out);
    result.add(1, out);
    return result;
}

Labels Walk::rule(const model::BatchNorm& norm) {
    return channelwise({norm.weight, norm.bias, norm.running_mean, norm.running_var});
}

/// Its statistics do not see the order of what it normalises over.
Labels Walk::rule(const model::LayerNorm& norm) {
    if (norm.channels_first) return channelwise({norm.weight, norm.bias});
    if (norm.weight < 0) normalised_over(input(0).rank() - norm.axes, input(0).rank());
    for (std::int64_t k = 0; k < norm.axes && norm.weight >= 0; ++k) {
        const std::int64_t axis = input(0).rank() - norm.axes + k;
        if (input(0).shape()[static_cast<std::size_t>(axis)] == 1) continue;
        const Line on_axis = line(0, axis);
        mark(norm.weight, k, on_axis);
        if (norm.bias >= 0) mark(norm.bias, k, on_axis);
    }
    return input(0);
}

Labels Walk::rule(const model::Softmax& softmax) {
    normalised_over(softmax.axis, softmax.axis + 1);
    return input(0);
}

void Walk::normalised_over(std::int64_t first, std::int64_t end) {
    for (const at::Tensor& patch : input(0).patches()) {
        std::vector<std::int64_t> others;
        for (const auto axis : axes_of(patch)) {
            if (axis < first || axis >= end) others.push_back(axis);
        }
        if (!others.empty() && others.size() < axes_of(patch).size()) blocks_along(patch, others, channels);
    }
}

Labels Walk::rule(const model::GroupNorm& norm) {
    const Line on_channels = line(0, 1);
    if (norm.groups > 1 && norm.groups < static_cast<std::int64_t>(on_channels.size()))
        channels.blocks(on_channels, norm.groups);
    return channelwise({norm.weight, norm.bias});
}

Labels Walk::rule(const model::PRelu& prelu) {
    if (shape_of(prelu.weight).front() == 1) return input(0);
    return channelwise({prelu.weight});
}

Labels Walk::rule(const model::Permute& permute) {
    Labels result(shape());
    for (const at::Tensor& patch : input(0).patches()) result.add(patch.permute(permute.order));
    return result;
}

Labels Walk::rule(const model::Expand&) {
    Labels result(shape());
    for (const at::Tensor& patch : input(0).patches()) result.add(patch);
    return result;
}

Labels Walk::rule(const model::Cat& cat) {
    bool labelled = false;
    for (std::size_t k = 0; k < step().inputs.size(); ++k)
        labelled = labelled || input(k).find(cat.axis) != nullptr;
    Line together;
    Labels rest(shape());
    for (std::size_t k = 0; k < step().inputs.size(); ++k) {
        if (labelled) {
            const Line part = line(k, cat.axis);
            together.insert(together.end(), part.begin(), part.end());
        }
        // Elsewhere the inputs lie beside each other: their other axes stand for the same.
        auto sample = shape();
        sample[static_cast<std::size_t>(cat.axis - 1)] = 1;
        Labels others(sample);
        for (const at::Tensor& patch : input(k).patches()) {
            if (patch.size(cat.axis) == 1) others.add(patch);
        }
        rest = k == 0 ? others : combined(rest, others, sample, channels);
    }
    Labels result(shape());
    for (const at::Tensor& patch : rest.patches()) result.add(patch);
    if (labelled) result.add(cat.axis, together);
    return result;
}

Labels Walk::rule(const model::Slice& slice) {
    Labels result(shape());
    for (const at::Tensor& patch : input(0).patches()) {
        if (patch.size(slice.axis) == 1) {
            result.add(patch);
            continue;
        }
        const at::Tensor cut = patch.slice(slice.axis, slice.start, slice.end, slice.step);
        if (cut.numel() < patch.numel()) {
            at::Tensor left = at::full_like(patch, nothing);
            left.slice(slice.axis, slice.start, slice.end, slice.step).copy_(cut);
            Line passage = line_of(patch);
            const Line kept = line_of(left);
            passage.insert(passage.end(), kept.begin(), kept.end());
            passages.push_back(std::move(passage));
        }
        result.add(cut);
    }
    return result;
}

Labels Walk::rule(const model::MatMul&) {
    const std::int64_t last = input(0).rank() - 1;
    Labels &a = input(0), &b = input(1);
    // The summed axis is the last of a and the one before of b: turn b, so that they lie over each other.
    const at::Tensor* of_a = a.find(last);
    const at::Tensor* of_b = b.find(last - 1);
    const auto turned = [&](const at::Tensor& patch) { return patch.transpose(last - 1, last); };
    at::Tensor batched;  // a patch of both that speaks of batch axes, too
    if (of_a != nullptr && of_b != nullptr && axes_of(*of_a).size() > 1 &&
        axes_of(*of_a) == axes_of(turned(*of_b)) && of_a->size(last - 1) == 1) {
        channels.unite(line_of(*of_a), line_of(turned(*of_b)));
        const at::Tensor rows = *of_a;
        const Line owners = channels.blocks(line_of(rows), rows.numel() / rows.size(last));
        auto sizes = rows.sizes().vec();
        sizes.back() = 1;
        batched = at::tensor(owners, at::kLong).view(sizes);
    } else if (of_a != nullptr || of_b != nullptr) {
        channels.unite(line(0, last), line(1, last - 1));
    }
    model::Sizes rows = shape(), columns = shape();
    for (std::size_t i = 0; i < rows.size(); ++i) {
        rows[i] = a.shape()[i + 1];
        columns[i] = b.shape()[i + 1];
    }
    rows.back() = 1;
    columns[columns.size() - 2] = 1;
    Labels left(rows), right(columns);
    for (const at::Tensor& patch : a.patches()) {
        if (patch.size(last) == 1) left.add(patch);
    }
    if (batched.defined()) left.add(batched);
    for (const at::Tensor& patch : b.patches()) {
        if (patch.size(last - 1) == 1) right.add(patch);
    }
    if (batched.defined()) right.add(batched);
    return combined(left, right, shape(), channels);
}

/// Heads may change places, and the channels inside a head, together for queries and keys, and for values.
Labels Walk::rule(const model::Attention& attention) {
    for (std::size_t k = 0; k < 3; ++k) {
        if (const at::Tensor* positions = input(k).find(1))
            channels.freeze(line_of(*positions), "positions of an attention");
    }
    const Line queries = line(0, 2), values = line(2, 2);
    channels.unite(queries, line(1, 2));
    if (attention.heads > 1)
        channels.unite(channels.blocks(queries, attention.heads), channels.blocks(values, attention.heads));
    Labels result(shape());
    result.add(2, values);
    return result;
}

Labels Walk::rule(const model::Reduce& reduce) {
    const auto is_reduced = [&](std::int64_t axis) {
        return std::find(reduce.axes.begin(), reduce.axes.end(), axis) != reduce.axes.end();
    };
    Labels result(shape());
    for (const at::Tensor& patch : input(0).patches()) {
        const auto patch_axes = axes_of(patch);
        const auto gone = std::count_if(patch_axes.begin(), patch_axes.end(), is_reduced);
        // A sum does not see the order of what it adds up.
        if (gone == static_cast<std::ptrdiff_t>(patch_axes.size())) continue;
        if (gone > 0) {
            channels.freeze(line_of(patch), "a mean or sum over a part of what tells them apart");
            continue;
        }
        at::Tensor kept = patch;
        if (!reduce.keep) {
            for (std::int64_t axis = patch.dim() - 1; axis > 0; --axis) {
                if (is_reduced(axis)) kept = kept.squeeze(axis);
            }
        }
        result.add(kept);
    }
    return result;
}

/// New places hold the same number for all: those of the channel axis are channels like others, which nothing tells apart.
Labels Walk::rule(const model::Pad& pad) {
    Labels result(shape());
    for (const at::Tensor& patch : input(0).patches()) {
        bool moved = false;
        for (std::size_t i = 0; i < pad.amounts.size(); ++i) {
            const std::int64_t axis = input(0).rank() - 1 - static_cast<std::int64_t>(i / 2);
            moved = moved || (pad.amounts[i] != 0 && patch.size(axis) > 1);
        }
        if (!moved) {
            result.add(patch);
            continue;
        }
        const auto patch_axes = axes_of(patch);
        const std::int64_t axis = patch_axes.front();
        const auto first = static_cast<std::size_t>(2 * (input(0).rank() - 1 - axis));
        const std::int64_t before = pad.amounts[first], after = pad.amounts[first + 1];
        if (patch_axes.size() > 1 || before < 0 || after < 0) {
            channels.freeze(line_of(patch), "cut or padded in a way that is not followed");
            continue;
        }
        Line line = channels.open(step().name, before);
        const Line inside = line_of(patch), behind = channels.open(step().name, after);
        line.insert(line.end(), inside.begin(), inside.end());
        line.insert(line.end(), behind.begin(), behind.end());
        result.add(axis, line);
    }
    return result;
}

Labels Walk::rule(const model::Embedding& embedding) {
    channels.freeze(opened(embedding.weight, 0), "symbols of the input");
    Labels result(shape());
    for (const at::Tensor& patch : input(0).patches()) result.add(patch.unsqueeze(-1));
    result.add(result.rank() - 1, opened(embedding.weight, 1));
    return result;
}

Labels Walk::rule(const model::Parameter& parameter) {
    Labels result(shape());
    const auto& own = shape_of(parameter.weight);
    // Its axes are the sample's, up to some of size 1.
    std::int64_t axis = 0;
    for (std::size_t k = 0; k < own.size(); ++k) {
        if (own[k] == 1) continue;
        do ++axis;
        while (axis < result.rank() && result.shape()[static_cast<std::size_t>(axis)] == 1);
        if (axis >= result.rank() || result.shape()[static_cast<std::size_t>(axis)] != own[k]) {
            for (std::size_t j = 0; j < own.size(); ++j) {
                channels.freeze(opened(parameter.weight, static_cast<std::int64_t>(j)),
                                "a reshaped parameter");
            }
            return Labels(shape());
        }
        result.add(axis, opened(parameter.weight, static_cast<std::int64_t>(k)));
    }
    return result;
}

/// One permutation of the hidden state, repeated over the four gates; positions stay.
Labels Walk::rule(const model::Lstm& lstm) {
    if (const at::Tensor* positions = input(0).find(1))
        channels.freeze(line_of(*positions), "positions of an LSTM");
    mark(lstm.weight_input, 1, line(0, 2));
    const Line hidden = opened(lstm.weight_hidden, 1);
    Line gates;
    for (int gate = 0; gate < 4; ++gate) gates.insert(gates.end(), hidden.begin(), hidden.end());
    for (const int entry : {lstm.weight_input, lstm.weight_hidden, lstm.bias_input, lstm.bias_hidden})
        mark(entry, 0, gates);
    Labels result(shape());
    result.add(2, hidden);
    return result;
}

}  // namespace thalweg::symmetry
