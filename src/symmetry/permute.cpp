#include <ATen/ops/index_select.h>

#include <algorithm>
#include <numeric>
#include <optional>
#include <stdexcept>

#include "thalweg/symmetry/symmetry.hpp"

namespace thalweg::symmetry {
namespace {

/// Which groups act where on one entry.
struct Action {
    std::size_t group;
    AxisUse use;
};

/// By entry, all actions on it.
std::vector<std::vector<Action>> actions_by_entry(const model::Layout& layout, const Symmetries& symmetries) {
    std::vector<std::vector<Action>> actions(layout.entries().size());
    for (std::size_t g = 0; g < symmetries.groups.size(); ++g) {
        for (const AxisUse& use : symmetries.groups[g].uses) actions[use.entry].push_back({g, use});
    }
    return actions;
}

/// The source of every element along `axis`, all actions on it combined; nothing when none of them moves anything.
std::optional<at::Tensor> source_index(std::int64_t length, std::int64_t axis,
                                       const std::vector<Action>& actions, const Permutations& permutations) {
    std::vector<std::int64_t> source(static_cast<std::size_t>(length));
    std::iota(source.begin(), source.end(), 0);
    bool moved = false;
    for (const auto& [group, use] : actions) {
        if (use.axis != axis || is_identity(permutations[group])) continue;
        moved = true;
        auto to = source.begin() + use.offset;
        for (const std::int64_t from : permutations[group]) {
            std::iota(to, to + use.block, use.offset + from * use.block);
            to += use.block;
        }
    }
    if (!moved) return {};
    return at::tensor(source, at::kLong);
}

/// One index_select for each axis that moves.
at::Tensor moved(at::Tensor tensor, const std::vector<Action>& actions, const Permutations& permutations) {
    for (std::int64_t axis = 0; axis < tensor.dim(); ++axis) {
        if (const auto index = source_index(tensor.size(axis), axis, actions, permutations)) {
            tensor = tensor.index_select(axis, *index);
        }
    }
    return tensor;
}

void require_fitting(const Symmetries& symmetries, const Permutations& permutations) {
    bool fits = permutations.size() == symmetries.groups.size();
    for (std::size_t g = 0; fits && g < permutations.size(); ++g) {
        fits = static_cast<std::int64_t>(permutations[g].size()) == symmetries.groups[g].size;
    }
    if (!fits) throw std::logic_error("permutations that do not belong to these symmetry groups");
}

}  // namespace

Permutations identity(const Symmetries& symmetries) {
    Permutations result;
    for (const Group& group : symmetries.groups) {
        result.emplace_back(static_cast<std::size_t>(group.size));
        std::iota(result.back().begin(), result.back().end(), 0);
    }
    return result;
}

Permutations random_permutations(const Symmetries& symmetries, core::Random& random) {
    Permutations result;
    for (const Group& group : symmetries.groups) result.push_back(random.permutation(group.size));
    return result;
}

bool is_identity(const Permutation& permutation) {
    for (std::size_t i = 0; i < permutation.size(); ++i) {
        if (permutation[i] != static_cast<std::int64_t>(i)) return false;
    }
    return true;
}

Permutation inverse(const Permutation& permutation) {
    Permutation result(permutation.size());
    for (std::size_t i = 0; i < permutation.size(); ++i) {
        result[static_cast<std::size_t>(permutation[i])] = static_cast<std::int64_t>(i);
    }
    return result;
}

Permutation compose(const Permutation& first, const Permutation& second) {
    if (first.size() != second.size()) throw std::logic_error("composing permutations of different sizes");
    Permutation result(first.size());
    for (std::size_t i = 0; i < result.size(); ++i) result[i] = first[static_cast<std::size_t>(second[i])];
    return result;
}

Permutations compose(const Permutations& first, const Permutations& second) {
    if (first.size() != second.size())
        throw std::logic_error("composing permutations of different symmetries");
    Permutations result;
    for (std::size_t g = 0; g < first.size(); ++g) result.push_back(compose(first[g], second[g]));
    return result;
}

model::Parameters permute(const model::Parameters& parameters, const Symmetries& symmetries,
                          const Permutations& permutations) {
    require_fitting(symmetries, permutations);
    const auto actions = actions_by_entry(*parameters.layout, symmetries);
    model::Parameters result = parameters.clone();
    for (std::size_t entry = 0; entry < actions.size(); ++entry) {
        const at::Tensor original = parameters.view(entry);
        const at::Tensor permuted = moved(original, actions[entry], permutations);
        if (!permuted.is_same(original)) result.view(entry).copy_(permuted);
    }
    return result;
}

at::Tensor permuted_entry(const model::Parameters& parameters, std::size_t entry,
                          const Symmetries& symmetries, const Permutations& permutations,
                          std::size_t except) {
    std::vector<Action> actions;
    for (std::size_t g = 0; g < symmetries.groups.size(); ++g) {
        if (g == except) continue;
        for (const AxisUse& use : symmetries.groups[g].uses) {
            if (use.entry == entry) actions.push_back({g, use});
        }
    }
    return moved(parameters.view(entry), actions, permutations);
}

}  // namespace thalweg::symmetry
