#include "coordinatewise.hpp"

#include <torch/types.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <string>

#include "thalweg/core/error.hpp"

namespace thalweg::aggregator {

namespace {

template <class T>
core::Bytes computed_slice(const FusionContext& context, const UpdateSlices& slices,
                           const CoordinateRule& rule) {
    core::Bytes result(static_cast<std::size_t>(slices.end() - slices.begin()) * sizeof(T));
    std::byte* out = result.data();
    std::array<double, block_length> block;
    for_each_block(slices.begin(), slices.end(), context.graph.layout->trainable_size(),
                   [&](std::int64_t first, std::int64_t length) {
                       const auto values = std::span(block).first(static_cast<std::size_t>(length));
                       rule(slices, first, values);
                       for (const double value : values) {
                           const T rounded = static_cast<T>(value);
                           std::memcpy(out, &rounded, sizeof(T));
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

model::Parameters reduce_coordinates(const std::vector<Update>& updates, const FusionContext& context,
                                     const CoordinateRule& rule) {
    const UpdateSlices slices(updates, context, context.graph.layout->size());
    const auto slice = core::collectively(context.communicator, [&] {
        return slices.is_double() ? computed_slice<double>(context, slices, rule)
                                  : computed_slice<float>(context, slices, rule);
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

void refuse_coordinate(const FusionContext& context, const UpdateSlices& slices, std::int64_t element) {
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
                                 "), so it cannot be fused with others");
        }
    }
    throw core::RunError(
        "the merged model is not finite though every one of the clients' is: values are too large");
}

}  // namespace thalweg::aggregator
