#include "labels.hpp"

#include <torch/types.h>

#include <algorithm>
#include <functional>
#include <numeric>

namespace thalweg::symmetry {

namespace {

using Axes = std::vector<std::int64_t>;

bool is_subset(const Axes& a, const Axes& b) {
    return std::includes(b.begin(), b.end(), a.begin(), a.end());
}

bool meet(const Axes& a, const Axes& b) {
    return std::find_first_of(a.begin(), a.end(), b.begin(), b.end()) != a.end();
}

/// What `patch` of one operand means beside the other operand. Returns false when the other has a patch that says it all.
bool reconcile(const at::Tensor& patch, const Labels& other, bool first, Channels& channels) {
    const Axes axes = axes_of(patch);
    Axes spoken_of;
    for (const at::Tensor& theirs : other.patches()) {
        const Axes their_axes = axes_of(theirs);
        if (!meet(axes, their_axes)) continue;
        spoken_of.insert(spoken_of.end(), their_axes.begin(), their_axes.end());
        if (their_axes == axes) {
            channels.unite(line_of(patch), line_of(theirs));
            if (!first) return false;
        } else if (is_subset(their_axes, axes)) {
            channels.unite(blocks_along(patch, their_axes, channels), line_of(theirs));
        } else if (is_subset(axes, their_axes)) {
            return false;  // treated from the other side
        } else {
            channels.freeze(line_of(patch), "it meets other channels across axes");
            channels.freeze(line_of(theirs), "it meets other channels across axes");
            if (!first) return false;
        }
    }
    Axes positions;
    for (const auto axis : axes) {
        const bool labelled = std::find(spoken_of.begin(), spoken_of.end(), axis) != spoken_of.end();
        if (!labelled && other.shape()[static_cast<std::size_t>(axis)] > 1) positions.push_back(axis);
    }
    if (positions.empty()) return true;
    if (positions == axes || !spoken_of.empty()) {
        channels.freeze(line_of(patch), "it meets fixed positions");
    } else {
        channels.freeze(blocks_along(patch, positions, channels), "it meets fixed positions");
    }
    return true;
}

}  // namespace

Line blocks_along(const at::Tensor& patch, const Axes& outer, Channels& channels) {
    Axes order = outer;
    std::int64_t count = 1;
    for (const auto axis : outer) count *= patch.size(axis);
    for (std::int64_t axis = 0; axis < patch.dim(); ++axis) {
        if (std::find(outer.begin(), outer.end(), axis) == outer.end()) order.push_back(axis);
    }
    return channels.blocks(line_of(patch.permute(order)), count);
}

Labels::Labels(model::Sizes sample_shape) : shape_(std::move(sample_shape)) {
    shape_.insert(shape_.begin(), 1);
}

void Labels::add(at::Tensor patch) {
    for (std::int64_t axis = 0; axis < patch.dim(); ++axis) {
        const auto first = patch.narrow(axis, 0, 1);
        if (patch.size(axis) > 1 && at::equal(patch, first.expand_as(patch))) patch = first;
    }
    if (patch.numel() > 1) patches_.push_back(patch.contiguous());
}

void Labels::add(std::int64_t axis, const Line& line) {
    add(patch_of(line, axis, rank()));
}

const at::Tensor* Labels::find(std::int64_t axis) const {
    for (const at::Tensor& patch : patches_) {
        if (patch.size(axis) > 1) return &patch;
    }
    return nullptr;
}

void Labels::remove(const at::Tensor& patch) {
    std::erase_if(patches_, [&](const at::Tensor& other) { return other.is_same(patch); });
}

std::vector<std::int64_t> axes_of(const at::Tensor& patch) {
    Axes axes;
    for (std::int64_t axis = 0; axis < patch.dim(); ++axis) {
        if (patch.size(axis) > 1) axes.push_back(axis);
    }
    return axes;
}

Line line_of(const at::Tensor& patch) {
    const auto flat = patch.contiguous();
    const auto* data = flat.data_ptr<std::int64_t>();
    return {data, data + flat.numel()};
}

at::Tensor patch_of(const Line& line, std::int64_t axis, std::int64_t rank) {
    std::vector<std::int64_t> shape(static_cast<std::size_t>(rank), 1);
    shape[static_cast<std::size_t>(axis)] = static_cast<std::int64_t>(line.size());
    return at::tensor(line, at::kLong).view(shape);
}

Line line_on(Labels& labels, std::int64_t axis, Channels& channels, const std::string& name,
             const std::string& reason) {
    const at::Tensor* found = labels.find(axis);
    if (found == nullptr) {
        const std::int64_t size = labels.shape()[static_cast<std::size_t>(axis)];
        const Line line = channels.open_frozen(name, size, size == 1 ? "a single channel" : reason);
        labels.add(axis, line);
        return line;
    }
    const at::Tensor patch = *found;
    if (patch.numel() == patch.size(axis)) return line_of(patch);
    // Whatever reads this axis treats the other axes alike: what they tell apart here is one to it.
    const at::Tensor rows = patch.movedim(axis, -1).reshape({-1, patch.size(axis)});
    const Line line = line_of(rows[0]);
    for (std::int64_t row = 1; row < rows.size(0); ++row) channels.unite(line, line_of(rows[row]));
    labels.remove(patch);
    labels.add(axis, line);
    return line;
}

Labels combined(const Labels& a, const Labels& b, const model::Sizes& shape, Channels& channels) {
    Labels result(shape);
    for (const at::Tensor& patch : a.patches()) {
        if (reconcile(patch, b, true, channels)) result.add(patch);
    }
    for (const at::Tensor& patch : b.patches()) {
        if (reconcile(patch, a, false, channels)) result.add(patch);
    }
    return result;
}

Labels reshaped(const Labels& labels, const model::Sizes& shape, Channels& channels) {
    Labels result(shape);
    const auto& before = labels.shape();
    const auto& after = result.shape();
    for (const at::Tensor& patch : labels.patches()) {
        result.add(patch.expand(before).reshape(after));
    }
    // Two patches may have ended on one axis: channels of both kinds are then told apart by it, and neither may move.
    for (std::int64_t axis = 0; axis < result.rank(); ++axis) {
        std::vector<at::Tensor> here;
        for (const at::Tensor& patch : result.patches()) {
            if (patch.size(axis) > 1) here.push_back(patch);
        }
        for (std::size_t i = 1; i < here.size(); ++i) {
            channels.freeze(line_of(here[0]), "two kinds of channels share an axis");
            channels.freeze(line_of(here[i]), "two kinds of channels share an axis");
            result.remove(here[i]);
        }
    }
    return result;
}

}  // namespace thalweg::symmetry
