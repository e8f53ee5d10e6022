#include "thalweg/analysis/support.hpp"

#include <torch/types.h>

#include <algorithm>
#include <limits>
#include <span>

#include "features.hpp"

namespace thalweg::analysis {

namespace {

double dimension(double trace, double squares) {
    return squares > 0 ? trace * trace / squares : std::numeric_limits<double>::quiet_NaN();
}

/// Σλ and Σλ² of XᵀX, from the smaller of XᵀX and XXᵀ.
std::pair<double, double> spectrum(const at::Tensor& x) {
    const bool wide = x.size(1) > x.size(0);
    const at::Tensor product = wide ? at::matmul(x, x.t()) : at::matmul(x.t(), x);
    return {product.trace().item<double>(), (product * product).sum().item<double>()};
}

/// The covariance's spectrum of rows that come in pieces: kept whole while they are fewer than the columns.
class Covariance {
  public:
    Covariance(std::int64_t rows, std::int64_t columns) : rows_(rows) {
        wide_ = rows < columns;
        sum_ = at::zeros({columns}, at::kDouble);
        kept_ = wide_ ? at::empty({rows, columns}, at::kDouble) : at::zeros({columns, columns}, at::kDouble);
    }

    void add(const at::Tensor& piece) {
        // About the first piece's mean: the products lose less to rounding.
        if (!shift_.defined()) shift_ = piece.mean(0);
        const at::Tensor shifted = piece - shift_;
        sum_ += shifted.sum(0);
        if (wide_) {
            kept_.narrow(0, done_, shifted.size(0)).copy_(shifted);
        } else {
            kept_.addmm_(shifted.t(), shifted);
        }
        done_ += piece.size(0);
    }

    double effective() const {
        const at::Tensor mean = sum_ / static_cast<double>(rows_);
        if (!wide_) return effective_dimension(kept_ / static_cast<double>(rows_) - at::outer(mean, mean));
        const auto [trace, squares] = spectrum(kept_ - mean);
        return dimension(trace, squares);
    }

  private:
    std::int64_t rows_, done_ = 0;
    bool wide_;
    at::Tensor shift_, sum_, kept_;
};

struct LayerShape {
    int entry;
    std::int64_t groups = 1;
    bool transposed = false;
};

LayerShape shape_of(const model::OperationKind& kind) {
    if (const auto* linear = std::get_if<model::Linear>(&kind)) return {.entry = linear->weight};
    const auto& convolution = std::get<model::Convolution>(kind);
    return {convolution.weight, convolution.groups, convolution.transposed};
}

/// Of WᵀW, W the matrix of one position: block by block, where channels are in groups.
double of_weights(const LayerShape& layer, const at::Tensor& weight) {
    double trace = 0, squares = 0;
    for (const at::Tensor& group : weight.chunk(layer.groups, 0)) {
        // Of a transposed convolution [in, out, …].
        const at::Tensor first = layer.transposed ? group.transpose(0, 1) : group;
        const auto [part, part_of_squares] = spectrum(first.flatten(1).contiguous());
        trace += part;
        squares += part_of_squares;
    }
    return dimension(trace, squares);
}

/// [samples and positions, channels]
at::Tensor rows_of(const at::Tensor& value, bool channels_last) {
    if (value.dim() == 2) return value;
    return (channels_last ? value : value.movedim(1, -1)).flatten(0, -2);
}

std::int64_t positions(const std::vector<std::int64_t>& shape, std::int64_t channels) {
    std::int64_t size = 1;
    for (const auto extent : shape) size *= extent;
    return size / channels;
}

LayerSupport of_layer(const model::ModelGraph& graph, const model::Parameters& exact,
                      const data::SampleSet& samples, std::size_t operation) {
    const auto& layer = graph.operations[operation];
    const bool last = std::holds_alternative<model::Linear>(layer.kind);
    const auto& in = graph.shapes[static_cast<std::size_t>(layer.inputs[0])];
    const auto& out = graph.shapes[static_cast<std::size_t>(layer.output)];
    LayerSupport result{.layer = layer.name,
                        .inputs = last ? in.back() : in.front(),
                        .outputs = last ? out.back() : out.front()};
    const LayerShape shape = shape_of(layer.kind);
    result.weights = of_weights(shape, exact.view(static_cast<std::size_t>(shape.entry)));
    Covariance inputs(samples.size() * positions(in, result.inputs), result.inputs);
    Covariance outputs(samples.size() * positions(out, result.outputs), result.outputs);
    for_values(graph, exact, samples, {layer.inputs[0], layer.output},
               [&](std::size_t which, const at::Tensor& value) {
                   (which == 0 ? inputs : outputs).add(rows_of(value, last));
               });
    result.inputs_covariance = inputs.effective();
    result.outputs_covariance = outputs.effective();
    return result;
}

}  // namespace

double effective_dimension(const at::Tensor& matrix) {
    const at::Tensor exact = matrix.to(at::kDouble);
    return dimension(exact.trace().item<double>(), (exact * exact).sum().item<double>());
}

std::vector<LayerSupport> support(const model::ModelGraph& graph, const model::Parameters& parameters,
                                  const data::SampleSet& samples, core::Communicator& communicator) {
    const at::NoGradGuard no_grad;
    require_samples(graph, samples, 2);
    const auto exact = core::collectively(communicator, [&] { return parameters.to_double(); });
    const auto layers = graph.affine_operations();
    constexpr std::int64_t width = 5;
    const auto rows =
        core::gather_rows(communicator, static_cast<std::int64_t>(layers.size()), width,
                          [&](std::int64_t item, std::span<double> row) {
                              const LayerSupport found =
                                  of_layer(graph, exact, samples, layers[static_cast<std::size_t>(item)]);
                              row[0] = static_cast<double>(found.inputs);
                              row[1] = static_cast<double>(found.outputs);
                              row[2] = found.weights;
                              row[3] = found.outputs_covariance;
                              row[4] = found.inputs_covariance;
                          });
    std::vector<LayerSupport> result;
    for (std::size_t i = 0; i < layers.size(); ++i) {
        const double* row = rows.data() + i * width;
        result.push_back({.layer = graph.operations[layers[i]].name,
                          .inputs = static_cast<std::int64_t>(row[0]),
                          .outputs = static_cast<std::int64_t>(row[1]),
                          .weights = row[2],
                          .outputs_covariance = row[3],
                          .inputs_covariance = row[4]});
    }
    return result;
}

}  // namespace thalweg::analysis
