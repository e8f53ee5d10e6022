#include "thalweg/model/graph.hpp"

#include <torch/types.h>

#include <cmath>
#include <stdexcept>

#include "shape_error.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/registry.hpp"
#include "thalweg/core/text.hpp"

namespace thalweg::model {

namespace {

using Factories = core::Registry<ModelGraph, const std::vector<std::int64_t>&, std::int64_t>;

struct KindName {
    std::string operator()(const Linear&) const { return "linear"; }
    std::string operator()(const Conv2d&) const { return "conv2d"; }
    std::string operator()(const BatchNorm&) const { return "batch_norm"; }
    std::string operator()(const LayerNorm&) const { return "layer_norm"; }
    std::string operator()(const MaxPool2d&) const { return "max_pool2d"; }
    std::string operator()(const AvgPool2d&) const { return "avg_pool2d"; }
    std::string operator()(const Flatten&) const { return "flatten"; }
    std::string operator()(const Activation& activation) const {
        switch (activation.kind) {
            case ActivationKind::relu:
                return "relu";
            case ActivationKind::tanh:
                return "tanh";
            case ActivationKind::gelu:
                return "gelu";
        }
        throw std::logic_error("kind_name: not an activation");
    }
};

std::string with_commas(std::int64_t number) {
    const std::string digits = std::to_string(number);
    std::string text;
    for (std::size_t i = 0; i < digits.size(); ++i) {
        if (i > 0 && (digits.size() - i) % 3 == 0) text += ',';
        text += digits[i];
    }
    return text;
}

void check_problem(const core::Value& options, const std::vector<std::int64_t>& input_shape,
                   std::int64_t classes) {
    bool valid = input_shape.size() == 1 || input_shape.size() == 3;
    for (const auto extent : input_shape) valid = valid && extent >= 1;
    if (!valid) {
        options.reject("a model's input is [features] or [channels, height, width], all at least 1, not " +
                       core::shape_text(input_shape));
    }
    if (classes < 1) {
        options.reject("a model needs at least 1 class, not " + std::to_string(classes));
    }
}

/// Bound of the uniform draw for each entry, 0 for those that start at a constant.
std::vector<double> draw_bounds(const ModelGraph& graph) {
    const auto& entries = graph.layout->entries();
    std::vector<double> bounds(entries.size(), 0.0);
    const auto put = [&](int weight, int bias) {
        const auto& entry = entries.at(static_cast<std::size_t>(weight));
        const auto fan_in = entry.size / entry.shape.front();
        const double bound = 1.0 / std::sqrt(static_cast<double>(fan_in));
        bounds[static_cast<std::size_t>(weight)] = bound;
        if (bias >= 0) bounds[static_cast<std::size_t>(bias)] = bound;
    };
    for (const auto& operation : graph.operations) {
        if (const auto* linear = std::get_if<Linear>(&operation.kind)) put(linear->weight, linear->bias);
        if (const auto* conv = std::get_if<Conv2d>(&operation.kind)) put(conv->weight, conv->bias);
    }
    return bounds;
}

}  // namespace

std::string kind_name(const OperationKind& kind) {
    return std::visit(KindName(), kind);
}

std::vector<std::size_t> ModelGraph::affine_operations() const {
    std::vector<std::size_t> found;
    for (std::size_t i = 0; i < operations.size(); ++i) {
        const auto& kind = operations[i].kind;
        if (std::holds_alternative<Linear>(kind) || std::holds_alternative<Conv2d>(kind)) found.push_back(i);
    }
    return found;
}

std::vector<std::size_t> ModelGraph::consumers(int value) const {
    std::vector<std::size_t> found;
    for (std::size_t i = 0; i < operations.size(); ++i) {
        for (const int input : operations[i].inputs) {
            if (input != value) continue;
            found.push_back(i);
            break;
        }
    }
    return found;
}

std::string ModelGraph::summary() const {
    const auto* kind = spec.is_map() ? spec.find("kind") : nullptr;
    std::string text = kind != nullptr && kind->is_scalar() ? kind->as_text() : "model";
    const auto affine = affine_operations();
    const bool starts_linear = !affine.empty() && std::holds_alternative<Linear>(operations[affine[0]].kind);
    text += ' ';
    std::int64_t features = 1;
    for (std::size_t axis = 0; axis < input_shape().size(); ++axis) {
        features *= input_shape()[axis];
        if (starts_linear) continue;
        if (axis > 0) text += 'x';
        text += std::to_string(input_shape()[axis]);
    }
    if (starts_linear) text += std::to_string(features);
    for (const auto index : affine) {
        const auto value = static_cast<std::size_t>(operations[index].output);
        text += '-';
        text += std::to_string(shapes[value].front());
    }
    text += " (";
    text += with_commas(layout->trainable_size());
    return text + " parameters)";
}

ModelGraph build_model(const core::Value& options, const std::vector<std::int64_t>& input_shape,
                       std::int64_t classes) {
    check_problem(options, input_shape, classes);
    try {
        ModelGraph graph = Factories::make(options, input_shape, classes);
        graph.spec = options;
        graph.spec.set("input", core::Value::of(input_shape));
        graph.spec.set("classes", core::Value::of(classes));
        return graph;
    } catch (const ShapeError& error) {
        options.reject(error.what());
    }
}

ModelGraph build_model_from_spec(const core::Value& spec) {
    if (!spec.is_map()) {
        spec.reject(
            "a model is described by a map such as {kind: mlp, hidden: [200], input: [784], classes: 10}");
    }
    core::Value options = core::Value::map();
    for (const auto& [key, value] : spec.fields()) {
        if (key != "input" && key != "classes") options.set(key, value);
    }
    for (const auto* key : {"input", "classes"}) {
        if (!spec.has(key)) {
            spec.reject(
                std::string("the key '") + key +
                "' is missing: a model file's description says the input's shape and how many classes "
                "there are, as in {kind: mlp, hidden: [200], input: [784], classes: 10}");
        }
    }
    const auto resolved = core::resolve_plugin("model", "kind", options, "model");
    return build_model(resolved, spec["input"].as_ints(), spec["classes"].as_int());
}

Parameters initialise(const ModelGraph& graph, core::Random& random) {
    Parameters parameters(graph.layout);
    const auto bounds = draw_bounds(graph);
    const auto& entries = graph.layout->entries();
    for (std::size_t i = 0; i < entries.size(); ++i) {
        float* data = parameters.data() + entries[i].offset;
        if (bounds[i] > 0.0) {
            for (std::int64_t j = 0; j < entries[i].size; ++j) {
                data[j] = static_cast<float>(random.uniform(-bounds[i], bounds[i]));
            }
        } else {
            const bool one = entries[i].role == Role::norm_scale || entries[i].role == Role::running_var;
            std::fill(data, data + entries[i].size, one ? 1.0F : 0.0F);
        }
    }
    return parameters;
}

}  // namespace thalweg::model
