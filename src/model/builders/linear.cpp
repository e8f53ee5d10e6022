#include "thalweg/core/registry.hpp"
#include "thalweg/model/graph.hpp"

namespace thalweg::model::linear {

namespace {

/// Multinomial logistic regression: one linear layer from the (flattened) input to the classes. Names:
/// `fc.weight` and `fc.bias`, as of a Python module with `self.fc = nn.Linear(…)`.
ModelGraph build(const core::Value& options, const std::vector<std::int64_t>& input_shape,
                 std::int64_t classes) {
    GraphBuilder builder(input_shape);
    int value = GraphBuilder::input;
    if (input_shape.size() > 1) value = builder.flatten(value);
    builder.linear("fc", value, classes);
    return std::move(builder).build(options);
}

const core::Registration<ModelGraph, const std::vector<std::int64_t>&, std::int64_t> linear_registration{
    {.kind = "model",
     .name = "linear",
     .help = "multinomial logistic regression: one linear layer; images are flattened",
     .citation = "",
     .options = {}},
    build};

}  // namespace

}  // namespace thalweg::model::linear
