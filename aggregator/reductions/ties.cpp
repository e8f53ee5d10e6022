#include <torch/types.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <vector>

#include "coordinatewise.hpp"
#include "thalweg/aggregator/stage.hpp"

namespace thalweg::aggregator {

namespace {

/// TIES-Merging (Yadav et al., NeurIPS 2023) of the task vectors δ_k = θ_k − base: *trim* each to its `density` largest
/// magnitudes over all trainable entries; *elect* for every coordinate the sign of Σ w_k δ_k; *merge* by the mean of the
/// entries with that sign, weights renormalised over them; base + λ times that.
///
/// The base is the previous global model. Values of equal magnitude at the threshold are all kept. A coordinate whose
/// votes cancel keeps the base's value (departure: the authors' program takes the sign of the majority of all coordinates
/// there). The source elects and merges with equal weights, which is our default. Running
/// statistics are no task vectors: they take the weighted mean.
class Ties final : public Stage {
  public:
    explicit Ties(const core::Value& options)
        : density_(options["density"].as_number()),
          scale_(options["lambda"].as_number()),
          weighting_(weighting_of(options["weights"].as_text())) {}

    StageTraits traits() const override {
        return {.kind = StageKind::reduction,
                .needs_base = true,
                .needs_global_frame = true,
                .fixed_point = false};
    }

    StageNotes apply(FusionState& state, const FusionContext& context) const override {
        const auto w =
            core::collectively(context.communicator, [&] { return weights(context.members, weighting_); });
        const model::Parameters& base = *context.global;
        std::size_t next = 0;
        const auto thresholds = gather_member_rows(
            context.communicator, context.members, 1, [&](std::size_t, std::span<double> row) {
                row[0] = threshold(state.updates[next++].parameters, base);
            });
        const std::int64_t trainable = context.graph.layout->trainable_size();
        state.merged = reduce_coordinates(
            state.updates, context,
            [&](const UpdateSlices& slices, std::int64_t first, std::span<double> out) {
                if (first < trainable) {
                    merge(slices, base, w, thresholds, first, out);
                } else {
                    plain_mean(slices, w, first, out);
                }
                for (std::size_t i = 0; i < out.size(); ++i) {
                    if (!std::isfinite(out[i]))
                        refuse_coordinate(context, slices, first + static_cast<std::int64_t>(i));
                }
            });
        state.weights = w;
        return {};
    }

  private:
    using Block = std::array<double, block_length>;

    /// The smallest magnitude of a task vector that is kept.
    double threshold(const model::Parameters& model, const model::Parameters& base) const {
        const auto count = static_cast<std::size_t>(model.layout->trainable_size());
        const auto kept = std::max<std::size_t>(
            1, static_cast<std::size_t>(std::llround(density_ * static_cast<double>(count))));
        std::vector<double> value(count), start(count);
        load(model.values, 0, value);
        load(base.values, 0, start);
        for (std::size_t i = 0; i < count; ++i) value[i] = std::abs(value[i] - start[i]);
        std::nth_element(value.begin(), value.begin() + static_cast<std::ptrdiff_t>(kept - 1), value.end(),
                         std::greater<>());
        return value[kept - 1];
    }

    void merge(const UpdateSlices& slices, const model::Parameters& base, const std::vector<double>& w,
               const std::vector<double>& thresholds, std::int64_t first, std::span<double> out) const {
        const std::size_t n = out.size();
        Block start, value, vote, sum, weight;
        load(base.values, first, std::span(start).first(n));
        vote.fill(0);
        sum.fill(0);
        weight.fill(0);
        const auto for_each_kept = [&](const auto& use) {
            for (std::size_t k = 0; k < slices.count(); ++k) {
                slices.load(k, first, std::span(value).first(n));
                for (std::size_t i = 0; i < n; ++i) {
                    const double delta = value[i] - start[i];
                    if (delta != 0 && std::abs(delta) >= thresholds[k]) use(k, i, delta);
                }
            }
        };
        for_each_kept([&](std::size_t k, std::size_t i, double delta) { vote[i] += w[k] * delta; });
        for_each_kept([&](std::size_t k, std::size_t i, double delta) {
            if (delta * vote[i] <= 0) return;
            sum[i] += w[k] * delta;
            weight[i] += w[k];
        });
        for (std::size_t i = 0; i < n; ++i)
            out[i] = weight[i] > 0 ? start[i] + scale_ * sum[i] / weight[i] : start[i];
    }

    static void plain_mean(const UpdateSlices& slices, const std::vector<double>& w, std::int64_t first,
                           std::span<double> out) {
        Block value;
        std::fill(out.begin(), out.end(), 0.0);
        for (std::size_t k = 0; k < slices.count(); ++k) {
            slices.load(k, first, std::span(value).first(out.size()));
            for (std::size_t i = 0; i < out.size(); ++i) out[i] += w[k] * value[i];
        }
    }

    double density_, scale_;
    Weighting weighting_;
};

const StageRegistration ties_registration{
    {.kind = "stage",
     .name = "ties",
     .help = "trims task vectors to their largest entries, elects signs, and averages what agrees",
     .citation = "Yadav, Tam, Choshen, Raffel & Bansal, TIES-Merging, NeurIPS 2023",
     .options =
         {core::number("density", "share of each task vector that is kept")
              .above(0)
              .at_most(1)
              .by_default(0.2),
          core::number("lambda", "what the merged task vector is multiplied by").above(0).by_default(1.0),
          core::choice("weights", {"uniform", "samples"},
                       "what a client counts in election and mean: all alike, or its samples")
              .by_default("uniform")},
     .cost = "O(K · d) on the updates' ranks, and O(K · d ÷ ranks) after one exchange"},
    [](const core::Value& options) { return std::make_unique<Ties>(options); }};

}  // namespace

}  // namespace thalweg::aggregator
