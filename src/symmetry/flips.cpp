#include "thalweg/symmetry/flips.hpp"

#include <torch/types.h>

#include <algorithm>
#include <optional>
#include <set>

namespace thalweg::symmetry {

namespace {

/// Without the axes along which all is alike: a convolution's marks have both channel axes and speak of one.
at::Tensor shrunk(at::Tensor channel) {
    for (std::int64_t axis = 0; axis < channel.dim(); ++axis) {
        if (channel.size(axis) == 1) continue;
        const at::Tensor first = channel.narrow(axis, 0, 1);
        if (channel.eq(first).all().item<bool>()) channel = first;
    }
    return channel;
}

/// The gauge's channel at every place of an axis, when one mark, and only one, speaks of that axis of the entry, and of no
/// other axis.
std::optional<std::vector<std::int64_t>> channels_on(const Gauge& gauge, std::size_t entry, std::int64_t axis,
                                                     const std::vector<std::int64_t>& shape) {
    std::optional<std::vector<std::int64_t>> found;
    const auto rank = static_cast<std::int64_t>(shape.size());
    const std::int64_t length = shape[static_cast<std::size_t>(axis)];
    for (const Gauge::Mark& mark : gauge.marks) {
        if (mark.entry != entry) continue;
        const at::Tensor channel = shrunk(mark.channel);
        const std::int64_t behind = axis - (rank - channel.dim());  // shapes are broadcast from behind
        if (behind < 0 || channel.size(behind) == 1) continue;      // it speaks of another axis
        if (found || channel.numel() != length) return {};
        const at::Tensor flat = channel.contiguous();
        found.emplace(flat.data_ptr<std::int64_t>(), flat.data_ptr<std::int64_t>() + length);
    }
    return found;
}

/// The gauge's channel of each of the group's channels; empty unless every use agrees on it.
std::vector<std::int64_t> channels_of(const Gauge& gauge, const model::Layout& layout, const Group& group) {
    std::vector<std::int64_t> result;
    if (group.blocks > 1) return {};
    for (const AxisUse& use : group.uses) {
        if (use.slabs > 0) return {};
        const auto& entry = layout.entries()[use.entry];
        const auto at = channels_on(gauge, use.entry, use.axis, entry.shape);
        if (!at) return {};
        for (std::size_t i = 0; i < use.places.size(); ++i) {
            const std::int64_t channel = (*at)[static_cast<std::size_t>(use.places[i])];
            const std::size_t c = i / static_cast<std::size_t>(use.each);
            if (channel < 0) return {};
            if (c == result.size()) {
                result.push_back(channel);
            } else if (result[c] != channel) {
                return {};
            }
        }
    }
    const std::set<std::int64_t> different(result.begin(), result.end());
    if (different.size() != static_cast<std::size_t>(group.size)) return {};
    return result;
}

}  // namespace

Flips::Flips(const model::ModelGraph& graph, const Symmetries& symmetries)
    : gauge_(derive_gauge(graph, Gauge::Kind::sign)) {
    for (const Group& group : symmetries.groups)
        channels_.push_back(channels_of(gauge_, *graph.layout, group));
    // A gauge channel that also stands outside the group's uses would flip what the group knows nothing of; each belongs to
    // one group, and marks are counted against uses.
    std::vector<std::set<std::size_t>> marked(static_cast<std::size_t>(gauge_.channels));
    for (const Gauge::Mark& mark : gauge_.marks) {
        const at::Tensor flat = mark.channel.contiguous().flatten();
        for (std::int64_t i = 0; i < flat.numel(); ++i) {
            const auto channel = flat.data_ptr<std::int64_t>()[i];
            if (channel >= 0) marked[static_cast<std::size_t>(channel)].insert(mark.entry);
        }
    }
    for (std::size_t g = 0; g < channels_.size(); ++g) {
        std::set<std::size_t> used;
        for (const AxisUse& use : symmetries.groups[g].uses) used.insert(use.entry);
        const bool all = std::all_of(channels_[g].begin(), channels_[g].end(), [&](std::int64_t channel) {
            return marked[static_cast<std::size_t>(channel)] == used;
        });
        if (!all) channels_[g].clear();
    }
}

bool Flips::any() const {
    return std::any_of(channels_.begin(), channels_.end(), [](const auto& list) { return !list.empty(); });
}

model::Parameters Flips::multiply(const model::Parameters& model,
                                  const std::vector<std::vector<double>>& signs) const {
    std::vector<double> factors(static_cast<std::size_t>(gauge_.channels), 1.0);
    for (std::size_t g = 0; g < signs.size(); ++g) {
        for (std::size_t c = 0; c < signs[g].size(); ++c)
            factors[static_cast<std::size_t>(channels_[g].at(c))] = signs[g][c];
    }
    return symmetry::multiply(model, gauge_, factors);
}

model::Parameters Flips::apply(const model::Parameters& model, const Symmetries& symmetries,
                               const Element& element) const {
    const bool flips = std::any_of(element.signs.begin(), element.signs.end(),
                                   [](const auto& list) { return !list.empty(); });
    return permute(flips ? multiply(model, element.signs) : model, symmetries, element.permutations);
}

/// π₂(s₂ ∘ π₁(s₁ ∘ θ)): channel c of π₁(θ) was channel π₁[c] of θ.
Element Flips::compose(const Element& first, const Element& second) const {
    Element result{symmetry::compose(first.permutations, second.permutations), {}};
    if (first.signs.empty() && second.signs.empty()) return result;
    result.signs.resize(channels_.size());
    for (std::size_t g = 0; g < channels_.size(); ++g) {
        if (!has(g)) continue;
        auto& signs = result.signs[g];
        signs.assign(channels_[g].size(), 1.0);
        if (!first.signs.empty() && !first.signs[g].empty()) signs = first.signs[g];
        if (second.signs.empty() || second.signs[g].empty()) continue;
        for (std::size_t c = 0; c < signs.size(); ++c)
            signs[static_cast<std::size_t>(first.permutations[g][c])] *= second.signs[g][c];
    }
    return result;
}

Element Flips::random(const Symmetries& symmetries, core::Random& random) const {
    Element element{random_permutations(symmetries, random), {}};
    element.signs.resize(channels_.size());
    for (std::size_t g = 0; g < channels_.size(); ++g) {
        for (std::size_t c = 0; c < channels_[g].size(); ++c)
            element.signs[g].push_back(random.uniform() < 0.5 ? -1.0 : 1.0);
    }
    return element;
}

}  // namespace thalweg::symmetry
