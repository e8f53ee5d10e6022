#include "thalweg/analysis/cka.hpp"

#include <torch/types.h>

#include <cmath>
#include <limits>
#include <span>
#include <utility>

#include "features.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/memory.hpp"
#include "thalweg/core/schema.hpp"

namespace thalweg::analysis {

namespace {

/// [samples, features]; `channel_axis`: where the channels of a value with positions are.
at::Tensor features_of(const at::Tensor& output, std::int64_t channel_axis, Spatial spatial) {
    if (output.dim() == 2) return output;
    if (spatial == Spatial::flatten) return output.flatten(1);
    return output.movedim(channel_axis, 1).flatten(2).mean(2);
}

void require_room(double numbers, const data::SampleSet& samples, const std::string& what) {
    core::require_memory(8 * numbers, what + " of " + std::to_string(samples.size()) +
                                          " samples (take fewer: --samples, or the measure's samples)");
}

/// XXᵀ of the column-centred features of one layer.
at::Tensor gram(const model::ModelGraph& graph, const model::Parameters& parameters,
                const data::SampleSet& samples, std::size_t operation, Spatial spatial) {
    at::Tensor all;
    std::int64_t row = 0;
    for_values(graph, parameters, samples, {graph.operations[operation].output},
               [&](std::size_t, const at::Tensor& output) {
                   const at::Tensor part = features_of(output, graph.channel_axis(operation), spatial);
                   if (!all.defined()) {
                       // Features, their squares, and then the products.
                       const auto rows = static_cast<double>(samples.size());
                       require_room(rows * (2 * static_cast<double>(part.size(1)) + rows), samples,
                                    "a layer's features");
                       all = at::empty({samples.size(), part.size(1)}, at::kDouble);
                   }
                   all.narrow(0, row, part.size(0)).copy_(part);
                   row += part.size(0);
               });
    const double size = at::sum(all * all).item<double>();
    all -= all.mean(0);
    // What is left of a constant layer is rounding.
    if (at::sum(all * all).item<double>() <= 1e-24 * size) all.zero_();
    return at::matmul(all, all.t());
}

std::vector<std::string> names(const model::ModelGraph& graph) {
    std::vector<std::string> names;
    for (const auto operation : graph.affine_operations()) names.push_back(graph.operations[operation].name);
    return names;
}

/// ⟨K, L⟩ of triangles in which what lies off the diagonal counts twice.
double product(std::span<const double> k, std::span<const double> l, std::int64_t n) {
    double off = 0, on = 0;
    std::size_t at = 0;
    for (std::int64_t i = 0; i < n; ++i) {
        for (std::int64_t j = 0; j < i; ++j, ++at) off += k[at] * l[at];
        on += k[at] * l[at];
        ++at;
    }
    return on + 2 * off;
}

}  // namespace

Spatial spatial_of(const std::string& text) {
    if (text == "flatten") return Spatial::flatten;
    if (text == "channels") return Spatial::channels;
    throw core::UsageError(core::unknown_name("spatial", text, {"flatten", "channels"}));
}

Cka cka(const model::ModelGraph& graph_a, const model::Parameters& a, const model::ModelGraph& graph_b,
        const model::Parameters& b, const data::SampleSet& samples, Spatial spatial,
        core::Communicator& communicator) {
    const at::NoGradGuard no_grad;
    require_samples(graph_a, samples, 2);
    require_samples(graph_b, samples, 2);
    const auto exact =
        core::collectively(communicator, [&] { return std::pair(a.to_double(), b.to_double()); });
    const auto layers_a = graph_a.affine_operations(), layers_b = graph_b.affine_operations();
    const std::int64_t n = samples.size(), triangle = n * (n + 1) / 2;
    const std::size_t first_of_b = layers_a.size();
    core::collectively(communicator, [&] {
        // gather_rows holds all triangles twice, and its own while they are sent and taken apart.
        const auto layers = static_cast<double>(layers_a.size() + layers_b.size());
        const double copies = 2 + 2 / static_cast<double>(communicator.size());
        require_room(copies * layers * static_cast<double>(n) * static_cast<double>(n + 1) / 2, samples,
                     "the layers' Gram matrices");
    });
    const auto grams = core::gather_rows(
        communicator, static_cast<std::int64_t>(layers_a.size() + layers_b.size()), triangle,
        [&](std::int64_t item, std::span<double> row) {
            const auto layer = static_cast<std::size_t>(item);
            const bool of_a = layer < first_of_b;
            const at::Tensor k =
                of_a ? gram(graph_a, exact.first, samples, layers_a[layer], spatial)
                     : gram(graph_b, exact.second, samples, layers_b[layer - first_of_b], spatial);
            const double* from = k.data_ptr<double>();
            std::size_t at = 0;
            for (std::int64_t i = 0; i < n; ++i) {
                for (std::int64_t j = 0; j <= i; ++j) row[at++] = from[i * n + j];
            }
        });
    const auto of_layer = [&](std::size_t layer) {
        return std::span(grams).subspan(layer * static_cast<std::size_t>(triangle),
                                        static_cast<std::size_t>(triangle));
    };
    std::vector<double> norms;
    for (std::size_t layer = 0; layer < layers_a.size() + layers_b.size(); ++layer) {
        norms.push_back(std::sqrt(product(of_layer(layer), of_layer(layer), n)));
    }
    Cka result{.layers_a = names(graph_a), .layers_b = names(graph_b), .matrix = {}, .diagonal = {}};
    for (std::size_t i = 0; i < layers_a.size(); ++i) {
        result.matrix.emplace_back();
        for (std::size_t j = 0; j < layers_b.size(); ++j) {
            const double scale = norms[i] * norms[first_of_b + j];
            const double inner = product(of_layer(i), of_layer(first_of_b + j), n);
            result.matrix.back().push_back(scale > 0 ? inner / scale
                                                     : std::numeric_limits<double>::quiet_NaN());
        }
    }
    if (layers_a.size() == layers_b.size()) {
        for (std::size_t i = 0; i < layers_a.size(); ++i) result.diagonal.push_back(result.matrix[i][i]);
    }
    return result;
}

}  // namespace thalweg::analysis
