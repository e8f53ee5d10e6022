#pragma once

#include <torch/types.h>

#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "thalweg/core/random.hpp"
#include "thalweg/model/graph.hpp"

namespace thalweg::testing {

/// One linear layer: softmax regression.
inline model::ModelGraph linear_model(std::int64_t features, std::int64_t classes) {
    model::GraphBuilder builder({features});
    builder.linear("layers.0", model::GraphBuilder::input, classes);
    return std::move(builder).build(core::Value::map());
}

/// ReLU layers of these widths, each with a batch norm if wanted, and a classifier.
inline model::ModelGraph mlp(std::int64_t features, const std::vector<std::int64_t>& hidden,
                             std::int64_t classes, bool batch_norm = false) {
    model::GraphBuilder builder({features});
    int value = model::GraphBuilder::input;
    for (std::size_t i = 0; i < hidden.size(); ++i) {
        value = builder.linear("layers." + std::to_string(i), value, hidden[i]);
        if (batch_norm) value = builder.batch_norm("norms." + std::to_string(i), value);
        value = builder.activation(value, model::ActivationKind::relu);
    }
    builder.linear("head", value, classes);
    return std::move(builder).build(core::Value::map());
}

/// Every entry standard normal times `scale`; running variances positive.
inline model::Parameters random_parameters(const model::ModelGraph& graph, std::uint64_t seed,
                                           double scale = 1) {
    model::Parameters parameters(graph.layout);
    core::Random random(seed, "analysis tests");
    float* values = parameters.data();
    for (const auto& entry : graph.layout->entries()) {
        for (std::int64_t i = 0; i < entry.size; ++i) {
            const double value = scale * random.normal();
            values[entry.offset + i] =
                static_cast<float>(entry.role == model::Role::running_var ? 0.5 + std::abs(value) : value);
        }
    }
    return parameters;
}

inline void set(const model::Parameters& parameters, const std::string& name,
                const std::vector<float>& values) {
    parameters.view(name).copy_(at::tensor(values).view(parameters.view(name).sizes()));
}

}  // namespace thalweg::testing
