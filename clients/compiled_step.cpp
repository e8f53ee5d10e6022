#include <ATen/Functions.h>
#include <ATen/core/LegacyTypeDispatch.h>

#include <algorithm>
#include <stdexcept>

#include "kernels.hpp"
#include "thalweg/clients/training.hpp"

namespace thalweg::clients {
namespace {

/// A linear layer of the chain with the activation behind it.
struct Layer {
    std::int64_t in = 0, out = 0;
    std::int64_t weight = 0;             ///< offset in the flat vector
    std::optional<std::int64_t> bias{};  ///< the same
    std::optional<model::ActivationKind> activation{};
};

bool has_kernel(model::ActivationKind kind) {
    return kind == model::ActivationKind::relu || kind == model::ActivationKind::tanh ||
           kind == model::ActivationKind::gelu;
}

/// Reads the graph as a chain of linear layers, or nothing when it is not one.
std::optional<std::vector<Layer>> read_chain(const model::ModelGraph& graph) {
    std::vector<Layer> layers;
    std::vector<int> used;
    const auto& entries = graph.layout->entries();
    for (std::size_t i = 0; i < graph.operations.size(); ++i) {
        const auto& operation = graph.operations[i];
        if (operation.inputs != std::vector<int>{static_cast<int>(i)}) return {};  // not a chain
        if (std::holds_alternative<model::Flatten>(operation.kind))
            continue;  // row-major rows stay as they are
        if (const auto* linear = std::get_if<model::Linear>(&operation.kind)) {
            if (graph.shapes[i].size() != 1 && layers.size() > 0) return {};
            const auto& weight = entries[static_cast<std::size_t>(linear->weight)];
            Layer layer{.in = weight.shape[1], .out = weight.shape[0], .weight = weight.offset};
            if (linear->bias >= 0) layer.bias = entries[static_cast<std::size_t>(linear->bias)].offset;
            used.push_back(linear->weight);
            if (linear->bias >= 0) used.push_back(linear->bias);
            layers.push_back(layer);
        } else if (const auto* activation = std::get_if<model::Activation>(&operation.kind)) {
            if (layers.empty() || layers.back().activation || !has_kernel(activation->kind)) return {};
            layers.back().activation = activation->kind;
        } else {
            return {};
        }
    }
    if (layers.empty() || layers.back().activation) return {};
    std::sort(used.begin(), used.end());
    const bool shared = std::adjacent_find(used.begin(), used.end()) != used.end();
    std::int64_t covered = 0;
    for (const int entry : used) covered += entries[static_cast<std::size_t>(entry)].size;
    // A layer used twice would have to add its gradients, and one that is never used would keep an old one.
    if (shared || covered != graph.layout->trainable_size()) return {};
    return layers;
}

class CompiledStep final : public LocalStep {
  public:
    CompiledStep(const model::ModelGraph& graph, std::vector<Layer> layers)
        : layers_(std::move(layers)), gradient_(at::zeros({graph.layout->trainable_size()}, at::kFloat)) {
        for (const auto& layer : layers_) {
            weight_gradients_.push_back(
                gradient_.narrow(0, layer.weight, layer.in * layer.out).view({layer.out, layer.in}));
        }
    }

    void bind(const model::Parameters& parameters) override {
        const at::AutoDispatchBelowADInplaceOrView plain;
        parameters_ = parameters.values;
        weights_.clear();
        transposed_.clear();
        for (const auto& layer : layers_) {
            weights_.push_back(
                parameters_.narrow(0, layer.weight, layer.in * layer.out).view({layer.out, layer.in}));
            transposed_.push_back(weights_.back().t());
        }
    }

    double compute(const at::Tensor& x, const at::Tensor& y) override {
        const at::AutoDispatchBelowADInplaceOrView
            plain;  // nothing here is differentiated: skip autograd's dispatch
        if (!x.is_contiguous() || !y.is_contiguous())
            throw std::invalid_argument("a batch must be contiguous");
        const std::int64_t n = x.size(0);
        if (n != rows_) resize(n);
        const at::Tensor input = x.view({n, layers_.front().in});
        forward(input);
        const double loss =
            cross_entropy(outputs_.back().data_ptr<float>(),
                          {y.data_ptr<std::int64_t>(), static_cast<std::size_t>(n)}, layers_.back().out);
        backward(input);
        return loss;
    }

    const at::Tensor& gradient() const override { return gradient_; }
    std::string name() const override { return "compiled"; }

  private:
    /// Views of `n` rows into the buffers, which only grow: the smaller last batch of an epoch allocates nothing.
    void resize(std::int64_t n) {
        const bool grow = n > capacity_;
        if (grow) capacity_ = n;
        outputs_.resize(layers_.size());
        sums_.resize(layers_.size());
        deltas_.resize(layers_.size());
        turned_.resize(layers_.size());
        buffers_.resize(3 * layers_.size());
        for (std::size_t l = 0; l < layers_.size(); ++l) {
            const auto view = [&](std::size_t which) {
                auto& buffer = buffers_[3 * l + which];
                if (grow) buffer = at::empty({capacity_, layers_[l].out}, at::kFloat);
                return buffer.narrow(0, 0, n);
            };
            outputs_[l] = view(0);
            // The logits become their own gradient in place; the GELU needs its input again, the others their output.
            deltas_[l] = l + 1 == layers_.size() ? outputs_[l] : view(1);
            sums_[l] = layers_[l].activation == model::ActivationKind::gelu ? view(2) : outputs_[l];
            turned_[l] = deltas_[l].t();
        }
        rows_ = n;
    }

    void forward(const at::Tensor& input) {
        const float* parameters = parameters_.data_ptr<float>();
        for (std::size_t l = 0; l < layers_.size(); ++l) {
            const auto& layer = layers_[l];
            at::mm_out(sums_[l], l == 0 ? input : outputs_[l - 1], transposed_[l]);
            float* sums = sums_[l].data_ptr<float>();
            const float* bias = layer.bias ? parameters + *layer.bias : nullptr;
            if (layer.activation == model::ActivationKind::relu) {
                add_bias_relu(sums, bias, rows_, layer.out);
                continue;
            }
            add_bias(sums, bias, rows_, layer.out);
            if (layer.activation == model::ActivationKind::tanh) at::tanh_out(outputs_[l], sums_[l]);
            if (layer.activation == model::ActivationKind::gelu) at::gelu_out(outputs_[l], sums_[l]);
        }
    }

    void backward(const at::Tensor& input) {
        auto* gradient = gradient_.data_ptr<float>();
        for (std::size_t l = layers_.size(); l-- > 0;) {
            const auto& layer = layers_[l];
            at::mm_out(weight_gradients_[l], turned_[l], l == 0 ? input : outputs_[l - 1]);
            if (layer.bias)
                column_sums(gradient + *layer.bias, deltas_[l].data_ptr<float>(), rows_, layer.out);
            if (l == 0) break;
            at::mm_out(deltas_[l - 1], deltas_[l], weights_[l]);
            activation_backward(l - 1);
        }
    }

    void activation_backward(std::size_t l) {
        if (!layers_[l].activation) return;
        const std::int64_t size = rows_ * layers_[l].out;
        auto* delta = deltas_[l].data_ptr<float>();
        switch (*layers_[l].activation) {
            case model::ActivationKind::relu:
                return relu_backward(delta, outputs_[l].data_ptr<float>(), size);
            case model::ActivationKind::tanh:
                return tanh_backward(delta, outputs_[l].data_ptr<float>(), size);
            case model::ActivationKind::gelu:
                at::gelu_backward_out(deltas_[l], deltas_[l], sums_[l]);
                return;
            default:
                throw std::logic_error("compiled step: an activation without a kernel");
        }
    }

    std::vector<Layer> layers_;
    at::Tensor gradient_;
    std::vector<at::Tensor> weight_gradients_;

    at::Tensor parameters_;  ///< of the bound model
    std::vector<at::Tensor> weights_, transposed_;

    std::int64_t rows_ = 0, capacity_ = 0;
    std::vector<at::Tensor> buffers_;  ///< capacity_ rows each
    std::vector<at::Tensor> sums_, outputs_, deltas_,
        turned_;  ///< rows_ rows: before and after the activation, dL/dsum
};

}  // namespace

std::unique_ptr<LocalStep> compiled_step(const model::ModelGraph& graph) {
    auto layers = read_chain(graph);
    if (!layers) return nullptr;
    return std::make_unique<CompiledStep>(graph, std::move(*layers));
}

}  // namespace thalweg::clients
