#include <torch/types.h>

#include <algorithm>

#include "translator.hpp"

namespace thalweg::model::torchscript {

View linear(Call& call, const View& input, int weight, int bias) {
    auto& draft = call.draft();
    auto view = solid(draft, input);
    if (view.axes.empty() || view.extents().back().batch) call.refuse_batch();
    // The other axes may stand in any order.
    auto groups = storage_groups(draft, view, view.axes.back());
    if (std::all_of(groups.begin(), groups.end(), [](const Ids& group) { return group.empty(); }))
        groups.clear();
    const auto leading = groups.size();
    groups.push_back(view.axes.back());
    view = arrange(draft, view, groups);
    const auto kept = view.factors.size() - view.axes.back().size();
    view.value = draft.emit(Linear{weight, bias}, {view.value}, call.name_of(weight));
    view.factors.resize(kept);
    view.axes.back().clear();
    const auto out = draft.shape(view.value).at(leading);
    if (out > 1) {
        view.axes.back().push_back(static_cast<int>(kept));
        view.factors.push_back(out);
    }
    return view;
}

namespace {

/// Weight [out, in] and bias, or a product with whatever was computed.
void linear_call(Call& call) {
    const bool bias = !call.is_none(2);
    if (call.state(1) >= 0 && (!bias || call.state(2) >= 0)) {
        return call.write(
            linear(call, call.tensor(0), call.parameter(1, "weight"), call.parameter(2, "bias")));
    }
    auto weight = call.tensor(1);
    if (weight.axes.size() != 2) call.refuse("its weight is no matrix");
    std::swap(weight.axes[0], weight.axes[1]);
    auto result = matmul(call, call.tensor(0), weight);
    if (bias) result = add(call, result, call.tensor(2));
    call.write(std::move(result));
}

/// [N, C, …] with the batch first and the axes as they were traced.
View image(Call& call, std::size_t rank) {
    View view;
    const auto given = call.tensor(0);
    if (given.axes.size() != rank + 2)
        call.refuse("it needs [batch, channels] and " + std::to_string(rank) + " spatial axes");
    if (!in_order(call.draft(), given, view)) {
        call.refuse(
            "the batch is not its first axis, or is merged with another one: such a convolution cannot be "
            "expressed sample by sample");
    }
    return view;
}

struct ConvolutionInputs {
    std::size_t stride, padding, dilation, groups;
    std::size_t transposed = 0, output_padding = 0;  ///< 0: none
    bool is_transposed = false;
};

void convolve(Call& call, const ConvolutionInputs& at) {
    Convolution conv;
    conv.weight = call.parameter(1, "weight");
    if (conv.weight < 0) call.refuse("it has no weight");
    conv.bias = call.parameter(2, "bias");
    const auto& weight = call.draft().state().tensors[static_cast<std::size_t>(conv.weight)].tensor;
    if (weight.dim() < 3 || weight.dim() > 5) call.refuse("it has not one, two or three spatial axes");
    const auto rank = static_cast<std::size_t>(weight.dim()) - 2;
    conv.stride = call.integers(at.stride, rank);
    conv.dilation = call.integers(at.dilation, rank);
    conv.groups = call.integer(at.groups);
    conv.transposed = at.is_transposed || (at.transposed > 0 && call.flag(at.transposed));
    conv.output_padding = at.output_padding > 0 ? call.integers(at.output_padding, rank) : Sizes(rank, 0);
    auto view = image(call, rank);
    if (const auto mode = call.maybe_text(at.padding)) {
        conv.padding.assign(rank, 0);
        Sizes extra;
        bool uneven = false;
        for (std::size_t i = 0; *mode == "same" && i < rank; ++i) {
            const auto total = conv.dilation[i] * (weight.size(static_cast<std::int64_t>(i) + 2) - 1);
            conv.padding[i] = total / 2;
            uneven = uneven || total % 2 != 0;
            extra.insert(extra.begin(), {0, total % 2});
        }
        if (uneven) view.value = call.draft().emit(Pad{extra, 0.0}, {view.value});
    } else {
        conv.padding = call.integers(at.padding, rank);
    }
    call.write(plain(call.draft(), call.draft().emit(conv, {view.value}, call.name_of(conv.weight))));
}

void convolution(Call& call) {
    convolve(call, {3, 4, 5, 8, 6, 7});
}
void plain_convolution(Call& call) {
    convolve(call, {3, 4, 5, 6});
}
void transposed_convolution(Call& call) {
    convolve(call, {3, 4, 7, 6, 0, 5, true});
}

void embedding(Call& call) {
    auto& draft = call.draft();
    const int weight = call.parameter(0, "weight");
    if (!call.is_none(2) && call.integer(2) >= 0) {
        call.refuse(
            "it has a padding_idx: PyTorch does not train that row, while every row is trained here. Make "
            "the "
            "module without one");
    }
    if (!call.is_none(3) && call.integer(3) != 0) {
        call.refuse(
            "it scales gradients by how often a symbol occurs (scale_grad_by_freq), which is not done here");
    }
    const bool chosen_by_input = !call.maybe_constant(1);
    const auto sizes = draft.state().tensors[static_cast<std::size_t>(weight)].tensor.sizes();
    if (chosen_by_input) call.note_symbols(sizes[0]);
    auto view = solid(draft, call.tensor(1));
    view.value = draft.emit(Embedding{weight}, {view.value}, call.name_of(weight));
    view.axes.emplace_back();
    if (sizes[1] > 1) {
        view.axes.back().push_back(static_cast<int>(view.factors.size()));
        view.factors.push_back(sizes[1]);
    }
    call.write(std::move(view));
}

}  // namespace

void add_layers(Table& table) {
    table["linear"] = linear_call;
    table["_convolution"] = convolution;
    table["convolution"] = convolution;
    for (const char* name : {"conv1d", "conv2d", "conv3d", "_convolution_mode"})
        table[name] = plain_convolution;
    for (const char* name : {"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"})
        table[name] = transposed_convolution;
    table["embedding"] = embedding;
}

}  // namespace thalweg::model::torchscript
