#include <string>

#include "choices.hpp"
#include "thalweg/core/registry.hpp"

namespace thalweg::model::mlp {

namespace {

/// A multi-layer perceptron. Images are flattened first.
///
/// Names: those of a Python `self.layers = nn.Sequential(nn.Linear(…), [nn.BatchNorm1d(…) | nn.LayerNorm(…),]
/// nn.ReLU(), …, nn.Linear(…))` that is called with `self.layers(x.flatten(1))`. So every linear, norm and
/// activation takes a number (linears are `layers.0`, `layers.2`, … without a norm, `layers.0`, `layers.3`, …
/// with one, whose own are `layers.1`, `layers.4`, …), and flattening takes none: the names do not depend on
/// the input's shape.
ModelGraph build(const core::Value& options, const std::vector<std::int64_t>& input_shape,
                 std::int64_t classes) {
    GraphBuilder builder(input_shape);
    const auto activation = activation_kind(options["activation"]);
    const auto norm = options["norm"].as_text();
    int number = 0;
    const auto next_name = [&number] { return "layers." + std::to_string(number++); };

    int value = GraphBuilder::input;
    if (input_shape.size() > 1) value = builder.flatten(value);
    for (const auto& width : options["hidden"].items()) {
        if (width.as_int() < 1) width.reject("a hidden layer has at least 1 unit, not " + width.as_text());
        value = builder.linear(next_name(), value, width.as_int());
        if (norm != "none") value = append_norm(builder, norm, next_name(), value);
        value = builder.activation(value, activation);
        ++number;
    }
    builder.linear(next_name(), value, classes);
    return std::move(builder).build(options);
}

const core::Registration<ModelGraph, const std::vector<std::int64_t>&, std::int64_t> mlp_registration{
    {.kind = "model",
     .name = "mlp",
     .help = "multi-layer perceptron; images are flattened",
     .citation = "",
     .options = {core::integers("hidden", "units of each hidden layer")
                     .at_least(1)
                     .at_least_items(1)
                     .by_default("[200, 200]"),
                 activation_option(), norm_option()}},
    build};

}  // namespace

}  // namespace thalweg::model::mlp
