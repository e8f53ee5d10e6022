#include "widths.hpp"

#include <torch/types.h>

#include <algorithm>
#include <numeric>
#include <type_traits>
#include <variant>

#include "kept_gains.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/text.hpp"

namespace thalweg::aggregator {

namespace {

/// Places of an axis that no group acts on.
at::Tensor left_over(std::int64_t length, const std::vector<at::Tensor>& taken) {
    std::vector<bool> used(static_cast<std::size_t>(length), false);
    for (const auto& places : taken) {
        for (std::int64_t i = 0; i < places.numel(); ++i)
            used[static_cast<std::size_t>(places.data_ptr<std::int64_t>()[i])] = true;
    }
    std::vector<std::int64_t> rest;
    for (std::int64_t i = 0; i < length; ++i) {
        if (!used[static_cast<std::size_t>(i)]) rest.push_back(i);
    }
    return index_of(rest);
}

/// The entries an operation names.
struct Entries {
    std::vector<int> all;
    void entry(const char*, int index) {
        if (index >= 0) all.push_back(index);
    }
    void counter(const char*, int) {}
    template <class Value>
    void value(const char*, const Value&) {}
};

}  // namespace

Widths::Widths(const model::ModelGraph& from, const symmetry::Symmetries& from_groups,
               const model::ModelGraph& to, const symmetry::Symmetries& to_groups)
    : from_groups_(from_groups), to_groups_(to_groups), to_(to) {
    require_alike(from, to);
    const auto count = from.layout->entries().size();
    uses_.resize(count);
    reading_.resize(count);
    first_made_.assign(to_groups.groups.size(), to.operations.size());
    for (std::size_t i = 0; i < to.operations.size(); ++i) {
        const auto reading = [&](int entry, std::int64_t axis) {
            if (entry >= 0) reading_[static_cast<std::size_t>(entry)].push_back(axis);
        };
        std::visit(
            [&](const auto& kind) {
                using Kind = std::decay_t<decltype(kind)>;
                if constexpr (std::is_same_v<Kind, model::Linear>) {
                    reading(kind.weight, 1);
                } else if constexpr (std::is_same_v<Kind, model::Convolution>) {
                    reading(kind.weight, kind.transposed ? 0 : 1);
                } else if constexpr (std::is_same_v<Kind, model::Lstm>) {
                    reading(kind.weight_input, 1);
                    reading(kind.weight_hidden, 1);
                }
            },
            to.operations[i].kind);
    }
    for (std::size_t g = 0; g < to_groups.groups.size(); ++g) {
        const auto& a = from_groups.groups[g];
        const auto& b = to_groups.groups[g];
        for (std::size_t u = 0; u < b.uses.size(); ++u) {
            uses_[b.uses[u].entry].push_back(
                {g, b.uses[u].axis, index_of(a.uses[u].places), index_of(b.uses[u].places), b.uses[u].each});
        }
    }
    for (std::size_t i = to.operations.size(); i-- > 0;) {
        Entries entries;
        std::visit([&](const auto& kind) { kind.fields(kind, entries); }, to.operations[i].kind);
        for (const int entry : entries.all) {
            for (const Use& use : uses_[static_cast<std::size_t>(entry)]) {
                if (!reads(static_cast<std::size_t>(entry), use.axis)) first_made_[use.group] = i;
            }
        }
    }
}

void Widths::require_alike(const model::ModelGraph& from, const model::ModelGraph& to) const {
    const auto refuse = [](const std::string& what) {
        throw core::RunError(
            "models of different widths must be alike in everything else, and these differ in " + what +
            "; give models of one kind with other numbers of channels");
    };
    if (from.operations.size() != to.operations.size())
        refuse("how many operations they have (" + std::to_string(from.operations.size()) + " and " +
               std::to_string(to.operations.size()) + ")");
    for (std::size_t i = 0; i < to.operations.size(); ++i) {
        if (model::kind_name(from.operations[i].kind) != model::kind_name(to.operations[i].kind))
            refuse("operation " + to.operations[i].name);
    }
    const auto& a = from.layout->entries();
    const auto& b = to.layout->entries();
    if (a.size() != b.size()) refuse("how many tensors they have");
    for (std::size_t i = 0; i < b.size(); ++i) {
        if (a[i].name != b[i].name || a[i].shape.size() != b[i].shape.size())
            refuse("the tensor " + b[i].name);
    }
    if (from_groups_.groups.size() != to_groups_.groups.size()) refuse("their symmetry groups");
    for (std::size_t g = 0; g < to_groups_.groups.size(); ++g) {
        const auto& x = from_groups_.groups[g];
        const auto& y = to_groups_.groups[g];
        if (x.name != y.name || x.uses.size() != y.uses.size() || x.blocks != y.blocks)
            refuse("the symmetry group " + y.name);
        for (std::size_t u = 0; u < y.uses.size(); ++u) {
            if (x.uses[u].entry != y.uses[u].entry || x.uses[u].axis != y.uses[u].axis ||
                x.uses[u].each != y.uses[u].each)
                refuse("where the channels of " + y.name + " stand in " + b[y.uses[u].entry].name);
            // A plan mixes channels, and what it mixes across the groups of a convolution has no place there.
            if (y.uses[u].slabs > 0)
                throw core::RunError(
                    "the channels of " + y.name +
                    " run through a grouped convolution, and cannot be carried one by one; use "
                    "weight_matching or merge_many");
            if (x.size != y.size && y.blocks > 1)
                throw core::RunError(
                    "the channels of " + y.name +
                    " lie in blocks (heads), and blocks of two widths cannot be carried into each "
                    "other; give them one width");
        }
    }
    for (std::size_t i = 0; i < b.size(); ++i) {
        for (std::size_t axis = 0; axis < b[i].shape.size(); ++axis) {
            if (a[i].shape[axis] == b[i].shape[axis]) continue;
            const bool grouped =
                std::any_of(to_groups_.groups.begin(), to_groups_.groups.end(), [&](const auto& group) {
                    return std::any_of(group.uses.begin(), group.uses.end(), [&](const auto& use) {
                        return use.entry == i && use.axis == static_cast<std::int64_t>(axis);
                    });
                });
            if (!grouped)
                refuse("the extent of " + b[i].name + " (" + core::shape_text(a[i].shape) + " and " +
                       core::shape_text(b[i].shape) + ") where no channels may be moved");
        }
    }
}

bool Widths::reads(std::size_t entry, std::int64_t axis) const {
    const auto& axes = reading_[entry];
    return std::find(axes.begin(), axes.end(), axis) != axes.end();
}

std::vector<std::size_t> Widths::order() const {
    std::vector<std::size_t> groups(first_made_.size());
    std::iota(groups.begin(), groups.end(), std::size_t{0});
    std::stable_sort(groups.begin(), groups.end(),
                     [&](std::size_t x, std::size_t y) { return first_made_[x] < first_made_[y]; });
    return groups;
}

at::Tensor Widths::carried(const at::Tensor& entry, std::size_t index, const std::vector<Plan>& plans,
                           std::size_t except) const {
    at::Tensor tensor = entry.to(at::kDouble);
    const auto& shape = to_.layout->entries()[index].shape;
    for (std::int64_t axis = 0; axis < tensor.dim(); ++axis) {
        std::vector<const Use*> here;
        for (const Use& use : uses_[index]) {
            const bool is_left = use.group == except && !reads(index, axis);
            if (use.axis == axis && plans[use.group].made.defined() && !is_left) here.push_back(&use);
        }
        if (here.empty()) continue;
        auto sizes = tensor.sizes().vec();
        std::vector<at::Tensor> from_taken, to_taken;
        for (const Use* use : here) {
            from_taken.push_back(use->from_places);
            to_taken.push_back(use->to_places);
        }
        sizes[static_cast<std::size_t>(axis)] = shape[static_cast<std::size_t>(axis)];
        at::Tensor result = at::zeros(sizes, at::kDouble);
        const at::Tensor from_rest = left_over(tensor.size(axis), from_taken);
        const at::Tensor to_rest = left_over(result.size(axis), to_taken);
        if (from_rest.numel() > 0) result.index_copy_(axis, to_rest, tensor.index_select(axis, from_rest));
        for (const Use* use : here) {
            const at::Tensor& matrix = reads(index, axis) ? plans[use->group].read : plans[use->group].made;
            const at::Tensor rows = tensor.index_select(axis, use->from_places).movedim(axis, 0);
            auto moved_sizes = rows.sizes().vec();
            moved_sizes[0] = matrix.size(0) * use->each;
            const at::Tensor moved = at::mm(matrix, rows.reshape({matrix.size(1), -1})).view(moved_sizes);
            result.index_copy_(axis, use->to_places, moved.movedim(0, axis));
        }
        tensor = result;
    }
    return tensor;
}

model::Parameters Widths::carried(const model::Parameters& model, const std::vector<Plan>& plans) const {
    model::Parameters result(to_.layout, model.is_double());
    for (std::size_t i = 0; i < to_.layout->entries().size(); ++i)
        result.view(i).copy_(carried(model.view(i), i, plans));
    result.counters = model.counters.clone();
    return result;
}

/// Trainable entries that make the group's channels, and whose reading axes are all known.
std::vector<std::size_t> Widths::feature_entries(std::size_t group, const std::vector<bool>& known) const {
    std::vector<std::size_t> result;
    for (std::size_t i = 0; i < uses_.size(); ++i) {
        if (!to_.layout->entries()[i].trainable) continue;
        bool makes = false, all_known = true;
        for (const Use& use : uses_[i]) {
            const bool made_here = use.group == group && !reads(i, use.axis);
            makes = makes || made_here;
            if (reads(i, use.axis) && !known[use.group]) all_known = false;
        }
        if (makes && all_known) result.push_back(i);
    }
    return result;
}

at::Tensor Widths::features_of_from(const model::Parameters& model, std::size_t group,
                                    const std::vector<Plan>& plans, const std::vector<bool>& known) const {
    std::vector<at::Tensor> features;
    for (const std::size_t i : feature_entries(group, known)) {
        const at::Tensor entry = carried(model.view(i), i, plans, group);
        for (const Use& use : uses_[i]) {
            if (use.group != group || reads(i, use.axis)) continue;
            const at::Tensor rows = entry.index_select(use.axis, use.from_places).movedim(use.axis, 0);
            features.push_back(rows.reshape({from_groups_.groups[group].size, -1}));
        }
    }
    return features.empty() ? at::Tensor() : at::cat(features, 1);
}

at::Tensor Widths::features_of_to(const model::Parameters& model, std::size_t group,
                                  const std::vector<bool>& known) const {
    std::vector<at::Tensor> features;
    for (const std::size_t i : feature_entries(group, known)) {
        for (const Use& use : uses_[i]) {
            if (use.group != group || reads(i, use.axis)) continue;
            const at::Tensor rows =
                model.view(i).to(at::kDouble).index_select(use.axis, use.to_places).movedim(use.axis, 0);
            features.push_back(rows.reshape({to_groups_.groups[group].size, -1}));
        }
    }
    return features.empty() ? at::Tensor() : at::cat(features, 1);
}

}  // namespace thalweg::aggregator
