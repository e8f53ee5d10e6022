#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "distances.hpp"
#include "thalweg/aggregator/stage.hpp"

namespace thalweg::aggregator {

namespace {

double lower_median(std::vector<double> values) {
    const auto middle = values.begin() + static_cast<std::ptrdiff_t>((values.size() - 1) / 2);
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
}

/// What models lie apart, of which fewer than half corrupted can make nothing: the median of each model's median distance to
/// the others. Where most are the same, the smallest distance that is none; 0: all are.
double typical_distance(const std::vector<double>& squared, std::size_t n) {
    if (n < 2) return 0;
    std::vector<double> typical;
    double smallest = 0;
    for (std::size_t k = 0; k < n; ++k) {
        std::vector<double> others;
        for (std::size_t j = 0; j < n; ++j) {
            const double distance = std::sqrt(squared[k * n + j]);
            if (j != k) others.push_back(distance);
            if (distance > 0 && (smallest == 0 || distance < smallest)) smallest = distance;
        }
        typical.push_back(lower_median(others));
    }
    const double median = lower_median(typical);
    return median > 0 ? median : smallest;
}

/// The point with the least weighted sum of distances to the clients' models (trainable entries), by Weiszfeld's algorithm
/// smoothed as in Pillutla, Kakade & Harchaoui (RFA, IEEE TSP 2022): c_k ∝ w_k ÷ max(ν, ‖θ_k − z‖), z = Σ c_k θ_k. Bears
/// corrupted clients of less than half of the weight. A finisher behind it that asks for the clients' statistics (repair's
/// targets) averages over them with the coefficients c_k: corrupted ones count little, but they count.
///
/// z stays in the span of the models, so that the iteration needs their mutual distances alone: with Σc = 1,
/// ‖θ_k − z‖² = Σ_j c_j D_kj − ½ Σ_ij c_i c_j D_ij. We run it to the end (the source: three steps), which costs nothing
/// then. ν is relative to the median distance,
/// because a mean one grows with what a corrupted client sends. Running statistics take the same coefficients.
class GeometricMedian final : public Stage {
  public:
    explicit GeometricMedian(const core::Value& options)
        : weighting_(weighting_of(options["weights"].as_text())),
          smoothing_(options["smoothing"].as_number()),
          max_iterations_(options["max_iterations"].as_int()) {}

    StageTraits traits() const override { return {.kind = StageKind::reduction, .linear = true}; }

    StageNotes apply(FusionState& state, const FusionContext& context) const override {
        const auto w =
            core::collectively(context.communicator, [&] { return weights(context.members, weighting_); });
        const auto squared = squared_distances(state.updates, context);
        std::vector<double> c = w;
        const std::int64_t iterations = weiszfeld(squared, w, c);
        state.merged = mean(state.updates, context, c);
        state.weights = c;
        return {{"iterations", static_cast<double>(iterations)},
                {"smallest_weight", *std::min_element(c.begin(), c.end())}};
    }

  private:
    std::int64_t weiszfeld(const std::vector<double>& squared, const std::vector<double>& w,
                           std::vector<double>& c) const {
        const std::size_t n = w.size();
        const double smallest = smoothing_ * typical_distance(squared, n);
        if (smallest == 0) return 0;  // all models are the same
        std::vector<double> next(n);
        for (std::int64_t iteration = 1; iteration <= max_iterations_; ++iteration) {
            std::vector<double> to_point(n, 0.0);
            double spread = 0;
            for (std::size_t k = 0; k < n; ++k) {
                for (std::size_t j = 0; j < n; ++j) to_point[k] += c[j] * squared[k * n + j];
                spread += c[k] * to_point[k] / 2;
            }
            double total = 0;
            for (std::size_t k = 0; k < n; ++k) {
                const double length = std::sqrt(std::max(0.0, to_point[k] - spread));
                next[k] = w[k] / std::max(smallest, length);
                total += next[k];
            }
            double change = 0;
            for (std::size_t k = 0; k < n; ++k) {
                change = std::max(change, std::abs(next[k] / total - c[k]));
                c[k] = next[k] / total;
            }
            if (change < 1e-12) return iteration;
        }
        return max_iterations_;
    }

    Weighting weighting_;
    double smoothing_;
    std::int64_t max_iterations_;
};

const StageRegistration geometric_median_registration{
    {.kind = "stage",
     .name = "geometric_median",
     .help = "the model with the least sum of distances to the clients'; bears less than half corrupted",
     .citation = "Pillutla, Kakade & Harchaoui, Robust Aggregation for Federated Learning, IEEE TSP 2022",
     .options = {core::choice("weights", {"uniform", "samples"},
                              "what a client counts: all alike, or its samples")
                     .by_default("uniform"),
                 core::number("smoothing",
                              "distances are taken for no less than this share of the median one")
                     .above(0)
                     .by_default(1e-6),
                 core::integer("max_iterations", "of Weiszfeld's algorithm").at_least(1).by_default(1000)},
     .cost = "O(K² · d ÷ ranks)"},
    [](const core::Value& options) { return std::make_unique<GeometricMedian>(options); }};

}  // namespace

}  // namespace thalweg::aggregator
