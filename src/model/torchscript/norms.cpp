#include <torch/types.h>

#include "translator.hpp"

namespace thalweg::model::torchscript {

namespace {

/// Traced axis 1 first, the others as they lie.
View channels_first(Call& call) {
    auto& draft = call.draft();
    const auto view = solid(draft, call.tensor(0));
    if (view.axes.size() < 2 || view.extents()[1].batch) call.refuse_batch();
    auto groups = storage_groups(draft, view, view.axes[1]);
    groups.insert(groups.begin(), view.axes[1]);
    return arrange(draft, view, groups);
}

/// Neither or both, as PyTorch's modules have them.
std::string norm_name(const Call& call, int weight, int other) {
    return call.name_of(weight >= 0 ? weight : other);
}

void batch_norm(Call& call) {
    BatchNorm norm;
    norm.weight = call.parameter(1, "weight");
    norm.bias = call.parameter(2, "bias");
    norm.running_mean = call.buffer(3);
    norm.running_var = call.buffer(4);
    if (norm.running_mean < 0 || norm.running_var < 0) {
        call.refuse(
            "it has no running statistics (track_running_stats=False): in evaluation a sample's result would "
            "depend on the others of its batch");
    }
    if (call.varies(6)) {
        call.refuse(
            "its momentum changes from batch to batch (momentum=None, the average of all batches), which is "
            "not "
            "done here. Give it a momentum");
    }
    norm.momentum = call.number(6);
    if (norm.momentum == 0) {
        call.refuse(
            "its momentum is 0, so that its running statistics would never change; a module with "
            "momentum=None that was traced in evaluation mode looks like this. Give it a momentum");
    }
    norm.epsilon = call.number(7);
    auto view = channels_first(call);
    view.value = call.draft().emit(norm, {view.value}, norm_name(call, norm.weight, norm.running_mean));
    call.write(std::move(view));
}

/// Of each sample, so that the batch must be an axis of its own.
void per_sample(Call& call, const GroupNorm& norm) {
    auto view = channels_first(call);
    if (view.axes[0] != Ids{View::batch})
        call.refuse("the batch is not its first axis, or is merged with another one");
    view.value = call.draft().emit(norm, {view.value}, call.name_of(norm.weight));
    call.write(std::move(view));
}

void group_norm(Call& call) {
    GroupNorm norm;
    norm.groups = call.integer(1);
    norm.weight = call.parameter(2, "weight");
    norm.bias = call.parameter(3, "bias");
    norm.epsilon = call.is_none(4) ? 1e-5 : call.number(4);
    per_sample(call, norm);
}

void instance_norm(Call& call) {
    if (!call.is_none(3) || !call.is_none(4))
        call.refuse(
            "only an instance norm without running statistics is supported (track_running_stats=False)");
    GroupNorm norm;
    norm.weight = call.parameter(1, "weight");
    norm.bias = call.parameter(2, "bias");
    norm.epsilon = call.number(7);
    const auto extents = call.tensor(0).extents();
    if (extents.size() < 2) call.refuse("it needs channels");
    norm.groups = extents[1].count;
    per_sample(call, norm);
}

void layer_norm(Call& call) {
    auto& draft = call.draft();
    LayerNorm norm;
    norm.axes = static_cast<std::int64_t>(call.integers(1).size());
    norm.weight = call.parameter(2, "weight");
    norm.bias = call.parameter(3, "bias");
    norm.epsilon = call.is_none(4) ? 1e-5 : call.number(4);
    auto view = solid(draft, call.tensor(0));
    const auto rank = view.axes.size(), count = static_cast<std::size_t>(norm.axes);
    if (count < 1 || count > rank) call.refuse("it normalises more axes than there are");
    Ids all;
    for (auto axis = rank - count; axis < rank; ++axis) {
        if (view.extents()[axis].batch) call.refuse_batch();
        all.insert(all.end(), view.axes[axis].begin(), view.axes[axis].end());
    }
    const auto stored = storage_groups(draft, view);
    if (count == 1 && stored.size() > 1 && !all.empty() && stored[0] == all) {
        // channels before positions, as in a convolutional net: no need to move them
        norm.channels_first = true;
    } else {
        auto groups = storage_groups(draft, view, all);
        for (auto axis = rank - count; axis < rank; ++axis) groups.push_back(view.axes[axis]);
        view = arrange(draft, view, groups);
    }
    view.value = draft.emit(norm, {view.value}, call.name_of(norm.weight));
    call.write(std::move(view));
}

}  // namespace

void add_norms(Table& table) {
    table["batch_norm"] = batch_norm;
    table["group_norm"] = group_norm;
    table["instance_norm"] = instance_norm;
    table["layer_norm"] = layer_norm;
}

}  // namespace thalweg::model::torchscript
