#include <string>

#include "attention.hpp"
#include "choices.hpp"
#include "thalweg/core/registry.hpp"

namespace thalweg::model::lstm {

namespace {

/// Predicts the symbol after a window of symbols: embedding, LSTM layers, a linear layer on the last position. The
/// sample is [window], whole numbers below the number of classes. The defaults are the network of McMahan et al. and
/// LEAF for Shakespeare.
///
/// Names are those of a Python module with
///
///     self.embedding = nn.Embedding(classes, embedding)
///     self.lstm = nn.LSTM(embedding, hidden, layers, batch_first=True, dropout=dropout)
///     self.output = nn.Linear(hidden, classes)
///
/// called as `self.output(self.lstm(self.embedding(x))[0][:, -1])`, and so are the initial values.
ModelGraph build(const core::Value& options, const std::vector<std::int64_t>& input_shape,
                 std::int64_t classes) {
    require_symbols(options, input_shape, "lstm");
    const auto window = input_shape.front();
    const auto hidden = options["hidden"].as_int(), layers = options["layers"].as_int();
    GraphBuilder builder(input_shape);
    int value = builder.embedding("embedding", GraphBuilder::input, classes, options["embedding"].as_int());
    for (std::int64_t layer = 0; layer < layers; ++layer) {
        value = builder.lstm("lstm", value, hidden, static_cast<int>(layer));
        if (layer + 1 < layers) value = append_dropout(builder, value, options["dropout"].as_number());
    }
    value = builder.flatten(builder.slice(value, 1, window - 1, window));
    builder.linear("output", value, classes);
    return std::move(builder).build(options);
}

const core::Registration<ModelGraph, const std::vector<std::int64_t>&, std::int64_t> lstm_registration{
    {.kind = "model",
     .name = "lstm",
     .help = "LSTM that predicts the symbol after a window, for data sets like `text`",
     .citation = "McMahan et al., AISTATS 2017 (1602.05629); Caldas et al. (LEAF, 1812.01097)",
     .options =
         {core::integer("embedding", "channels of a symbol").at_least(1).at_most(1000000).by_default(8),
          core::integer("hidden", "units of a layer").at_least(1).at_most(1000000).by_default(256),
          core::integer("layers", "LSTM layers").at_least(1).at_most(100).by_default(2),
          core::number("dropout", "between LSTM layers").at_least(0).below(1).by_default(0)}},
    build};

}  // namespace

}  // namespace thalweg::model::lstm
