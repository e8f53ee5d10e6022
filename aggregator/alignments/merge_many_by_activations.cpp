#include <torch/types.h>

#include <algorithm>
#include <optional>
#include <span>
#include <stdexcept>

#include "activation_similarity.hpp"
#include "matching_support.hpp"
#include "thalweg/aggregator/matching.hpp"
#include "thalweg/core/interrupt.hpp"
#include "thalweg/core/memory.hpp"

namespace thalweg::aggregator {
namespace {

/// The similarities of every pair of models, group by group.
class Pairs {
  public:
    /// Collective.
    Pairs(const model::ModelGraph& graph, const symmetry::Symmetries& symmetries,
          const std::vector<model::Parameters>& models, const data::SampleSet& samples,
          core::Communicator& communicator, const ActivationMatchingOptions& options)
        : symmetries_(symmetries), count_(models.size()) {
        std::int64_t width = 0;
        for (const auto& group : symmetries.groups) width += group.size * group.size;
        const auto pairs = static_cast<std::int64_t>(count_ * (count_ - 1) / 2);
        core::collectively(communicator, [&] {
            core::require_memory(4.0 * static_cast<double>(pairs * width) * sizeof(double),
                                 "the similarities of all pairs of models' channels");
        });
        std::vector<std::pair<std::size_t, std::size_t>> pair_of;
        for (std::size_t p = 0; p < count_; ++p) {
            for (std::size_t q = p + 1; q < count_; ++q) pair_of.emplace_back(p, q);
        }
        values_ = core::gather_rows(communicator, pairs, width, [&](std::int64_t i, std::span<double> row) {
            core::check_interrupt();
            const auto [p, q] = pair_of[static_cast<std::size_t>(i)];
            auto out = row.begin();
            const auto similarity =
                activation_similarity(graph, symmetries, models[p], models[q], samples, options.kernel);
            for (std::size_t g = 0; g < similarity.size(); ++g) {
                const at::Tensor& of_group = similarity[g];
                if (of_group.defined()) {
                    const at::Tensor dense = of_group.contiguous();
                    std::copy_n(dense.data_ptr<double>(), dense.numel(), out);
                }
                out += symmetries.groups[g].size * symmetries.groups[g].size;
            }
        });
        for (std::int64_t i = 0; i < pairs; ++i) {
            auto& groups = of_pair_.emplace_back();
            std::int64_t first = i * width;
            for (const auto& group : symmetries.groups) {
                groups.push_back(
                    at::from_blob(values_.data() + first, {group.size, group.size}, at::kDouble));
                first += group.size * group.size;
            }
        }
    }
    Pairs(const Pairs&) = delete;

    /// Rows: q's channels; columns: p's. Undefined for a group that no operation shows.
    at::Tensor at(std::size_t q, std::size_t p, std::size_t group) const {
        if (symmetries_.groups[group].sight.operation == symmetry::Group::Sight::none) return {};
        const std::size_t low = std::min(p, q), high = std::max(p, q);
        // The pairs (0, 1) … (0, K − 1), (1, 2) …
        const std::size_t index = low * count_ - low * (low + 1) / 2 + (high - low - 1);
        return q < p ? of_pair_[index][group] : of_pair_[index][group].t();
    }

  private:
    const symmetry::Symmetries& symmetries_;
    std::size_t count_;
    std::vector<double> values_;
    std::vector<std::vector<at::Tensor>> of_pair_;
};

/// What channel j of model p is worth in place i beside the others where they stand: Σ_q w_q s(q's channel there, j).
std::vector<at::Tensor> beside_others(const Pairs& pairs, const symmetry::Symmetries& symmetries,
                                      const std::vector<symmetry::Element>& elements,
                                      const std::vector<double>& weights, std::size_t p, std::size_t others) {
    std::vector<at::Tensor> result;
    for (std::size_t g = 0; g < symmetries.groups.size(); ++g) {
        at::Tensor sum;
        for (std::size_t q = 0; q < others; ++q) {
            if (q == p) continue;
            const at::Tensor similarity = pairs.at(q, p, g);
            if (!similarity.defined()) break;
            const auto& sources = elements[q].permutations[g];
            at::Tensor placed = similarity.index_select(0, at::tensor(sources, at::kLong)) * weights[q];
            if (!elements[q].signs.empty() && !elements[q].signs[g].empty()) {
                const at::Tensor signs = at::tensor(elements[q].signs[g], at::kDouble);
                placed.mul_(signs.index_select(0, at::tensor(sources, at::kLong)).unsqueeze(1));
            }
            sum = sum.defined() ? sum.add_(placed) : placed;
        }
        result.push_back(sum);
    }
    return result;
}

}  // namespace

std::vector<symmetry::Element> merge_many_by_activations(const model::ModelGraph& graph,
                                                         const symmetry::Symmetries& symmetries,
                                                         const std::vector<model::Parameters>& models,
                                                         const std::vector<double>& weights,
                                                         const data::SampleSet& samples,
                                                         core::Communicator& communicator, int max_iterations,
                                                         const ActivationMatchingOptions& options) {
    if (models.size() != weights.size())
        throw std::logic_error("merge_many_by_activations: one weight a model");
    std::vector<symmetry::Element> elements(models.size(), {symmetry::identity(symmetries)});
    if (models.size() < 2 || symmetries.groups.empty()) return elements;
    core::collectively(communicator, [&] {
        for (const model::Parameters& model : models) require_same_layout(graph, models.front(), model);
    });
    const Pairs pairs(graph, symmetries, models, samples, communicator, options);
    core::collectively(communicator, [&] {
        std::optional<symmetry::Flips> flips;
        if (options.flips) flips.emplace(graph, symmetries);
        // p among the first `others` models; the sum of its similarities there.
        const auto place = [&](std::size_t p, std::size_t others) {
            core::check_interrupt();
            const auto match =
                assign_similar(symmetries, beside_others(pairs, symmetries, elements, weights, p, others),
                               flips ? &*flips : nullptr);
            elements[p] = {match.permutations, match.signs};
            return weights[p] * match.objective;
        };
        for (std::size_t p = 1; p < models.size(); ++p) place(p, p);
        double before = 0;
        for (int pass = 0; pass < max_iterations; ++pass) {
            double objective = 0;
            for (std::size_t p = 0; p < models.size(); ++p) objective += place(p, models.size());
            if (pass > 0 && objective - before <= 1e-9 * std::abs(before)) break;
            before = objective;
        }
    });
    return elements;
}

}  // namespace thalweg::aggregator
