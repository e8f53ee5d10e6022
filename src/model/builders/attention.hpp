#pragma once

#include <string>
#include <vector>

#include "thalweg/core/schema.hpp"
#include "thalweg/model/graph.hpp"

namespace thalweg::model {

/// Appends self-attention of `heads` heads on [T, E] with the names of torch.nn.MultiheadAttention: `name.in_proj_weight`
/// [3E, E] and `name.in_proj_bias` (queries, keys, values), `name.out_proj`. Starts as that module does.
int append_self_attention(GraphBuilder& builder, const std::string& name, int from, std::int64_t heads,
                          bool causal);

/// The bound of Glorot and Bengio (AISTATS 2010): ±√(6 / (in + out)).
Initial xavier(std::int64_t in, std::int64_t out);

/// Appends dropout unless p is 0.
int append_dropout(GraphBuilder& builder, int from, double p);

/// The options of transformers, with these defaults. `heads` divides `dim`: checked by `check_heads`.
std::vector<core::Option> transformer_options(int depth, int heads, int dim, int mlp_dim);
void check_heads(const core::Value& options);

}  // namespace thalweg::model
