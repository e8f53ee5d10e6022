#include <torch/types.h>

#include <algorithm>
#include <limits>

#include "thalweg/core/interrupt.hpp"
#include "thalweg/model/interpreter.hpp"
#include "thalweg/symmetry/symmetry.hpp"

namespace thalweg::symmetry {

namespace {

/// The symbols a model that reads its input by embeddings knows; 0: it reads numbers.
std::int64_t symbols_of(const model::ModelGraph& graph) {
    std::int64_t symbols = 0;
    for (const auto& operation : graph.operations) {
        const auto* embedding = std::get_if<model::Embedding>(&operation.kind);
        if (embedding == nullptr || operation.inputs.front() != 0) continue;
        const auto rows = graph.layout->entries()[static_cast<std::size_t>(embedding->weight)].shape.front();
        symbols = symbols == 0 ? rows : std::min(symbols, rows);
    }
    return symbols;
}

Permutations only(const Symmetries& symmetries, const Permutations& permutations, std::size_t group) {
    Permutations result = identity(symmetries);
    const int bond = symmetries.groups[group].bond;
    for (std::size_t g = 0; g < result.size(); ++g) {
        if (g == group || (bond >= 0 && symmetries.groups[g].bond == bond)) result[g] = permutations[g];
    }
    return result;
}

}  // namespace

model::Parameters random_parameters(const model::ModelGraph& graph, core::Random& random) {
    model::Parameters parameters = model::initialise(graph, random).to_double();
    const auto& entries = graph.layout->entries();
    for (std::size_t i = 0; i < entries.size(); ++i) {
        const auto role = entries[i].role;
        const bool is_weight = role == model::Role::weight || role == model::Role::embedding;
        auto* data = parameters.values.data_ptr<double>() + entries[i].offset;
        // A weight that starts at a constant, such as a residual branch's last at zero, hides what is before it.
        const bool is_constant =
            std::all_of(data, data + entries[i].size, [&](double x) { return x == *data; });
        if (is_weight && !is_constant) continue;
        const bool positive = role == model::Role::norm_scale || role == model::Role::running_var;
        std::generate(data, data + entries[i].size,
                      [&] { return positive ? random.uniform(0.5, 1.5) : random.uniform(-0.3, 0.3); });
    }
    return parameters;
}

at::Tensor random_inputs(const model::ModelGraph& graph, std::int64_t count, core::Random& random) {
    std::vector<std::int64_t> shape = graph.input_shape();
    shape.insert(shape.begin(), count);
    at::Tensor inputs = at::empty(shape, at::kDouble);
    auto* data = inputs.data_ptr<double>();
    const std::int64_t symbols = symbols_of(graph);
    std::generate(data, data + inputs.numel(),
                  [&] { return symbols > 0 ? static_cast<double>(random.below(symbols)) : random.normal(); });
    return inputs;
}

Proof verify(const model::ModelGraph& graph, const Symmetries& symmetries, core::Random& random, int draws) {
    const at::NoGradGuard no_grad;
    Proof proof;
    for (; proof.draws < draws; ++proof.draws) {
        const model::Parameters parameters = random_parameters(graph, random);
        const at::Tensor inputs = random_inputs(graph, 3, random);
        const auto output = [&](const model::Parameters& of) {
            return model::forward(graph, model::views(of), inputs, model::Mode::evaluate);
        };
        const at::Tensor expected = output(parameters);
        const double scale = std::max(1.0, expected.abs().max().item<double>());
        const auto compare = [&](const Permutations& permutations) {
            core::check_interrupt();
            const model::Parameters moved = permute(parameters, symmetries, permutations);
            const double error = (output(moved) - expected).abs().max().item<double>() / scale;
            // NaN must not pass for small.
            proof.max_error =
                error >= 0 ? std::max(proof.max_error, error) : std::numeric_limits<double>::infinity();
            return (moved.values != parameters.values).sum().item<std::int64_t>();
        };
        const Permutations all = random_permutations(symmetries, random);
        const std::int64_t elements = compare(all);
        proof.elements = proof.draws == 0 ? elements : std::min(proof.elements, elements);
        for (std::size_t g = 0; g < symmetries.groups.size(); ++g) compare(only(symmetries, all, g));
    }
    return proof;
}

}  // namespace thalweg::symmetry
