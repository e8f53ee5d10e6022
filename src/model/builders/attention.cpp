#include "attention.hpp"

#include <cmath>

namespace thalweg::model {

Initial xavier(std::int64_t in, std::int64_t out) {
    return {Initial::Kind::uniform, std::sqrt(6.0 / static_cast<double>(in + out))};
}

int append_self_attention(GraphBuilder& builder, const std::string& name, int from, std::int64_t heads,
                          bool causal) {
    const auto width = builder.shape(from).back();
    Linear projection;
    projection.weight =
        builder.entry(name + ".in_proj_weight", {3 * width, width}, Role::weight, xavier(width, 3 * width));
    projection.bias = builder.entry(name + ".in_proj_bias", {3 * width}, Role::bias, {});
    const int all = builder.append(name + ".in_proj", projection, {from});
    const int queries = builder.slice(all, 2, 0, width);
    const int keys = builder.slice(all, 2, width, 2 * width);
    const int values = builder.slice(all, 2, 2 * width, 3 * width);
    const int mixed = builder.attention(queries, keys, values, heads, causal);
    const int out = builder.linear(name + ".out_proj", mixed, width);
    builder.start(name + ".out_proj.bias", {});
    return out;
}

int append_dropout(GraphBuilder& builder, int from, double p) {
    return p > 0 ? builder.dropout(from, p) : from;
}

std::vector<core::Option> transformer_options(int depth, int heads, int dim, int mlp_dim) {
    return {core::integer("depth", "blocks").at_least(1).at_most(1000).by_default(depth),
            core::integer("heads", "of attention; they divide dim").at_least(1).by_default(heads),
            core::integer("dim", "width of the residual stream").at_least(1).at_most(1000000).by_default(dim),
            core::integer("mlp_dim", "units of a block's hidden layer")
                .at_least(1)
                .at_most(1000000)
                .by_default(mlp_dim),
            core::number("dropout", "after the positions, each branch and each hidden layer")
                .at_least(0)
                .below(1)
                .by_default(0)};
}

void check_heads(const core::Value& options) {
    const auto heads = options["heads"].as_int(), dim = options["dim"].as_int();
    if (dim % heads != 0) {
        options["heads"].reject(std::to_string(heads) + " heads do not divide dim " + std::to_string(dim) +
                                "; each head has dim / heads channels");
    }
}

}  // namespace thalweg::model
