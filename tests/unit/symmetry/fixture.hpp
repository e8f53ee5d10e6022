#pragma once

#include <torch/types.h>

#include <string>
#include <utility>
#include <vector>

#include "thalweg/core/random.hpp"
#include "thalweg/model/graph.hpp"
#include "thalweg/model/interpreter.hpp"
#include "thalweg/symmetry/symmetry.hpp"

namespace thalweg::symmetry::test {

enum class Norm { none, batch, layer };

inline int normed(model::GraphBuilder& builder, const std::string& name, int value, Norm norm) {
    if (norm == Norm::batch) return builder.batch_norm(name, value);
    if (norm == Norm::layer) return builder.layer_norm(name, value);
    return value;
}

inline core::Value spec() {
    return core::Value::map({{"kind", core::Value::of("test")}});
}

/// 6-9-7-3
inline model::ModelGraph mlp(Norm norm, model::ActivationKind activation = model::ActivationKind::relu) {
    model::GraphBuilder builder({6});
    int value =
        builder.activation(normed(builder, "norms.0", builder.linear("layers.0", 0, 9), norm), activation);
    value = builder.activation(normed(builder, "norms.1", builder.linear("layers.1", value, 7), norm),
                               activation);
    builder.linear("layers.2", value, 3);
    return std::move(builder).build(spec());
}

/// conv 2→5, norm, activation, pool, conv 5→4, norm, activation, pool, flatten (4·2·2), linear 16→6, linear 6→3; on
/// 2×10×10 images.
inline model::ModelGraph cnn(Norm norm, model::ActivationKind activation = model::ActivationKind::relu,
                             bool average = false) {
    model::GraphBuilder builder({2, 10, 10});
    const auto pool = [&](int value) {
        return average ? builder.avg_pool2d(value, {2, 2}, {2, 2})
                       : builder.max_pool2d(value, {2, 2}, {2, 2});
    };
    int value = builder.conv2d("conv1", 0, 5, {3, 3}, {1, 1}, {1, 1});
    value = pool(builder.activation(normed(builder, "norm1", value, norm), activation));
    value = builder.conv2d("conv2", value, 4, {2, 2}, {1, 1}, {0, 0}, false);
    value = pool(builder.activation(normed(builder, "norm2", value, norm), activation));
    value = builder.activation(builder.linear("fc1", builder.flatten(value), 6), activation);
    builder.linear("fc2", value, 3);
    return std::move(builder).build(spec());
}

/// In double; nothing sits at a special value.
inline model::Parameters random_parameters(const model::ModelGraph& graph, std::uint64_t seed) {
    core::Random random(seed, "symmetry test");
    model::Parameters parameters(graph.layout, true);
    for (const auto& entry : graph.layout->entries()) {
        const bool positive = entry.role == model::Role::running_var;
        for (std::int64_t i = 0; i < entry.size; ++i) {
            parameters.values.data_ptr<double>()[entry.offset + i] =
                positive ? random.uniform(0.5, 1.5) : random.normal(0.0, 0.7);
        }
    }
    return parameters;
}

inline at::Tensor random_batch(const model::ModelGraph& graph, std::int64_t count, std::uint64_t seed) {
    core::Random random(seed, "symmetry test input");
    auto shape = graph.input_shape();
    shape.insert(shape.begin(), count);
    at::Tensor batch = at::empty(shape, at::kDouble);
    for (std::int64_t i = 0; i < batch.numel(); ++i) batch.data_ptr<double>()[i] = random.normal();
    return batch;
}

inline at::Tensor outputs(const model::ModelGraph& graph, const model::Parameters& parameters,
                          const at::Tensor& x) {
    return model::forward(graph, model::views(parameters), x, model::Mode::evaluate);
}

inline double largest_difference(const at::Tensor& a, const at::Tensor& b) {
    return (a - b).abs().max().item<double>();
}

}  // namespace thalweg::symmetry::test
