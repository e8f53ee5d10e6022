#include <torch/types.h>

#include <algorithm>
#include <map>
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

/// The source of every place along `axis`, all actions on it combined; nothing when none of them moves anything.
std::optional<at::Tensor> source_index(std::int64_t length, std::int64_t axis,
                                       const std::vector<Action>& actions, const Permutations& permutations) {
    std::vector<std::int64_t> source(static_cast<std::size_t>(length));
    std::iota(source.begin(), source.end(), 0);
    bool moved = false;
    for (const auto& [group, use] : actions) {
        if (use.axis != axis || use.slabs > 0 || is_identity(permutations[group])) continue;
        moved = true;
        auto to = use.places.begin();
        for (const std::int64_t from : permutations[group]) {
            for (std::int64_t k = 0; k < use.each; ++k)
                source[static_cast<std::size_t>(*to++)] =
                    use.places[static_cast<std::size_t>(from * use.each + k)];
        }
    }
    if (!moved) return {};
    return at::tensor(source, at::kLong);
}

/// The input axis of a grouped convolution: slab by slab, after its rows have moved (a slab's rows have then come with
/// the block whose channels these are).
at::Tensor moved_in_slabs(const at::Tensor& tensor, const AxisUse& use, const Permutation& permutation) {
    const std::size_t inside = permutation.size() / use.slab_of.size();
    auto slabs = tensor.chunk(use.slabs, 0);
    for (std::size_t block = 0; block < use.slab_of.size(); ++block) {
        std::vector<std::int64_t> source(static_cast<std::size_t>(tensor.size(use.axis)));
        std::iota(source.begin(), source.end(), 0);
        for (std::size_t c = block * inside; c < (block + 1) * inside; ++c) {
            source[static_cast<std::size_t>(use.places[c])] =
                use.places[static_cast<std::size_t>(permutation[c])];
        }
        auto& slab = slabs[static_cast<std::size_t>(use.slab_of[block])];
        slab = slab.index_select(use.axis, at::tensor(source, at::kLong));
    }
    return at::cat(slabs, 0);
}

/// One index_select for each axis that moves.
at::Tensor moved(at::Tensor tensor, const std::vector<Action>& actions, const Permutations& permutations) {
    for (std::int64_t axis = 0; axis < tensor.dim(); ++axis) {
        if (const auto index = source_index(tensor.size(axis), axis, actions, permutations)) {
            tensor = tensor.index_select(axis, *index);
        }
    }
    for (const auto& [group, use] : actions) {
        if (use.slabs > 0 && !is_identity(permutations[group]))
            tensor = moved_in_slabs(tensor, use, permutations[group]);
    }
    return tensor;
}

void require_fitting(const Symmetries& symmetries, const Permutations& permutations) {
    bool fits = permutations.size() == symmetries.groups.size();
    for (std::size_t g = 0; fits && g < permutations.size(); ++g) {
        fits = static_cast<std::int64_t>(permutations[g].size()) == symmetries.groups[g].size &&
               respects_blocks(symmetries.groups[g], permutations[g]);
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
    std::map<int, Permutation> of_bond;
    for (const Group& group : symmetries.groups) {
        if (group.bond < 0) {
            result.push_back(random.permutation(group.size));
            continue;
        }
        const auto known = of_bond.find(group.bond);
        const Permutation blocks =
            known != of_bond.end() ? known->second : of_bond[group.bond] = random.permutation(group.blocks);
        const std::int64_t inside = group.size / group.blocks;
        Permutation& permutation = result.emplace_back();
        for (const std::int64_t block : blocks) {
            for (const std::int64_t channel : random.permutation(inside))
                permutation.push_back(block * inside + channel);
        }
    }
    return result;
}

bool respects_blocks(const Group& group, const Permutation& permutation) {
    if (group.blocks <= 1) return true;
    const auto inside = static_cast<std::size_t>(group.size / group.blocks);
    for (std::size_t i = 0; i < permutation.size(); ++i) {
        if (permutation[i] / static_cast<std::int64_t>(inside) !=
            permutation[i - i % inside] / static_cast<std::int64_t>(inside))
            return false;
    }
    return true;
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
                          const std::vector<std::size_t>& except, std::int64_t except_axis) {
    std::vector<Action> actions;
    for (std::size_t g = 0; g < symmetries.groups.size(); ++g) {
        const bool is_except = std::find(except.begin(), except.end(), g) != except.end();
        for (const AxisUse& use : symmetries.groups[g].uses) {
            if (use.entry != entry || (is_except && (except_axis < 0 || use.axis == except_axis))) continue;
            actions.push_back({g, use});
        }
    }
    return moved(parameters.view(entry), actions, permutations);
}

}  // namespace thalweg::symmetry
