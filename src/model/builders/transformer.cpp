#include <string>
#include <vector>

#include "attention.hpp"
#include "choices.hpp"
#include "thalweg/core/registry.hpp"

namespace thalweg::model::transformer {

namespace {

constexpr Initial start{Initial::Kind::normal, 0.02};

int append_block(GraphBuilder& builder, const std::string& name, int stream, const core::Value& options) {
    const auto dim = options["dim"].as_int(), hidden = options["mlp_dim"].as_int();
    const double dropout = options["dropout"].as_number();
    int value = builder.layer_norm(name + ".norm1", stream);
    value = append_self_attention(builder, name + ".self_attn", value, options["heads"].as_int(), true);
    stream = builder.add(stream, append_dropout(builder, value, dropout));

    value = builder.linear(name + ".linear1", builder.layer_norm(name + ".norm2", stream), hidden);
    value = append_dropout(builder, builder.activation(value, ActivationKind::gelu), dropout);
    value = append_dropout(builder, builder.linear(name + ".linear2", value, dim), dropout);
    return builder.add(stream, value);
}

/// Predicts the symbol after a window of symbols: embedding, positional parameters, causal pre-norm blocks, a norm, and
/// a linear layer on the last position. The sample is [window], whole numbers below the number of classes.
///
/// Names are those of this Python module (E = dim, V = classes, T = window):
///
///     self.positions = nn.Parameter(torch.empty(T, E))
///     self.embedding = nn.Embedding(V, E)
///     layer = nn.TransformerEncoderLayer(E, heads, mlp_dim, dropout, "gelu", batch_first=True, norm_first=True)
///     self.encoder = nn.TransformerEncoder(layer, depth, norm=nn.LayerNorm(E))
///     self.output = nn.Linear(E, V)
///
/// called as `self.output(self.encoder(self.embedding(x) + self.positions, mask)[:, -1])` with a causal mask; attention
/// weights themselves have no dropout. `tied`: there is no `output`, the logits are
/// `F.linear(h, self.embedding.weight)`. Embedding and positions start normal with deviation 0.02 (GPT-2), the rest as
/// PyTorch's modules do.
ModelGraph build(const core::Value& options, const std::vector<std::int64_t>& input_shape,
                 std::int64_t classes) {
    require_symbols(options, input_shape, "transformer");
    check_heads(options);
    const auto dim = options["dim"].as_int();
    const auto window = input_shape.front();
    GraphBuilder builder(input_shape);
    const int positions = builder.parameter("positions", {window, dim}, {window, dim}, start);
    const int weight = builder.entry("embedding.weight", {classes, dim}, Role::embedding, start);
    int value = builder.append("embedding", Embedding{weight}, {GraphBuilder::input});
    value = append_dropout(builder, builder.add(value, positions), options["dropout"].as_number());
    for (std::int64_t block = 0; block < options["depth"].as_int(); ++block)
        value = append_block(builder, "encoder.layers." + std::to_string(block), value, options);
    // The norm is of each position by itself: only the last one's is needed.
    value = builder.flatten(builder.slice(value, 1, window - 1, window));
    value = builder.layer_norm("encoder.norm", value);
    if (options["tied"].as_bool()) {
        builder.append("output", Linear{weight, -1}, {value});
    } else {
        builder.linear("output", value, classes);
    }
    return std::move(builder).build(options);
}

std::vector<core::Option> options_with_tied() {
    auto options = transformer_options(2, 4, 64, 256);
    options.push_back(
        core::boolean("tied", "the logits are products with the embedding's own rows").by_default(false));
    return options;
}

const core::Registration<ModelGraph, const std::vector<std::int64_t>&, std::int64_t> transformer_registration{
    {.kind = "model",
     .name = "transformer",
     .help = "causal transformer that predicts the symbol after a window, for data sets like `text`",
     .citation = "Vaswani et al., NeurIPS 2017 (1706.03762); pre-norm: Xiong et al., ICML 2020 (2002.04745)",
     .options = core::Schema(options_with_tied())},
    build};

}  // namespace

}  // namespace thalweg::model::transformer
