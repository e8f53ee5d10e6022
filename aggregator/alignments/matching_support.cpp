#include "matching_support.hpp"

#include <torch/types.h>

#include <span>
#include <stdexcept>

#include "thalweg/core/error.hpp"

namespace thalweg::aggregator {

void require_same_layout(const model::ModelGraph& graph, const model::Parameters& a,
                         const model::Parameters& b) {
    for (const model::Parameters* model : {&a, &b}) {
        if (!model->defined() || model->values.numel() != graph.layout->size()) {
            throw std::logic_error("matching a model that is not of the graph's layout");
        }
    }
    if (a.is_double() != b.is_double()) throw std::logic_error("matching a float model to a double one");
}

symmetry::Permutation best_assignment(symmetry::AssignmentSolver& solver, const at::Tensor& gain,
                                      const std::string& group) {
    const at::Tensor dense = gain.contiguous();
    const auto count = static_cast<std::size_t>(dense.numel());
    try {
        if (dense.scalar_type() == at::kFloat) {
            return solver.maximise(std::span<const float>(dense.data_ptr<float>(), count), dense.size(0));
        }
        return solver.maximise(std::span<const double>(dense.data_ptr<double>(), count), dense.size(0));
    } catch (const std::invalid_argument&) {
        throw core::RunError(
            "the channels of " + group +
            " cannot be matched: what their matches gain is not finite, so one of the two models "
            "holds NaN, an infinity or huge values; its training has most likely diverged");
    }
}

std::vector<std::pair<std::size_t, symmetry::Permutation>> best_blocks(const symmetry::Symmetries& symmetries,
                                                                       const std::vector<std::size_t>& groups,
                                                                       const std::vector<at::Tensor>& gains) {
    const std::int64_t blocks = symmetries.groups[groups.front()].blocks;
    symmetry::AssignmentSolver solver;
    at::Tensor worth = at::zeros({blocks, blocks}, at::kDouble);
    // orders[m][g·blocks + h]: how the channels of member m's block h lie best in block g's places
    std::vector<std::vector<symmetry::Permutation>> orders(groups.size());
    for (std::size_t m = 0; m < groups.size(); ++m) {
        const symmetry::Group& group = symmetries.groups[groups[m]];
        const std::int64_t inside = group.size / blocks;
        const at::Tensor gain = gains[m].contiguous();
        for (std::int64_t g = 0; g < blocks; ++g) {
            for (std::int64_t h = 0; h < blocks; ++h) {
                const at::Tensor part = gain.narrow(0, g * inside, inside).narrow(1, h * inside, inside);
                solver.reset();
                orders[m].push_back(inside == 1 ? symmetry::Permutation{0}
                                                : best_assignment(solver, part, group.name));
                const auto matched = at::tensor(orders[m].back(), at::kLong).unsqueeze(1);
                worth[g][h] += part.gather(1, matched).sum();
            }
        }
    }
    solver.reset();
    const symmetry::Permutation chosen =
        best_assignment(solver, worth, symmetries.groups[groups.front()].name);
    std::vector<std::pair<std::size_t, symmetry::Permutation>> result;
    for (std::size_t m = 0; m < groups.size(); ++m) {
        const std::int64_t inside = symmetries.groups[groups[m]].size / blocks;
        symmetry::Permutation permutation;
        for (std::int64_t g = 0; g < blocks; ++g) {
            const std::int64_t h = chosen[static_cast<std::size_t>(g)];
            for (const std::int64_t channel : orders[m][static_cast<std::size_t>(g * blocks + h)])
                permutation.push_back(h * inside + channel);
        }
        result.emplace_back(groups[m], std::move(permutation));
    }
    return result;
}

void permute_update(Update& update, const symmetry::Symmetries& symmetries,
                    const symmetry::Permutations& permutations) {
    update.parameters = symmetry::permute(update.parameters, symmetries, permutations);
    if (!update.mask.defined()) return;
    model::Parameters mask(update.parameters.layout);
    mask.trainable().copy_(update.mask);
    update.mask = symmetry::permute(mask, symmetries, permutations).trainable().gt(0.5);
}

}  // namespace thalweg::aggregator
