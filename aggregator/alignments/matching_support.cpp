#include "matching_support.hpp"

#include <torch/types.h>

#include <algorithm>
#include <span>
#include <stdexcept>

#include "thalweg/aggregator/matching.hpp"
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

model::Parameters moved_model(const model::ModelGraph& graph, const symmetry::Symmetries& symmetries,
                              const model::Parameters& b, const MatchResult& match) {
    if (match.signs.empty()) return symmetry::permute(b, symmetries, match.permutations);
    return symmetry::Flips(graph, symmetries).apply(b, symmetries, {match.permutations, match.signs});
}

void move_update(Update& update, const FusionContext& context, const symmetry::Element& element) {
    const auto& symmetries = context.symmetries;
    const MatchResult match{.permutations = element.permutations, .signs = element.signs};
    update.parameters = moved_model(context.graph, symmetries, update.parameters, match);
    // A later stage may compare it with where its training started.
    if (update.start.defined()) update.start = moved_model(context.graph, symmetries, update.start, match);
    if (!update.mask.defined()) return;
    model::Parameters mask(update.parameters.layout);
    mask.trainable().copy_(update.mask);
    update.mask = symmetry::permute(mask, symmetries, element.permutations).trainable().gt(0.5);
}

namespace {

/// Numbers that say an element: of each group the sources, then the signs, 0 where the group has none.
std::size_t width_of(const symmetry::Symmetries& symmetries) {
    std::int64_t width = 0;
    for (const auto& group : symmetries.groups) width += 2 * group.size;
    return static_cast<std::size_t>(width);
}

void write(const symmetry::Element& element, const symmetry::Symmetries& symmetries, std::span<double> row) {
    auto out = row.begin();
    for (std::size_t g = 0; g < symmetries.groups.size(); ++g) {
        out = std::copy(element.permutations[g].begin(), element.permutations[g].end(), out);
        if (!element.signs.empty()) std::copy(element.signs[g].begin(), element.signs[g].end(), out);
        out += symmetries.groups[g].size;
    }
}

std::vector<symmetry::Element> read(const std::vector<double>& rows, const symmetry::Symmetries& symmetries,
                                    std::size_t count) {
    std::vector<symmetry::Element> result(count);
    auto from = rows.begin();
    for (auto& element : result) {
        bool flipped = false;
        element.signs.resize(symmetries.groups.size());
        for (std::size_t g = 0; g < symmetries.groups.size(); ++g) {
            const auto size = static_cast<std::ptrdiff_t>(symmetries.groups[g].size);
            auto& permutation = element.permutations.emplace_back();
            for (std::ptrdiff_t c = 0; c < size; ++c)
                permutation.push_back(static_cast<std::int64_t>(from[c]));
            from += size;
            if (size > 0 && *from != 0) {
                element.signs[g].assign(from, from + size);
                flipped = true;
            }
            from += size;
        }
        if (!flipped) element.signs.clear();
    }
    return result;
}

}  // namespace

std::vector<symmetry::Element> gather_elements(core::Communicator& communicator,
                                               const symmetry::Symmetries& symmetries, std::size_t count,
                                               const std::function<symmetry::Element(std::size_t)>& compute) {
    const auto rows = core::gather_rows(communicator, static_cast<std::int64_t>(count),
                                        static_cast<std::int64_t>(width_of(symmetries)),
                                        [&](std::int64_t k, std::span<double> row) {
                                            write(compute(static_cast<std::size_t>(k)), symmetries, row);
                                        });
    return read(rows, symmetries, count);
}

std::vector<symmetry::Element> broadcast_elements(core::Communicator& communicator,
                                                  const symmetry::Symmetries& symmetries, std::size_t count,
                                                  const std::vector<symmetry::Element>& all) {
    const std::size_t width = width_of(symmetries);
    std::vector<double> rows(count * width, 0.0);
    if (communicator.rank() == 0) {
        for (std::size_t k = 0; k < count; ++k)
            write(all[k], symmetries, std::span(rows).subspan(k * width, width));
    }
    communicator.broadcast(std::as_writable_bytes(std::span(rows)), 0);
    return read(rows, symmetries, count);
}

void move_updates(FusionState& state, const FusionContext& context,
                  const std::vector<symmetry::Element>& elements) {
    core::collectively(context.communicator, [&] {
        std::size_t next = 0;
        for (std::size_t k = 0; k < context.members.size(); ++k) {
            if (context.members[k].owner != context.communicator.rank()) continue;
            move_update(state.updates.at(next++), context, elements[k]);
        }
    });
}

}  // namespace thalweg::aggregator
