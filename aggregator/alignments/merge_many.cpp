#include <torch/types.h>

#include <algorithm>
#include <stdexcept>

#include "matching_support.hpp"
#include "thalweg/aggregator/matching.hpp"
#include "thalweg/core/interrupt.hpp"

namespace thalweg::aggregator {
namespace {

/// Σ w_k θ_k in double, kept up to date while the models move.
class RunningSum {
  public:
    RunningSum(const std::vector<model::Parameters>& models, const std::vector<double>& weights)
        : sum_(at::zeros({models.front().layout->size()}, at::kDouble)) {
        for (std::size_t k = 0; k < models.size(); ++k) add(models[k], weights[k]);
    }
    void add(const model::Parameters& model, double weight) { sum_.add_(model.values, weight); }
    /// The weighted mean of all but one model, in that model's precision.
    model::Parameters mean_without(const model::Parameters& model, double weight) const {
        model::Parameters result = model.clone();
        result.values.copy_(sum_.sub(model.values, weight).div_(1.0 - weight));
        return result;
    }

  private:
    at::Tensor sum_;
};

bool moves_nothing(const symmetry::Permutations& permutations) {
    return std::all_of(permutations.begin(), permutations.end(), symmetry::is_identity);
}

}  // namespace

std::vector<symmetry::Permutations> merge_many(const model::ModelGraph& graph,
                                               const symmetry::Symmetries& symmetries,
                                               const std::vector<model::Parameters>& models,
                                               const std::vector<double>& weights, core::Random& random,
                                               int max_iterations) {
    if (models.size() != weights.size()) throw std::logic_error("merge_many: one weight a model");
    std::vector<symmetry::Permutations> total(models.size(), symmetry::identity(symmetries));
    if (models.size() < 2) return total;
    for (const model::Parameters& model : models) require_same_layout(graph, models.front(), model);

    std::vector<model::Parameters> moved = models;
    RunningSum sum(moved, weights);
    bool any_moved = true;
    for (int iteration = 0; any_moved && iteration < max_iterations; ++iteration) {
        any_moved = false;
        for (const std::int64_t next : random.permutation(static_cast<std::int64_t>(models.size()))) {
            const auto k = static_cast<std::size_t>(next);
            core::check_interrupt();
            if (weights[k] >= 1.0) continue;  // the others weigh nothing
            const model::Parameters others = sum.mean_without(moved[k], weights[k]);
            const MatchResult match = weight_matching(graph, symmetries, others, moved[k], random);
            if (moves_nothing(match.permutations)) continue;
            any_moved = true;
            total[k] = symmetry::compose(total[k], match.permutations);
            sum.add(moved[k], -weights[k]);
            moved[k] = symmetry::permute(models[k], symmetries, total[k]);
            sum.add(moved[k], weights[k]);
        }
    }
    return total;
}

}  // namespace thalweg::aggregator
