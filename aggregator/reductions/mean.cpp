#include <torch/types.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <span>
#include <stdexcept>

#include "coordinatewise.hpp"
#include "thalweg/aggregator/stage.hpp"

namespace thalweg::aggregator {

namespace {

using Block = std::array<double, block_length>;

/// Means of the coordinates from `first` on. Every sum runs over the clients in their order.
void mean_of_block(const FusionContext& context, const UpdateSlices& slices,
                   const std::vector<double>& weights, std::int64_t first, std::span<double> mean) {
    const std::size_t n = mean.size();
    const bool masked = slices.has_masks() && first < context.graph.layout->trainable_size();
    Block value, kept_sum, kept_weight;
    std::array<bool, block_length> all_kept;
    std::fill(mean.begin(), mean.end(), 0.0);
    if (masked) {
        kept_sum.fill(0);
        kept_weight.fill(0);
        all_kept.fill(true);
    }
    for (std::size_t k = 0; k < slices.count(); ++k) {
        const double w = weights[k];
        slices.load(k, first, std::span(value).first(n));
        for (std::size_t i = 0; i < n; ++i) mean[i] += w * value[i];
        if (!masked) continue;
        const std::uint8_t* mask = slices.mask(k, first);
        for (std::size_t i = 0; i < n; ++i) {
            const bool kept = mask == nullptr || mask[i] != 0;
            kept_sum[i] += kept ? w * value[i] : 0.0;
            kept_weight[i] += kept ? w : 0.0;
            all_kept[i] = all_kept[i] && kept;
        }
    }
    for (std::size_t i = 0; i < n; ++i) {
        if (!std::isfinite(mean[i])) refuse_coordinate(context, slices, first + static_cast<std::int64_t>(i));
    }
    if (!masked) return;
    for (std::size_t i = 0; i < n; ++i) {
        if (!all_kept[i] && kept_weight[i] > 0) mean[i] = kept_sum[i] / kept_weight[i];
    }
}

}  // namespace

model::Parameters mean(const std::vector<Update>& updates, const FusionContext& context,
                       const std::vector<double>& weights) {
    if (weights.size() != context.members.size()) throw std::logic_error("mean: a weight for each member");
    return reduce_coordinates(updates, context,
                              [&](const UpdateSlices& slices, std::int64_t first, std::span<double> out) {
                                  mean_of_block(context, slices, weights, first, out);
                              });
}

namespace {

class Mean final : public Stage {
  public:
    explicit Mean(const core::Value& options)
        : weighting_(weighting_of(options["weights"].as_text())),
          keeps_statistics_(options["batch_norm"].as_text() == "keep") {}

    StageTraits traits() const override {
        // Statistics of the global model's channels beside the updates' weights: both must be in one frame.
        return {.kind = StageKind::reduction,
                .uses_mask = true,
                .needs_global_frame = keeps_statistics_,
                .linear = true};
    }

    StageNotes apply(FusionState& state, const FusionContext& context) const override {
        const auto w =
            core::collectively(context.communicator, [&] { return weights(context.members, weighting_); });
        state.merged = mean(state.updates, context, w);
        state.weights = w;
        if (keeps_statistics_ && context.global != nullptr) keep_statistics(state.merged, *context.global);
        return {};
    }

  private:
    static void keep_statistics(model::Parameters& merged, const model::Parameters& global) {
        const auto from = merged.layout->trainable_size();
        merged.values.slice(0, from).copy_(global.values.slice(0, from));
        merged.counters.copy_(global.counters);
    }

    Weighting weighting_;
    bool keeps_statistics_;
};

const StageRegistration mean_registration{
    {.kind = "stage",
     .name = "mean",
     .help = "weighted mean of the clients' models, renormalised entry by entry over the masks",
     .citation = "McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized Data, "
                 "AISTATS 2017 (FedAvg)",
     .options = {core::choice("weights", {"samples", "uniform"},
                              "what a client counts: its samples, or all alike")
                     .by_default("samples"),
                 core::choice("batch_norm", {"mean", "keep"},
                              "running statistics of batch norms: averaged like the rest, or kept from the "
                              "previous global model (averaged in a round that has none)")
                     .by_default("mean")},
     .cost = "O(K · d ÷ ranks) after one exchange"},
    [](const core::Value& options) { return std::make_unique<Mean>(options); }};

}  // namespace

}  // namespace thalweg::aggregator
