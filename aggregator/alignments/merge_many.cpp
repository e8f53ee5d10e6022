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

bool moves_nothing(const MatchResult& match) {
    return std::all_of(match.permutations.begin(), match.permutations.end(), symmetry::is_identity) &&
           std::all_of(match.signs.begin(), match.signs.end(),
                       [](const auto& signs) { return signs.empty(); });
}

}  // namespace

std::vector<symmetry::Element> merge_many(const model::ModelGraph& graph,
                                          const symmetry::Symmetries& symmetries,
                                          const std::vector<model::Parameters>& models,
                                          const std::vector<double>& weights, core::Random& random,
                                          int max_iterations, core::Communicator* communicator) {
    if (models.size() != weights.size()) throw std::logic_error("merge_many: one weight a model");
    std::vector<symmetry::Element> total(models.size(), {symmetry::identity(symmetries)});
    if (models.size() < 2) return total;
    for (const model::Parameters& model : models) require_same_layout(graph, models.front(), model);

    const symmetry::Flips flips(graph, symmetries);
    std::vector<model::Parameters> moved = models;
    RunningSum sum(moved, weights);
    WeightMatchingOptions options;
    options.flips = flips.any();
    options.communicator = communicator;
    bool any_moved = true;
    for (int iteration = 0; any_moved && iteration < max_iterations; ++iteration) {
        any_moved = false;
        for (const std::int64_t next : random.permutation(static_cast<std::int64_t>(models.size()))) {
            const auto k = static_cast<std::size_t>(next);
            if (communicator == nullptr) core::check_interrupt();
            if (weights[k] >= 1.0) continue;  // the others weigh nothing
            const model::Parameters others = sum.mean_without(moved[k], weights[k]);
            const MatchResult match = weight_matching(graph, symmetries, others, moved[k], random, options);
            if (moves_nothing(match)) continue;
            any_moved = true;
            total[k] = flips.compose(total[k], {match.permutations, match.signs});
            sum.add(moved[k], -weights[k]);
            moved[k] = flips.apply(models[k], symmetries, total[k]);
            sum.add(moved[k], weights[k]);
        }
    }
    return total;
}

}  // namespace thalweg::aggregator
