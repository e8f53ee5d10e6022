#include <torch/types.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <variant>
#include <vector>

#include "thalweg/aggregator/exchange.hpp"
#include "thalweg/aggregator/repair.hpp"
#include "thalweg/aggregator/stage.hpp"
#include "thalweg/core/interrupt.hpp"
#include "thalweg/core/memory.hpp"
#include "thalweg/model/interpreter.hpp"

namespace thalweg::aggregator {

namespace {

/// A layer whose outputs are a matrix times what it reads: linears, and convolutions over two spatial axes without groups,
/// which read patches.
struct Layer {
    std::size_t operation = 0;
    std::size_t weight = 0;   ///< its entry; as a matrix [out, inputs]
    std::int64_t inputs = 0;  ///< of one output
};

std::vector<Layer> layers_of(const model::ModelGraph& graph) {
    std::vector<int> uses(graph.layout->entries().size(), 0);
    std::vector<Layer> layers;
    for (std::size_t i = 0; i < graph.operations.size(); ++i) {
        int weight = -1;
        if (const auto* linear = std::get_if<model::Linear>(&graph.operations[i].kind)) {
            weight = linear->weight;
        } else if (const auto* conv = std::get_if<model::Convolution>(&graph.operations[i].kind)) {
            if (conv->transposed || conv->groups > 1 || conv->stride.size() != 2) continue;
            weight = conv->weight;
        } else {
            // Rows of symbols are no layer of this kind, but a linear may share them.
            if (const auto* embedding = std::get_if<model::Embedding>(&graph.operations[i].kind))
                uses[static_cast<std::size_t>(embedding->weight)] += 1;
            continue;
        }
        const auto& entry = graph.layout->entries()[static_cast<std::size_t>(weight)];
        uses[static_cast<std::size_t>(weight)] += 1;
        layers.push_back({i, static_cast<std::size_t>(weight), entry.size / entry.shape.front()});
    }
    // A weight that two layers share has no regression of its own.
    std::erase_if(layers, [&](const Layer& layer) { return uses[layer.weight] > 1; });
    return layers;
}

/// What the layer reads, a row for each output it makes: [samples · positions, inputs].
at::Tensor rows_read(const model::ModelGraph& graph, const Layer& layer, const at::Tensor& x) {
    const auto* conv = std::get_if<model::Convolution>(&graph.operations[layer.operation].kind);
    if (conv == nullptr) return x.reshape({-1, layer.inputs});
    const auto& kernel = graph.layout->entries()[layer.weight].shape;
    const at::Tensor patches =
        at::im2col(x, {kernel[2], kernel[3]}, conv->dilation, conv->padding, conv->stride);
    return patches.transpose(1, 2).reshape({-1, layer.inputs});
}

/// G = XᵀX of what a layer reads in its own model.
at::Tensor gram(const model::ModelGraph& graph, const model::Parameters& parameters, const Layer& layer,
                const data::SampleSet& samples) {
    const at::Tensor sum = at::zeros({layer.inputs, layer.inputs}, at::kDouble);
    const auto views = model::views(parameters);
    const int read = graph.operations[layer.operation].inputs.front();
    for_each_batch(
        samples, graph.input_shape(),
        [&](std::int64_t, const at::Tensor& given, const at::Tensor&) {
            at::Tensor x = given.to(parameters.values.scalar_type());
            if (read > 0)
                x = model::forward(graph, views, x, model::Mode::evaluate, {},
                                   static_cast<std::size_t>(read - 1));
            const at::Tensor rows = rows_read(graph, layer, x).to(at::kDouble);
            sum.addmm_(rows.t(), rows);
        },
        model::samples_at_once(graph));
    return sum;
}

/// RegMean (Jin et al., ICLR 2023): the weight of every linear layer becomes (Σ G_k)⁻¹ Σ G_k W_k, the matrix whose outputs
/// come nearest to all clients' on their own inputs; G_k = XᵀX of what the layer reads in client k's model, its
/// off-diagonal part times `shrink`. All other entries take the weighted mean.
///
/// Beyond the source: convolutions (over two axes, without groups) as well, on their patches; and where inputs never fire,
/// so that ΣG is singular, a ridge of 10⁻⁶ of the mean diagonal pulls towards the mean of the weights.
class RegMean final : public Stage {
  public:
    explicit RegMean(const core::Value& options)
        : statistics_(options["statistics"].as_text()),
          samples_(options["samples"].as_int()),
          shrink_(options["shrink"].as_number()),
          weighting_(weighting_of(options["weights"].as_text())) {}

    StageTraits traits() const override {
        return {.kind = StageKind::reduction,
                .needs_holdout = statistics_ == "server",
                .needs_clients = statistics_ == "clients"};
    }

    StageNotes apply(FusionState& state, const FusionContext& context) const override {
        const auto w =
            core::collectively(context.communicator, [&] { return weights(context.members, weighting_); });
        const auto source = source_of(statistics_, context).limited(samples_);
        state.merged = mean(state.updates, context, w);
        state.weights = w;
        const auto layers = layers_of(context.graph);
        for (const Layer& layer : layers) regress(state, context, *source, layer);
        // Solved on every rank; one of them counts, whatever their libraries and threads.
        state.merged = broadcast_parameters(state.merged, 0, context);
        return {{"regressed_layers", static_cast<double>(layers.size())}};
    }

  private:
    /// One layer after another: what travels is never more than the matrices of one.
    void regress(FusionState& state, const FusionContext& context, const StatisticsSource& source,
                 const Layer& layer) const {
        const at::Tensor weight = state.merged.view(layer.weight);
        const std::int64_t outputs = weight.size(0), inputs = layer.inputs;
        const std::int64_t width = inputs * inputs + inputs * outputs;
        std::size_t next = 0;
        const auto rows = gather_member_rows(
            context.communicator, context.members, width, [&](std::size_t, std::span<double> row) {
                core::check_interrupt();
                core::require_memory(static_cast<double>(width) * sizeof(double) *
                                         static_cast<double>(context.members.size() + 1),
                                     "the inner products of what " +
                                         context.graph.operations[layer.operation].name +
                                         " reads, of all clients");
                const Update& update = state.updates[next++];
                at::Tensor g = gram(context.graph, update.parameters, layer, *source.samples_of(update));
                const at::Tensor diagonal = g.diagonal().clone();
                g.mul_(shrink_);
                g.diagonal().copy_(diagonal);
                const at::Tensor own = update.parameters.view(layer.weight).reshape({outputs, inputs});
                const at::Tensor product = at::mm(g, own.to(at::kDouble).t());
                std::memcpy(row.data(), g.data_ptr<double>(), g.nbytes());
                std::memcpy(row.data() + g.numel(), product.contiguous().data_ptr<double>(),
                            product.nbytes());
            });
        core::collectively(context.communicator, [&] {
            const at::Tensor all =
                at::from_blob(const_cast<double*>(rows.data()),
                              {static_cast<std::int64_t>(context.members.size()), width}, at::kDouble);
            const at::Tensor sum = all.sum(0);
            at::Tensor g = sum.narrow(0, 0, inputs * inputs).view({inputs, inputs});
            at::Tensor product = sum.narrow(0, inputs * inputs, inputs * outputs).view({inputs, outputs});
            const double ridge = 1e-6 * g.diagonal().mean().item<double>();
            if (ridge == 0) return;  // the layer reads nothing but zeros: the mean stays
            const at::Tensor average = weight.reshape({outputs, inputs}).to(at::kDouble).t();
            g = g + at::eye(inputs, at::kDouble) * ridge;
            product = product + average * ridge;
            const at::Tensor solved = at::cholesky_solve(product, at::linalg_cholesky(g));
            weight.copy_(solved.t().reshape(weight.sizes()));
        });
    }

    std::string statistics_;
    std::int64_t samples_;
    double shrink_;
    Weighting weighting_;
};

const StageRegistration regmean_registration{
    {.kind = "stage",
     .name = "regmean",
     .help =
         "linear layers by regression: outputs nearest to all clients' on their own inputs; the rest by mean",
     .citation = "Jin, Ren, Preotiuc-Pietro & Cheng, Dataless Knowledge Fusion by Merging Weights, ICLR 2023",
     .options = {core::choice("statistics", {"clients", "server"},
                              "whose data: every client's own, or the server's hold-out")
                     .by_default("clients"),
                 core::integer("samples", "samples a client looks at; 0: all").at_least(0).by_default(1000),
                 core::number("shrink", "what off-diagonal inner products are multiplied by")
                     .at_least(0)
                     .below(1)
                     .by_default(0.9),
                 core::choice("weights", {"samples", "uniform"},
                              "what a client counts in the mean of all other entries")
                     .by_default("samples")},
     .cost = "a forward pass a layer and O(samples · positions · inputs²) on the updates' ranks; O(inputs³) "
             "a layer"},
    [](const core::Value& options) { return std::make_unique<RegMean>(options); }};

}  // namespace

}  // namespace thalweg::aggregator
