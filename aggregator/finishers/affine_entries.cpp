#include <torch/types.h>

#include <algorithm>
#include <variant>

#include "repair_support.hpp"

namespace thalweg::aggregator {

namespace {

/// Counts the entries that an operation names.
struct CountEntries {
    std::vector<int>& uses;
    void entry(const char*, int index) {
        if (index >= 0) uses[static_cast<std::size_t>(index)] += 1;
    }
    void counter(const char*, int) {}
    template <class Value>
    void value(const char*, const Value&) {}
};

template <class Kind>
std::optional<AffineEntries> entries_as(const model::OperationKind& kind) {
    const auto* found = std::get_if<Kind>(&kind);
    if (found == nullptr) return {};
    return AffineEntries{found->weight, found->bias};
}

}  // namespace

AffineEntries affine_entries(const model::OperationKind& kind) {
    if (const auto found = entries_as<model::Linear>(kind)) return *found;
    if (const auto found = entries_as<model::Convolution>(kind)) return *found;
    if (const auto found = entries_as<model::BatchNorm>(kind)) return *found;
    if (const auto found = entries_as<model::LayerNorm>(kind)) return *found;
    if (const auto found = entries_as<model::GroupNorm>(kind)) return *found;
    return {};
}

std::vector<int> entry_uses(const model::ModelGraph& graph) {
    std::vector<int> uses(graph.layout->entries().size(), 0);
    CountEntries count{uses};
    for (const auto& operation : graph.operations) {
        std::visit([&](const auto& kind) { kind.fields(kind, count); }, operation.kind);
    }
    return uses;
}

at::Tensor channels_first(const at::Tensor& weight, const model::OperationKind& kind) {
    // Output channels are on axis 0; of a transposed convolution on axis 1, for each group of rows of axis 0.
    const auto* conv = std::get_if<model::Convolution>(&kind);
    if (conv == nullptr || !conv->transposed) return weight.unsqueeze(0);
    return weight.unflatten(0, {conv->groups, weight.size(0) / conv->groups}).transpose(1, 2);
}

void fold(model::Parameters& merged, const model::OperationKind& kind, const std::vector<double>& scale,
          const std::vector<double>& shift) {
    const auto [weight_entry, bias_entry] = affine_entries(kind);
    const at::Tensor weight = merged.view(static_cast<std::size_t>(weight_entry));
    const at::Tensor s = at::tensor(scale, at::kDouble);
    const at::Tensor channels = channels_first(weight, kind);
    std::vector<std::int64_t> rows(static_cast<std::size_t>(channels.dim()), 1);
    rows[0] = channels.size(0);
    rows[1] = channels.size(1);
    channels.copy_(channels.to(at::kDouble) * s.view(rows));
    if (bias_entry < 0) return;
    const at::Tensor bias = merged.view(static_cast<std::size_t>(bias_entry));
    bias.copy_(bias.to(at::kDouble) * s + at::tensor(shift, at::kDouble));
}

bool is_dead(double mean, double variance, double wanted_deviation) {
    return variance <= std::max(1e-6 * wanted_deviation * wanted_deviation, 1e-10 * mean * mean);
}

}  // namespace thalweg::aggregator
