#include <torch/types.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include "thalweg/aggregator/exchange.hpp"
#include "thalweg/aggregator/stage.hpp"
#include "thalweg/core/error.hpp"

namespace thalweg::aggregator {

namespace {

using Block = std::array<double, block_length>;

[[noreturn]] void refuse(const FusionContext& context, const UpdateSlices& slices, std::int64_t element) {
    const auto& entries = context.graph.layout->entries();
    for (std::size_t k = 0; k < slices.count(); ++k) {
        double value = 0;
        slices.load(k, element, {&value, 1});
        if (std::isfinite(value)) continue;
        for (const auto& entry : entries) {
            if (element < entry.offset || element >= entry.offset + entry.size) continue;
            throw core::RunError("client " + std::to_string(context.members[k].client) + "'s model holds " +
                                 (std::isnan(value) ? "NaN" : "an infinity") + " in " + entry.name +
                                 " (element " + std::to_string(element - entry.offset) +
                                 "), so it cannot be averaged with others");
        }
    }
    throw core::RunError(
        "the mean of the models is not finite though every one of them is: values are too large");
}

/// Means of `length` elements from `first` on, in `mean`. Every sum runs over the clients in their order.
void mean_of_block(const FusionContext& context, const UpdateSlices& slices,
                   const std::vector<double>& weights, std::int64_t first, std::int64_t length, Block& mean) {
    const auto n = static_cast<std::size_t>(length);
    const bool masked = slices.has_masks() && first < context.graph.layout->trainable_size();
    Block value, kept_sum, kept_weight;
    std::array<bool, block_length> all_kept;
    mean.fill(0);
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
        if (!std::isfinite(mean[i])) refuse(context, slices, first + static_cast<std::int64_t>(i));
    }
    if (!masked) return;
    for (std::size_t i = 0; i < n; ++i) {
        if (!all_kept[i] && kept_weight[i] > 0) mean[i] = kept_sum[i] / kept_weight[i];
    }
}

template <class T>
core::Bytes mean_of_slice(const FusionContext& context, const UpdateSlices& slices,
                          const std::vector<double>& weights) {
    core::Bytes result(static_cast<std::size_t>(slices.end() - slices.begin()) * sizeof(T));
    std::byte* out = result.data();
    Block mean;
    for_each_block(slices.begin(), slices.end(), context.graph.layout->trainable_size(),
                   [&](std::int64_t first, std::int64_t length) {
                       mean_of_block(context, slices, weights, first, length, mean);
                       for (std::int64_t i = 0; i < length; ++i) {
                           const T value = static_cast<T>(mean[static_cast<std::size_t>(i)]);
                           std::memcpy(out, &value, sizeof(T));
                           out += sizeof(T);
                       }
                   });
    return result;
}

/// Elementwise maximum over all updates of the round.
at::Tensor largest_counters(const std::vector<Update>& updates, const FusionContext& context) {
    std::vector<std::int64_t> largest(context.graph.layout->counters().size(), 0);
    const auto take = [&](const std::int64_t* values) {
        for (std::size_t i = 0; i < largest.size(); ++i) largest[i] = std::max(largest[i], values[i]);
    };
    if (!largest.empty()) {
        for (const Update& update : updates) take(update.parameters.counters.data_ptr<std::int64_t>());
        for (const auto& bytes : context.communicator.all_gather(core::as_bytes(largest))) {
            take(core::from_bytes<std::int64_t>(bytes).data());
        }
    }
    return at::tensor(largest, at::kLong);
}

}  // namespace

model::Parameters mean(const std::vector<Update>& updates, const FusionContext& context,
                       const std::vector<double>& weights) {
    if (weights.size() != context.members.size()) throw std::logic_error("mean: a weight for each member");
    const UpdateSlices slices(updates, context, context.graph.layout->size());
    const auto slice = core::collectively(context.communicator, [&] {
        return slices.is_double() ? mean_of_slice<double>(context, slices, weights)
                                  : mean_of_slice<float>(context, slices, weights);
    });
    const auto all = context.communicator.all_gather(slice);
    model::Parameters merged = core::collectively(
        context.communicator, [&] { return model::Parameters(context.graph.layout, slices.is_double()); });
    auto* out = static_cast<std::byte*>(merged.values.data_ptr());
    for (const auto& part : all) {
        if (part.empty()) continue;
        std::memcpy(out, part.data(), part.size());
        out += part.size();
    }
    merged.counters = largest_counters(updates, context);
    return merged;
}

namespace {

class Mean final : public Stage {
  public:
    explicit Mean(const core::Value& options)
        : weighting_(weighting_of(options["weights"].as_text())),
          keeps_statistics_(options["batch_norm"].as_text() == "keep") {}

    StageTraits traits() const override { return {.kind = StageKind::reduction, .uses_mask = true}; }

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

const StageRegistration registration{
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
                     .by_default("mean")}},
    [](const core::Value& options) { return std::make_unique<Mean>(options); }};

}  // namespace

}  // namespace thalweg::aggregator
