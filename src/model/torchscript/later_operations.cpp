// Operations that PyTorch got after LibTorch 1.13, so that the older library can load what a newer Python saved.
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>
#include <torch/types.h>

#include <cmath>
#include <limits>

#include "load.hpp"

namespace thalweg::model::torchscript {

namespace {

/// softmax(Q Kᵀ · scale + mask) V, as torch.nn.functional.scaled_dot_product_attention documents it (PyTorch 2.0).
at::Tensor scaled_dot_product_attention(const at::Tensor& queries, const at::Tensor& keys,
                                        const at::Tensor& values, const c10::optional<at::Tensor>& mask,
                                        double dropout, bool causal, c10::optional<double> scale,
                                        bool grouped_queries) {
    TORCH_CHECK(!grouped_queries, "grouped queries (enable_gqa) are not supported");
    constexpr double never = -std::numeric_limits<double>::infinity();
    const double factor = scale ? *scale : 1.0 / std::sqrt(static_cast<double>(queries.size(-1)));
    auto scores = at::matmul(queries, keys.transpose(-2, -1)) * factor;
    if (causal) {
        const auto seen = at::ones({queries.size(-2), keys.size(-2)}, at::kBool).tril();
        scores = scores.masked_fill(seen.logical_not(), never);
    }
    if (mask) {
        scores = mask->scalar_type() == at::kBool ? scores.masked_fill(mask->logical_not(), never)
                                                  : scores + *mask;
    }
    auto weights = at::softmax(scores, -1);
    if (dropout > 0) weights = at::dropout(weights, dropout, true);
    return at::matmul(weights, values);
}

}  // namespace

void add_later_operations() {
    static const bool once = [] {
        if (c10::Dispatcher::singleton().findSchema({"aten::scaled_dot_product_attention", ""})) return true;
        static torch::Library library(torch::Library::FRAGMENT, "aten", c10::nullopt, __FILE__, __LINE__);
        library.def(
            "scaled_dot_product_attention(Tensor query, Tensor key, Tensor value, Tensor? attn_mask=None, "
            "float dropout_p=0.0, bool is_causal=False, *, float? scale=None, bool enable_gqa=False) -> "
            "Tensor",
            scaled_dot_product_attention);
        return true;
    }();
    static_cast<void>(once);
}

}  // namespace thalweg::model::torchscript
