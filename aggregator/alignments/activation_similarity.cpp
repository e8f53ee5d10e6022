#include "activation_similarity.hpp"

#include <torch/types.h>

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "matching_support.hpp"
#include "thalweg/aggregator/statistics.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/memory.hpp"
#include "thalweg/model/interpreter.hpp"

namespace thalweg::aggregator {
namespace {

/// A group's channels in the output that shows them, as rows of observations: over the samples, the positions, and the
/// places of a channel. [size, …]
at::Tensor observations(const at::Tensor& output, const symmetry::Group& group) {
    const auto& sight = group.sight;
    const at::Tensor rows = output.movedim(sight.axis, 0).reshape({output.size(sight.axis), -1});
    return rows.index_select(0, at::tensor(sight.places, at::kLong)).reshape({group.size, -1});
}

/// Pearson correlation of two sets of channels, accumulated batch by batch in double. Values are taken relative to the
/// first batch's means, so that a constant channel has variance zero exactly and nothing cancels.
class Correlation {
  public:
    /// Observations as they were computed; the doubles of one group at a time are all that is held of them.
    void add(at::Tensor x, at::Tensor y) {
        x = x.to(at::kDouble);
        y = y.to(at::kDouble);
        if (count_ == 0) start(x, y);
        x = x - centre_x_;
        y = y - centre_y_;
        count_ += static_cast<double>(x.size(1));
        sum_x_ += x.sum(1);
        sum_y_ += y.sum(1);
        squares_x_ += (x * x).sum(1);
        squares_y_ += (y * y).sum(1);
        products_.addmm_(x, y.t());
    }

    /// [channels of x, channels of y]; 0 where either channel is dead (never changes).
    at::Tensor pearson() const {
        const at::Tensor covariance = products_ - at::outer(sum_x_, sum_y_) / count_;
        return covariance *
               at::outer(inverse_deviation(sum_x_, squares_x_), inverse_deviation(sum_y_, squares_y_));
    }

    /// Of the values as they are; 0 where either channel is zero throughout.
    at::Tensor cosine() const {
        const at::Tensor cx = centre_x_.squeeze(1), cy = centre_y_.squeeze(1);
        const at::Tensor products =
            products_ + at::outer(cx, sum_y_) + at::outer(sum_x_, cy) + count_ * at::outer(cx, cy);
        return products *
               at::outer(inverse_length(sum_x_, squares_x_, cx), inverse_length(sum_y_, squares_y_, cy));
    }

  private:
    void start(const at::Tensor& x, const at::Tensor& y) {
        centre_x_ = x.mean(1, true);
        centre_y_ = y.mean(1, true);
        sum_x_ = at::zeros({x.size(0)}, at::kDouble);
        squares_x_ = at::zeros_like(sum_x_);
        sum_y_ = at::zeros({y.size(0)}, at::kDouble);
        squares_y_ = at::zeros_like(sum_y_);
        products_ = at::zeros({x.size(0), y.size(0)}, at::kDouble);
    }

    at::Tensor inverse_length(const at::Tensor& sum, const at::Tensor& squares,
                              const at::Tensor& centre) const {
        const at::Tensor square = squares + 2 * centre * sum + count_ * centre * centre;
        const at::Tensor alive = square > 0;
        return at::where(alive, square, at::ones_like(square)).rsqrt() * alive;
    }

    at::Tensor inverse_deviation(const at::Tensor& sum, const at::Tensor& squares) const {
        const at::Tensor scatter = squares - sum * sum / count_;
        // What rounding leaves of a constant is far below this share of the squares.
        const at::Tensor alive = scatter > squares * 1e-12;
        return at::where(alive, scatter, at::ones_like(scatter)).rsqrt() * alive;
    }

    double count_ = 0;
    at::Tensor centre_x_, centre_y_, sum_x_, sum_y_, squares_x_, squares_y_, products_;
};

/// The channels of every group, in the groups' order, for one batch; undefined for those that no operation shows.
std::vector<at::Tensor> group_observations(const model::ModelGraph& graph,
                                           const symmetry::Symmetries& symmetries, const model::Views& views,
                                           const at::Tensor& batch) {
    std::map<std::size_t, std::vector<std::size_t>> groups_at;
    for (std::size_t g = 0; g < symmetries.groups.size(); ++g) {
        const auto operation = symmetries.groups[g].sight.operation;
        if (operation != symmetry::Group::Sight::none) groups_at[operation].push_back(g);
    }
    std::vector<at::Tensor> result(symmetries.groups.size());
    if (groups_at.empty()) return result;
    const auto tap = [&](std::size_t operation, const at::Tensor& output) {
        const auto found = groups_at.find(operation);
        if (found == groups_at.end()) return;
        for (const std::size_t g : found->second) result[g] = observations(output, symmetries.groups[g]);
    };
    model::forward(graph, views, batch, model::Mode::evaluate, tap, groups_at.rbegin()->first);
    return result;
}

}  // namespace

std::vector<at::Tensor> activation_similarity(const model::ModelGraph& graph,
                                              const symmetry::Symmetries& symmetries,
                                              const model::Parameters& a, const model::Parameters& b,
                                              const data::SampleSet& samples,
                                              ActivationMatchingOptions::Kernel kernel) {
    if (samples.size() < 2) {
        throw core::RunError("activation matching compares channels over samples and got " +
                             std::to_string(samples.size()) + "; it needs at least 2, better hundreds");
    }
    double gains = 0;
    for (const auto& group : symmetries.groups) {
        gains += static_cast<double>(group.size) * static_cast<double>(group.size) * sizeof(double);
    }
    core::require_memory(gains, "the correlations of all groups");
    const model::Views views_a = model::views(a);
    const model::Views views_b = model::views(b);
    std::vector<Correlation> correlations(symmetries.groups.size());
    const auto correlate = [&](std::int64_t, const at::Tensor& x, const at::Tensor&) {
        const at::Tensor batch = x.to(a.values.scalar_type());
        const auto of_a = group_observations(graph, symmetries, views_a, batch);
        const auto of_b = group_observations(graph, symmetries, views_b, batch);
        for (std::size_t g = 0; g < correlations.size(); ++g) {
            if (of_a[g].defined()) correlations[g].add(of_a[g], of_b[g]);
        }
    };
    for_each_batch(samples, graph.input_shape(), correlate, model::samples_at_once(graph));
    const bool cosine = kernel == ActivationMatchingOptions::Kernel::cosine;
    std::vector<at::Tensor> similarity;
    for (std::size_t g = 0; g < correlations.size(); ++g) {
        const bool seen = symmetries.groups[g].sight.operation != symmetry::Group::Sight::none;
        similarity.push_back(!seen    ? at::Tensor()
                             : cosine ? correlations[g].cosine()
                                      : correlations[g].pearson());
        correlations[g] = {};
    }
    return similarity;
}

MatchResult assign_similar(const symmetry::Symmetries& symmetries, const std::vector<at::Tensor>& similarity,
                           const symmetry::Flips* flips) {
    MatchResult result{symmetry::identity(symmetries), 0.0, 1};
    std::map<int, std::vector<std::size_t>> bonds;
    const auto matched = [&](std::size_t g, const symmetry::Permutation& permutation) {
        return similarity[g].gather(1, at::tensor(permutation, at::kLong).unsqueeze(1)).squeeze(1);
    };
    const auto take = [&](std::size_t g, const symmetry::Permutation& permutation) {
        result.permutations[g] = permutation;
        result.objective += matched(g, permutation).sum().item<double>();
    };
    const auto take_with_signs = [&](std::size_t g) {
        symmetry::AssignmentSolver solver;
        const auto permutation = best_assignment(solver, similarity[g].abs(), symmetries.groups[g].name);
        const at::Tensor values = matched(g, permutation);
        result.permutations[g] = permutation;
        result.objective += values.abs().sum().item<double>();
        result.signs.resize(symmetries.groups.size());
        auto& signs = result.signs[g];
        signs.assign(permutation.size(), 1.0);
        for (std::size_t c = 0; c < permutation.size(); ++c) {
            if (values.data_ptr<double>()[c] < 0) signs[static_cast<std::size_t>(permutation[c])] = -1.0;
        }
    };
    for (std::size_t g = 0; g < similarity.size(); ++g) {
        const symmetry::Group& group = symmetries.groups[g];
        if (!similarity[g].defined()) continue;
        if (group.bond >= 0) {
            bonds[group.bond].push_back(g);
            continue;
        }
        if (flips != nullptr && flips->has(g)) {
            take_with_signs(g);
            continue;
        }
        symmetry::AssignmentSolver solver;
        take(g, best_assignment(solver, similarity[g], group.name));
    }
    for (const auto& [bond, groups] : bonds) {
        const auto of_bond =
            std::count_if(symmetries.groups.begin(), symmetries.groups.end(),
                          [&, bond = bond](const symmetry::Group& group) { return group.bond == bond; });
        // Blocks that only some of the groups were seen in would tear the others apart.
        if (of_bond != static_cast<std::ptrdiff_t>(groups.size())) continue;
        std::vector<at::Tensor> gains;
        for (const std::size_t g : groups) gains.push_back(similarity[g]);
        for (const auto& [g, permutation] : best_blocks(symmetries, groups, gains)) take(g, permutation);
    }
    return result;
}

}  // namespace thalweg::aggregator
