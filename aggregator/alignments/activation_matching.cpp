#include <torch/types.h>

#include <algorithm>
#include <map>
#include <utility>

#include "matching_support.hpp"
#include "thalweg/aggregator/matching.hpp"
#include "thalweg/aggregator/statistics.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/interrupt.hpp"
#include "thalweg/model/interpreter.hpp"

namespace thalweg::aggregator {
namespace {

/// Channels of an operation's output [N, C] or [N, C, H, W] as rows of observations: [C, N·H·W].
at::Tensor observations(const at::Tensor& output) {
    return output.movedim(1, 0).reshape({output.size(1), -1});
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

    at::Tensor inverse_deviation(const at::Tensor& sum, const at::Tensor& squares) const {
        const at::Tensor scatter = squares - sum * sum / count_;
        // What rounding leaves of a constant is far below this share of the squares.
        const at::Tensor alive = scatter > squares * 1e-12;
        return at::where(alive, scatter, at::ones_like(scatter)).rsqrt() * alive;
    }

    double count_ = 0;
    at::Tensor centre_x_, centre_y_, sum_x_, sum_y_, squares_x_, squares_y_, products_;
};

/// The channels of every group, in the groups' order, for one batch.
std::vector<at::Tensor> group_observations(const model::ModelGraph& graph,
                                           const symmetry::Symmetries& symmetries, const model::Views& views,
                                           const at::Tensor& batch) {
    std::map<std::size_t, std::vector<std::size_t>> groups_at;
    for (std::size_t g = 0; g < symmetries.groups.size(); ++g)
        groups_at[symmetries.groups[g].activation].push_back(g);
    std::vector<at::Tensor> result(symmetries.groups.size());
    const auto tap = [&](std::size_t operation, const at::Tensor& output) {
        const auto found = groups_at.find(operation);
        if (found == groups_at.end()) return;
        for (const std::size_t g : found->second) result[g] = observations(output);
    };
    model::forward(graph, views, batch, model::Mode::evaluate, tap, groups_at.rbegin()->first);
    return result;
}

}  // namespace

MatchResult activation_matching(const model::ModelGraph& graph, const symmetry::Symmetries& symmetries,
                                const model::Parameters& a, const model::Parameters& b,
                                const data::SampleSet& samples) {
    require_same_layout(graph, a, b);
    MatchResult result{symmetry::identity(symmetries), 0.0, 1};
    if (symmetries.groups.empty()) return result;
    if (samples.size() < 2) {
        throw core::RunError("activation matching compares channels over samples and got " +
                             std::to_string(samples.size()) + "; it needs at least 2, better hundreds");
    }
    const model::Views views_a = model::views(a);
    const model::Views views_b = model::views(b);
    std::vector<Correlation> correlations(symmetries.groups.size());
    for_each_batch(samples, graph.input_shape(), [&](std::int64_t, const at::Tensor& x, const at::Tensor&) {
        core::check_interrupt();
        const at::Tensor batch = x.to(a.values.scalar_type());
        const auto of_a = group_observations(graph, symmetries, views_a, batch);
        const auto of_b = group_observations(graph, symmetries, views_b, batch);
        for (std::size_t g = 0; g < correlations.size(); ++g) correlations[g].add(of_a[g], of_b[g]);
    });
    for (std::size_t g = 0; g < correlations.size(); ++g) {
        symmetry::AssignmentSolver solver;
        const at::Tensor correlation = correlations[g].pearson();
        result.permutations[g] = best_assignment(solver, correlation, symmetries.groups[g].name);
        const auto matched = at::tensor(result.permutations[g], at::kLong).unsqueeze(1);
        result.objective += correlation.gather(1, matched).sum().item<double>();
    }
    return result;
}

}  // namespace thalweg::aggregator
