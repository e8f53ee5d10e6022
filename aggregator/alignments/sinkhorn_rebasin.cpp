#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "../holdout_loss.hpp"
#include "matching_support.hpp"
#include "sinkhorn.hpp"
#include "soft_permutation.hpp"
#include "thalweg/aggregator/matching.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/interrupt.hpp"
#include "thalweg/core/memory.hpp"

namespace thalweg::aggregator {

namespace {

using Objective = SinkhornOptions::Objective;

/// What is gone down: the objective at B's frame `moved`, and its gradient there.
class Goal {
  public:
    Goal(const model::ModelGraph& graph, const model::Parameters& a,
         std::shared_ptr<const data::SampleSet> samples, std::uint64_t seed, const SinkhornOptions& options)
        : a_(a), objective_(options.objective), line_(seed, "sinkhorn_rebasin, points of the line") {
        if (objective_ != Objective::l2) {
            loss_.emplace(graph, std::move(samples), options.batch_size,
                          core::Random(seed, "sinkhorn_rebasin, batches"), a.is_double());
        }
    }

    /// d objective ÷ d moved, [trainable_size()], at a batch (l2: exactly).
    at::Tensor gradient(const at::Tensor& moved) {
        const at::Tensor a = a_.trainable();
        if (objective_ == Objective::l2) return (moved - a) * (2.0 / static_cast<double>(moved.numel()));
        const double lambda = objective_ == Objective::midpoint ? 0.5 : line_.uniform();
        model::Parameters point = between(moved, lambda);
        loss_->step(point);
        return loss_->gradient() * lambda;
    }
    /// Of a permuted B, over all samples: the squared distance, or the loss at the midpoint.
    double value(const model::Parameters& moved) {
        if (objective_ == Objective::l2) {
            const double length = distance(a_, moved);
            return length * length;
        }
        return loss_->whole(between(moved.trainable(), 0.5));
    }
    std::int64_t steps_per_epoch() const {
        return objective_ == Objective::l2 ? 1 : loss_->steps_per_epoch();
    }

  private:
    model::Parameters between(const at::Tensor& moved, double lambda) const {
        model::Parameters point = a_.clone();
        point.trainable().copy_(at::lerp(a_.trainable(), moved, lambda));
        return point;
    }

    const model::Parameters& a_;
    Objective objective_;
    core::Random line_;
    std::optional<HoldoutLoss> loss_;
};

}  // namespace

MatchResult sinkhorn_rebasin(const model::ModelGraph& graph, const symmetry::Symmetries& symmetries,
                             const model::Parameters& a, const model::Parameters& b,
                             std::shared_ptr<const data::SampleSet> samples, core::Random& random,
                             const SinkhornOptions& options) {
    require_same_layout(graph, a, b);
    MatchResult best{symmetry::identity(symmetries), inner_product(a, b), 0};
    // The same model is in its own basin, whatever the loss in the middle.
    if (symmetries.groups.empty() || distance(a, b) == 0) return best;
    double bytes = 0;
    for (const auto& group : symmetries.groups)
        bytes += 6.0 * static_cast<double>(group.size) * static_cast<double>(group.size);
    core::require_memory(bytes * static_cast<double>(a.values.element_size()), "the soft permutations");

    const SoftPermuter permuter(symmetries, *graph.layout);
    SoftPermutations scores;
    std::vector<AdamW> optimizers;
    for (const auto& group : symmetries.groups) {
        at::Tensor score = at::eye(group.size, at::kDouble);
        auto* element = score.data_ptr<double>();
        for (std::int64_t i = 0; i < score.numel(); ++i) element[i] += random.normal(0.0, options.noise);
        scores.push_back(score.to(a.values.scalar_type()));
        optimizers.emplace_back(options.lr, 0.01);
    }
    Goal goal(graph, a, std::move(samples), random.next(), options);
    double best_value = goal.value(b);
    symmetry::Permutations last = best.permutations;
    const std::int64_t checked_every = goal.steps_per_epoch();
    for (std::int64_t step = 1; step <= options.steps; ++step) {
        core::check_interrupt();
        SoftPermutations soft;
        for (const auto& score : scores)
            soft.push_back(sinkhorn(score / options.temperature, options.iterations));
        const at::Tensor upstream = goal.gradient(permuter.apply(b, soft));
        const SoftPermutations of_soft = permuter.gradient(b, soft, upstream);
        for (std::size_t g = 0; g < scores.size(); ++g)
            optimizers[g].step(scores[g], sinkhorn_gradient(soft[g], of_soft[g]) / options.temperature);
        best.sweeps = static_cast<int>(step);
        if (step % checked_every != 0 && step != options.steps) continue;
        auto hard = best_permutations(symmetries, scores);
        if (hard == last) continue;
        last = hard;
        const double value = goal.value(symmetry::permute(b, symmetries, hard));
        if (value >= best_value) continue;
        best_value = value;
        best.permutations = std::move(hard);
    }
    best.objective = inner_product(a, symmetry::permute(b, symmetries, best.permutations));
    return best;
}

}  // namespace thalweg::aggregator
