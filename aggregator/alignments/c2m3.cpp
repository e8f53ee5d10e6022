#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <utility>
#include <vector>

#include "matching_support.hpp"
#include "soft_permutation.hpp"
#include "thalweg/aggregator/matching.hpp"
#include "thalweg/core/interrupt.hpp"
#include "thalweg/core/memory.hpp"

namespace thalweg::aggregator {

namespace {

/// Where on [0, 1] the polynomial through (i / (n − 1), values[i]) is largest.
double best_step(const std::vector<double>& values) {
    const auto n = static_cast<std::int64_t>(values.size());
    const at::Tensor points = at::linspace(0, 1, n, at::kDouble);
    const at::Tensor powers = points.unsqueeze(1).pow(at::arange(n, at::kDouble));
    const at::Tensor solved = at::linalg_solve(powers, at::tensor(values, at::kDouble));
    const std::vector<double> coefficient(solved.data_ptr<double>(), solved.data_ptr<double>() + n);
    const auto at_step = [&](double step) {
        double sum = 0;
        for (auto c = coefficient.rbegin(); c != coefficient.rend(); ++c) sum = sum * step + *c;
        return sum;
    };
    constexpr int cells = 1000;
    int best = 0;
    for (int i = 1; i <= cells; ++i) {
        if (at_step(static_cast<double>(i) / cells) > at_step(static_cast<double>(best) / cells)) best = i;
    }
    // The top of that cell's neighbourhood, by halving on the slope.
    double low = std::max(0.0, (best - 1.0) / cells), high = std::min(1.0, (best + 1.0) / cells);
    const auto slope = [&](double step) {
        double sum = 0;
        for (std::size_t k = coefficient.size() - 1; k > 0; --k)
            sum = sum * step + static_cast<double>(k) * coefficient[k];
        return sum;
    };
    for (int i = 0; i < 60; ++i) {
        const double middle = (low + high) / 2;
        (slope(middle) > 0 ? low : high) = middle;
    }
    const double top = (low + high) / 2;
    return at_step(top) >= at_step(best == cells ? 1.0 : static_cast<double>(best) / cells)
               ? top
               : static_cast<double>(best) / cells;
}

/// Of the polynomials of degree n − 1 that are 1 at i / (n − 1) and 0 at the other such points, the values at `step`.
std::vector<double> lagrange(std::size_t n, double step) {
    std::vector<double> result(n, 1.0);
    const auto point = [&](std::size_t i) { return static_cast<double>(i) / static_cast<double>(n - 1); };
    for (std::size_t i = 0; i < n; ++i) {
        for (std::size_t j = 0; j < n; ++j) {
            if (j != i) result[i] *= (step - point(j)) / (point(i) - point(j));
        }
    }
    return result;
}

/// The models on their way from where they stand to their corners. Every tensor is a product of as many matrices as groups
/// act on it, so that a model is a polynomial of that degree in the step, and known wherever it is known at degree + 1
/// points.
class Segment {
  public:
    /// frames[p][i]: model p at step i / (n − 1).
    Segment(std::vector<std::vector<at::Tensor>> frames, const std::vector<double>& weights)
        : frames_(std::move(frames)) {
        for (std::size_t p = 0; p < frames_.size(); ++p) {
            const at::Tensor rows = at::stack(frames_[p]).to(at::kDouble).mul_(weights[p]);
            const at::Tensor own = rows.mm(rows.t());
            alone_ = p == 0 ? own : alone_ + own;
            sum_ = p == 0 ? rows : sum_.add_(rows);
        }
        products_ = sum_.mm(sum_.t()).sub_(alone_).contiguous();
    }
    /// Σ_{p<q} w_p w_q ⟨θ_p, θ_q⟩ = (‖Σ w_p θ_p‖² − Σ w_p² ‖θ_p‖²) ÷ 2.
    double objective(double step) const {
        const auto n = static_cast<std::size_t>(products_.size(0));
        const auto share = lagrange(n, step);
        double sum = 0;
        for (std::size_t i = 0; i < n; ++i) {
            for (std::size_t j = 0; j < n; ++j)
                sum += share[i] * share[j] * products_.data_ptr<double>()[i * n + j];
        }
        return sum / 2;
    }
    /// Where on the way it is largest: it is a polynomial of twice the models' degree.
    double best() const {
        const std::int64_t points = 2 * products_.size(0) - 1;
        std::vector<double> values;
        for (std::int64_t i = 0; i < points; ++i)
            values.push_back(objective(static_cast<double>(i) / static_cast<double>(points - 1)));
        return best_step(values);
    }
    std::vector<at::Tensor> models_at(double step) const {
        const auto share = lagrange(frames_.front().size(), step);
        std::vector<at::Tensor> result;
        for (const auto& of_model : frames_) {
            at::Tensor model = of_model.front() * share.front();
            for (std::size_t i = 1; i < share.size(); ++i) model.add_(of_model[i], share[i]);
            result.push_back(std::move(model));
        }
        return result;
    }

  private:
    std::vector<std::vector<at::Tensor>> frames_;
    at::Tensor sum_, alone_, products_;
};

double objective_of(const std::vector<at::Tensor>& models, const std::vector<double>& weights) {
    std::vector<std::vector<at::Tensor>> resting;
    for (const at::Tensor& model : models) resting.push_back({model, model});
    return Segment(std::move(resting), weights).objective(0);
}

/// One vector a model, like `example`, each computed by one rank, the same on every rank afterwards. Collective.
std::vector<at::Tensor> gather_vectors(core::Communicator& communicator, std::size_t count,
                                       const at::Tensor& example,
                                       const std::function<at::Tensor(std::size_t)>& compute) {
    const auto ranks = static_cast<std::size_t>(communicator.size());
    const auto rank = static_cast<std::size_t>(communicator.rank());
    std::vector<at::Tensor> result(count);
    core::Bytes mine;
    core::collectively(communicator, [&] {
        for (std::size_t p = rank; p < count; p += ranks) {
            result[p] = compute(p);
            const auto* bytes = static_cast<const std::byte*>(result[p].data_ptr());
            if (ranks > 1) mine.insert(mine.end(), bytes, bytes + result[p].nbytes());
        }
    });
    if (ranks == 1) return result;
    const auto all = communicator.all_gather(mine);
    core::collectively(communicator, [&] {
        for (std::size_t p = 0; p < count; ++p) {
            if (p % ranks == rank) continue;
            result[p] = at::empty_like(example);
            std::memcpy(result[p].data_ptr(), all[p % ranks].data() + p / ranks * example.nbytes(),
                        example.nbytes());
        }
    });
    return result;
}

/// One run from `start`. Collective.
C2m3Result descend(const model::ModelGraph& graph, const symmetry::Symmetries& symmetries,
                   const std::vector<model::Parameters>& models, const std::vector<double>& weights,
                   core::Communicator& communicator, const C2m3Options& options,
                   const std::vector<symmetry::Permutations>& start) {
    const std::size_t count = models.size();
    const SoftPermuter permuter(symmetries, *graph.layout);
    const auto type = models.front().values.scalar_type();
    const auto moved = [&](std::size_t p, const symmetry::Permutations& permutations) {
        return symmetry::permute(models[p], symmetries, permutations).trainable();
    };
    C2m3Result result;
    std::vector<SoftPermutations> matrices;  // of each model: where it stands
    std::vector<at::Tensor> frames;          // the models there
    double objective = core::collectively(communicator, [&] {
        for (std::size_t p = 0; p < count; ++p) {
            matrices.push_back(as_matrices(start[p], type));
            frames.push_back(moved(p, start[p]));
        }
        return objective_of(frames, weights);
    });
    int idle = 0;
    while (result.iterations < options.max_iterations && idle < options.patience) {
        ++result.iterations;
        at::Tensor sum = core::collectively(communicator, [&] {
            core::check_interrupt();
            at::Tensor total = frames.front() * weights.front();
            for (std::size_t p = 1; p < count; ++p) total.add_(frames[p], weights[p]);
            return total;
        });
        const auto corners =
            gather_elements(communicator, symmetries, count, [&](std::size_t p) -> symmetry::Element {
                // d objective ÷ d model p, up to the factor w_p, which moves no corner.
                const at::Tensor upstream = sum.sub(frames[p], weights[p]);
                return {best_permutations(symmetries, permuter.gradient(models[p], matrices[p], upstream))};
            });
        // Step 0 is where we stand and step 1 is a permutation: only what is between takes products.
        std::vector<std::vector<at::Tensor>> path(count);
        const int degree = std::max(1, permuter.degree());
        for (std::size_t p = 0; p < count; ++p) path[p].push_back(frames[p]);
        for (int i = 1; i < degree; ++i) {
            const double step = static_cast<double>(i) / degree;
            auto between = gather_vectors(communicator, count, frames.front(), [&](std::size_t p) {
                const auto corner = as_matrices(corners[p].permutations, type);
                SoftPermutations soft;
                for (std::size_t g = 0; g < corner.size(); ++g)
                    soft.push_back(matrices[p][g].lerp(corner[g], step));
                return permuter.apply(models[p], soft);
            });
            for (std::size_t p = 0; p < count; ++p) path[p].push_back(std::move(between[p]));
        }
        const double before = objective;
        core::collectively(communicator, [&] {
            for (std::size_t p = 0; p < count; ++p) path[p].push_back(moved(p, corners[p].permutations));
            const Segment segment(std::move(path), weights);
            const double step = segment.best();
            objective = segment.objective(step);
            frames = segment.models_at(step);
            for (std::size_t p = 0; p < count; ++p) {
                const auto corner = as_matrices(corners[p].permutations, type);
                for (std::size_t g = 0; g < corner.size(); ++g) matrices[p][g].lerp_(corner[g], step);
            }
        });
        idle = objective - before <= options.tolerance * std::abs(before) ? idle + 1 : 0;
    }
    result.relaxed = objective;
    result.elements = gather_elements(
        communicator, symmetries, count,
        [&](std::size_t p) -> symmetry::Element { return {best_permutations(symmetries, matrices[p])}; });
    result.objective = core::collectively(communicator, [&] {
        for (std::size_t p = 0; p < count; ++p) frames[p] = moved(p, result.elements[p].permutations);
        return objective_of(frames, weights);
    });
    return result;
}

}  // namespace

C2m3Result c2m3(const model::ModelGraph& graph, const symmetry::Symmetries& symmetries,
                const std::vector<model::Parameters>& models, const std::vector<double>& weights,
                core::Communicator& communicator, core::Random& random, const C2m3Options& options) {
    if (models.size() != weights.size()) throw std::logic_error("c2m3: one weight a model");
    const std::size_t count = models.size();
    C2m3Result best;
    best.elements.assign(count, {symmetry::identity(symmetries)});
    if (count < 2 || symmetries.groups.empty()) return best;
    const auto type = models.front().values.scalar_type();
    for (int run = 0; run < options.restarts; ++run) {
        std::vector<symmetry::Permutations> start;
        core::collectively(communicator, [&] {
            for (const auto& model : models) require_same_layout(graph, models.front(), model);
            double numbers = 5.0 * static_cast<double>(graph.layout->trainable_size());
            for (const auto& group : symmetries.groups)
                numbers += 3.0 * static_cast<double>(group.size) * static_cast<double>(group.size);
            const double d = static_cast<double>(graph.layout->trainable_size());
            const double points = 1.0 + std::max(1, SoftPermuter(symmetries, *graph.layout).degree());
            // Of all models at once, and of one when its products with the others are taken, in double.
            core::require_memory((numbers * static_cast<double>(count) + 5.0 * points * d) *
                                     static_cast<double>(at::elementSize(type)),
                                 "the soft permutations of all models");
            for (std::size_t p = 0; p < count; ++p) {
                // The universe's own frame is free: the first model may stay.
                const bool stays = run == 0 || p == 0;
                start.push_back(stays ? symmetry::identity(symmetries)
                                      : symmetry::random_permutations(symmetries, random));
            }
        });
        auto found = descend(graph, symmetries, models, weights, communicator, options, start);
        if (run == 0 || found.objective > best.objective) best = std::move(found);
    }
    return best;
}

}  // namespace thalweg::aggregator
