#include "thalweg/model/graph.hpp"

#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "shape_error.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/registry.hpp"
#include "thalweg/core/text.hpp"

namespace thalweg::model {

namespace {

using Factories = core::Registry<ModelGraph, const std::vector<std::int64_t>&, std::int64_t>;

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
    bool valid = !input_shape.empty() && input_shape.size() <= 3;
    for (const auto extent : input_shape) valid = valid && extent >= 1;
    if (!valid) {
        options.reject(
            "a model's input is [features], [channels, positions] or [channels, height, width], all at "
            "least 1, not " +
            core::shape_text(input_shape));
    }
    if (classes < 1) {
        options.reject("a model needs at least 1 class, not " + std::to_string(classes));
    }
}

}  // namespace

std::vector<std::size_t> ModelGraph::affine_operations() const {
    std::vector<std::size_t> found;
    for (std::size_t i = 0; i < operations.size(); ++i) {
        const auto& kind = operations[i].kind;
        if (std::holds_alternative<Linear>(kind) || std::holds_alternative<Convolution>(kind))
            found.push_back(i);
    }
    return found;
}

std::int64_t ModelGraph::channel_axis(std::size_t operation) const {
    const auto& kind = operations[operation].kind;
    const auto* norm = std::get_if<LayerNorm>(&kind);
    const bool last = std::holds_alternative<Linear>(kind) || std::holds_alternative<Embedding>(kind) ||
                      std::holds_alternative<Attention>(kind) || std::holds_alternative<Lstm>(kind) ||
                      (norm != nullptr && !norm->channels_first);
    return last ? static_cast<std::int64_t>(
                      shapes[static_cast<std::size_t>(operations[operation].output)].size())
                : 1;
}

std::int64_t ModelGraph::channels(std::size_t operation) const {
    const auto& shape = shapes[static_cast<std::size_t>(operations[operation].output)];
    return shape.at(static_cast<std::size_t>(channel_axis(operation) - 1));
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

std::vector<StateItem> ModelGraph::state_items() const {
    if (!state.empty()) return state;
    std::vector<StateItem> items;
    const auto& counters = layout->counters();
    for (const auto& name : layout->state_dict_order()) {
        if (const auto entry = layout->find(name)) {
            items.push_back({name, StateItem::Kind::entry, *entry});
        } else {
            const auto counter = std::find(counters.begin(), counters.end(), name) - counters.begin();
            items.push_back({name, StateItem::Kind::counter, static_cast<std::size_t>(counter)});
        }
    }
    return items;
}

at::Tensor state_tensor(const ModelGraph& graph, const Parameters& parameters, const StateItem& item) {
    switch (item.kind) {
        case StateItem::Kind::entry:
            return parameters.view(item.index);
        case StateItem::Kind::counter:
            return parameters.counters.select(0, static_cast<std::int64_t>(item.index));
        case StateItem::Kind::fixed:
            return graph.fixed.at(item.index);
    }
    throw std::logic_error("state_tensor: no such kind");
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
    if (affine.size() > 8) {
        text += ", " + std::to_string(affine.size()) + " layers";
    } else
        for (const auto index : affine) {
            text += '-';
            text += std::to_string(channels(index));
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
    if (graph.start) return graph.start->clone();
    Parameters parameters(graph.layout);
    const auto& entries = graph.layout->entries();
    for (std::size_t i = 0; i < entries.size(); ++i) {
        float* const begin = parameters.data() + entries[i].offset;
        float* const end = begin + entries[i].size;
        const double amount = graph.initial[i].amount;
        switch (graph.initial[i].kind) {
            case Initial::Kind::constant:
                std::fill(begin, end, static_cast<float>(amount));
                break;
            case Initial::Kind::uniform:
                std::generate(begin, end,
                              [&] { return static_cast<float>(random.uniform(-amount, amount)); });
                break;
            case Initial::Kind::normal:
                std::generate(begin, end, [&] { return static_cast<float>(amount * random.normal()); });
                break;
        }
    }
    return parameters;
}

}  // namespace thalweg::model
