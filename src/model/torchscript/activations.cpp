#include <cmath>
#include <limits>

#include "translator.hpp"

namespace thalweg::model::torchscript {

namespace {

/// Element by element: the mapping of axes stays as it is.
void apply(Call& call, ActivationKind kind, double first = 0, double second = 0) {
    auto view = call.tensor(0);
    view.value = call.draft().emit(Activation{kind, first, second}, {view.value});
    call.write(std::move(view));
}

template <ActivationKind kind>
void simple(Call& call) {
    apply(call, kind);
}

void gelu(Call& call) {
    const bool tanh = call.maybe_text(1).value_or("none") == "tanh";
    apply(call, tanh ? ActivationKind::gelu_tanh : ActivationKind::gelu);
}

void leaky_relu(Call& call) {
    apply(call, ActivationKind::leaky_relu, call.is_none(1) ? 0.01 : call.number(1));
}

void elu(Call& call) {
    for (const std::size_t scale : {2U, 3U}) {
        if (!call.is_none(scale) && call.number(scale) != 1.0)
            call.refuse("only elu itself is supported, not its scaled form selu");
    }
    apply(call, ActivationKind::elu, call.is_none(1) ? 1.0 : call.number(1));
}

void softplus(Call& call) {
    if ((!call.is_none(1) && call.number(1) != 1.0) || (!call.is_none(2) && call.number(2) != 20.0))
        call.refuse("only a softplus of beta 1 and threshold 20 is supported");
    apply(call, ActivationKind::softplus);
}

void limit(Call& call, double low, double high) {
    if (low == 0.0 && high == std::numeric_limits<double>::infinity())
        return apply(call, ActivationKind::relu);
    if (low == 0.0 && high == 6.0) return apply(call, ActivationKind::relu6);
    apply(call, ActivationKind::hard_tanh, low, high);
}

void hardtanh(Call& call) {
    limit(call, call.is_none(1) ? -1.0 : call.number(1), call.is_none(2) ? 1.0 : call.number(2));
}

void clamp(Call& call) {
    const auto infinity = std::numeric_limits<double>::infinity();
    limit(call, call.is_none(1) ? -infinity : call.number(1), call.is_none(2) ? infinity : call.number(2));
}

void threshold(Call& call) {
    if (call.number(1) != 0.0 || call.number(2) != 0.0)
        call.refuse("only a threshold of 0 with the value 0 is supported");
    apply(call, ActivationKind::relu);
}

/// A slope for each channel (traced axis 1), or one for all.
void prelu(Call& call) {
    const int weight = call.parameter(1, "weight");
    if (weight < 0) call.refuse("it has no weight");
    auto view = call.tensor(0);
    if (call.draft().state().tensors[static_cast<std::size_t>(weight)].tensor.numel() > 1) {
        view = solid(call.draft(), view);
        if (view.axes.size() < 2) call.refuse("it needs an axis of channels");
        const auto channels = view.axes[1];
        auto groups = storage_groups(call.draft(), view, channels);
        groups.insert(groups.begin(), channels);
        view = arrange(call.draft(), view, groups);
    }
    view.value = call.draft().emit(PRelu{weight}, {view.value}, call.name_of(weight));
    call.write(std::move(view));
}

void softmax(Call& call, bool log) {
    const auto rank = call.tensor(0).axes.size();
    const auto axis = call.axis(1, rank);
    auto view = call.tensor(0);
    if (view.extents()[axis].batch) call.refuse_batch();
    Softmax softmax;
    softmax.log = log;
    view = isolate(call.draft(), view, axis, softmax.axis);
    view.value = call.draft().emit(softmax, {view.value});
    call.write(std::move(view));
}

void plain_softmax(Call& call) {
    softmax(call, false);
}
void log_softmax(Call& call) {
    softmax(call, true);
}

void dropout(Call& call) {
    auto view = call.tensor(0);
    const auto p = call.number(1);
    if (p > 0.0) {
        view = solid(call.draft(), view);
        view.value = call.draft().emit(Dropout{p}, {view.value});
    }
    call.write(std::move(view));
}

/// Whole channels are dropped: one draw each, as the dropout of a one, multiplied in.
void feature_dropout(Call& call) {
    auto& draft = call.draft();
    auto view = call.tensor(0);
    const auto p = call.number(1);
    View ordered;
    if (p > 0.0) {
        if (view.axes.size() < 3 || !in_order(draft, view, ordered))
            call.refuse("it needs [batch, channels, …] with the batch first");
        Sizes axes;
        for (std::size_t i = 1; i < draft.shape(ordered.value).size(); ++i)
            axes.push_back(static_cast<std::int64_t>(i) + 1);
        const int means = draft.emit(Reduce{axes, true, true}, {ordered.value});
        const int ones = draft.emit(Affine{0.0, 1.0}, {means});
        const int kept = draft.emit(Dropout{p}, {ones});
        ordered.value = draft.emit(Multiply{}, {ordered.value, kept});
        view = ordered;
    }
    call.write(std::move(view));
}

}  // namespace

void add_activations(Table& table) {
    table["relu"] = simple<ActivationKind::relu>;
    table["relu6"] = simple<ActivationKind::relu6>;
    table["tanh"] = simple<ActivationKind::tanh>;
    table["sigmoid"] = simple<ActivationKind::sigmoid>;
    table["silu"] = simple<ActivationKind::silu>;
    table["hardswish"] = simple<ActivationKind::hard_swish>;
    table["hardsigmoid"] = simple<ActivationKind::hard_sigmoid>;
    table["gelu"] = gelu;
    table["leaky_relu"] = leaky_relu;
    table["elu"] = elu;
    table["softplus"] = softplus;
    table["hardtanh"] = hardtanh;
    table["clamp"] = clamp;
    table["clamp_min"] = [](Call& call) {
        limit(call, call.number(1), std::numeric_limits<double>::infinity());
    };
    table["clamp_max"] = [](Call& call) {
        limit(call, -std::numeric_limits<double>::infinity(), call.number(1));
    };
    table["threshold"] = threshold;
    table["prelu"] = prelu;
    table["softmax"] = plain_softmax;
    table["_softmax"] = plain_softmax;
    table["log_softmax"] = log_softmax;
    table["_log_softmax"] = log_softmax;
    table["dropout"] = dropout;
    table["feature_dropout"] = feature_dropout;
}

}  // namespace thalweg::model::torchscript
