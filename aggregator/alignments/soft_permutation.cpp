#include "soft_permutation.hpp"

#include <torch/types.h>

#include <algorithm>
#include <map>
#include <set>

#include "matching_support.hpp"

namespace thalweg::aggregator {

using symmetry::AxisUse;

SoftPermuter::SoftPermuter(const symmetry::Symmetries& symmetries, const model::Layout& layout)
    : symmetries_(symmetries), layout_(layout) {
    std::map<std::size_t, Acted> by_entry;
    for (std::size_t g = 0; g < symmetries.groups.size(); ++g) {
        for (const AxisUse& use : symmetries.groups[g].uses) {
            const auto& entry = layout.entries()[use.entry];
            if (!entry.trainable) continue;
            Acted& acted =
                by_entry.try_emplace(use.entry, Acted{.entry = use.entry, .axes = {}}).first->second;
            Axis axis{.group = g, .axis = use.axis, .places = {}, .each = use.each};
            std::vector<std::int64_t> places = use.places;
            std::int64_t length = entry.shape[static_cast<std::size_t>(use.axis)];
            if (use.slabs > 0) {
                // Channel c of block b stands in the dense weight where its slab's inputs begin, plus its place there.
                acted.slabs = use.slabs;
                const auto inside = places.size() / use.slab_of.size();
                for (std::size_t i = 0; i < places.size(); ++i) places[i] += use.slab_of[i / inside] * length;
                length *= use.slabs;
            }
            bool whole = static_cast<std::int64_t>(places.size()) == length;
            for (std::size_t i = 0; whole && i < places.size(); ++i)
                whole = places[i] == static_cast<std::int64_t>(i);
            if (!whole) axis.places = at::tensor(places, at::kLong);
            acted.axes.push_back(std::move(axis));
        }
    }
    for (auto& [entry, acted] : by_entry) {
        std::set<std::int64_t> axes;
        for (const Axis& axis : acted.axes) axes.insert(axis.axis);
        degree_ = std::max(degree_, static_cast<int>(axes.size()));
        acted_.push_back(std::move(acted));
    }
}

/// [slabs · rows, inputs of a slab, …] → [slabs · rows, slabs · inputs, …], zero outside the blocks.
at::Tensor SoftPermuter::dense(const at::Tensor& entry, const Acted& acted) const {
    if (acted.slabs == 0) return entry;
    const std::int64_t rows = entry.size(0) / acted.slabs, inputs = entry.size(1);
    auto shape = entry.sizes().vec();
    shape[1] *= acted.slabs;
    const at::Tensor result = at::zeros(shape, entry.options());
    for (std::int64_t s = 0; s < acted.slabs; ++s)
        result.narrow(0, s * rows, rows).narrow(1, s * inputs, inputs).copy_(entry.narrow(0, s * rows, rows));
    return result;
}

at::Tensor SoftPermuter::compact(const at::Tensor& dense, const Acted& acted) const {
    if (acted.slabs == 0) return dense;
    const std::int64_t rows = dense.size(0) / acted.slabs, inputs = dense.size(1) / acted.slabs;
    std::vector<at::Tensor> slabs;
    for (std::int64_t s = 0; s < acted.slabs; ++s)
        slabs.push_back(dense.narrow(0, s * rows, rows).narrow(1, s * inputs, inputs));
    return at::cat(slabs, 0);
}

/// The channels of an axis as rows: [size, each · everything else].
at::Tensor SoftPermuter::channels_of(const at::Tensor& tensor, const Axis& axis, std::int64_t size) {
    const at::Tensor first = tensor.movedim(axis.axis, 0);
    const at::Tensor rows = axis.places.defined() ? first.index_select(0, axis.places) : first;
    return rows.reshape({size, -1});
}

at::Tensor SoftPermuter::multiplied(const at::Tensor& tensor, const Axis& axis,
                                    const at::Tensor& matrix) const {
    const std::int64_t size = matrix.size(0);
    auto shape = tensor.movedim(axis.axis, 0).sizes().vec();
    shape[0] = size * axis.each;
    const at::Tensor moved = at::mm(matrix, channels_of(tensor, axis, size)).view(shape);
    if (!axis.places.defined()) return moved.movedim(0, axis.axis);
    return tensor.index_copy(axis.axis, axis.places, moved.movedim(0, axis.axis));
}

at::Tensor SoftPermuter::apply(const model::Parameters& model, const SoftPermutations& matrices) const {
    const at::Tensor result = model.trainable().clone();
    for (const Acted& acted : acted_) {
        at::Tensor tensor = dense(model.view(acted.entry), acted);
        for (const Axis& axis : acted.axes) tensor = multiplied(tensor, axis, matrices[axis.group]);
        const auto& entry = layout_.entries()[acted.entry];
        result.narrow(0, entry.offset, entry.size).view(entry.shape).copy_(compact(tensor, acted));
    }
    return result;
}

SoftPermutations SoftPermuter::gradient(const model::Parameters& model, const SoftPermutations& matrices,
                                        const at::Tensor& upstream) const {
    SoftPermutations result;
    for (const auto& group : symmetries_.groups)
        result.push_back(at::zeros({group.size, group.size}, model.values.options()));
    for (const Acted& acted : acted_) {
        const auto& entry = layout_.entries()[acted.entry];
        const at::Tensor seen = dense(upstream.narrow(0, entry.offset, entry.size).view(entry.shape), acted);
        const at::Tensor own = dense(model.view(acted.entry), acted);
        for (std::size_t i = 0; i < acted.axes.size(); ++i) {
            at::Tensor others = own;  // under all matrices but this one
            for (std::size_t j = 0; j < acted.axes.size(); ++j) {
                if (j != i) others = multiplied(others, acted.axes[j], matrices[acted.axes[j].group]);
            }
            const Axis& axis = acted.axes[i];
            const std::int64_t size = symmetries_.groups[axis.group].size;
            result[axis.group].addmm_(channels_of(seen, axis, size), channels_of(others, axis, size).t());
        }
    }
    return result;
}

SoftPermutations as_matrices(const symmetry::Permutations& permutations, at::ScalarType type) {
    SoftPermutations result;
    for (const auto& permutation : permutations) {
        const auto n = static_cast<std::int64_t>(permutation.size());
        const at::Tensor matrix = at::zeros({n, n}, type);
        result.push_back(matrix.scatter_(1, at::tensor(permutation, at::kLong).unsqueeze(1), 1.0));
    }
    return result;
}

symmetry::Permutations best_permutations(const symmetry::Symmetries& symmetries,
                                         const SoftPermutations& gains) {
    symmetry::Permutations result = symmetry::identity(symmetries);
    std::map<int, std::vector<std::size_t>> bonds;
    for (std::size_t g = 0; g < symmetries.groups.size(); ++g) {
        const auto& group = symmetries.groups[g];
        if (group.bond >= 0) {
            bonds[group.bond].push_back(g);
            continue;
        }
        symmetry::AssignmentSolver solver;
        result[g] = best_assignment(solver, gains[g], group.name);
    }
    for (const auto& [bond, groups] : bonds) {
        std::vector<at::Tensor> of_bond;
        for (const std::size_t g : groups) of_bond.push_back(gains[g]);
        for (auto& [g, permutation] : best_blocks(symmetries, groups, of_bond))
            result[g] = std::move(permutation);
    }
    return result;
}

}  // namespace thalweg::aggregator
