#include "folding.hpp"

#include <torch/types.h>

#include <variant>

namespace thalweg::study {

model::Parameters folded_mlp(const model::ModelGraph& graph, const model::Parameters& parameters,
                             const model::ModelGraph& flat) {
    model::Parameters folded(flat.layout);
    const auto of = [&](int entry) {
        return parameters.view(static_cast<std::size_t>(entry)).to(at::kDouble);
    };
    const auto affine = graph.affine_operations(), flat_affine = flat.affine_operations();
    for (std::size_t layer = 0; layer < affine.size(); ++layer) {
        const auto& from = std::get<model::Linear>(graph.operations[affine[layer]].kind);
        const auto& to = std::get<model::Linear>(flat.operations[flat_affine[layer]].kind);
        at::Tensor weight = of(from.weight), bias = of(from.bias);
        if (affine[layer] + 1 < graph.operations.size()) {
            if (const auto* norm = std::get_if<model::BatchNorm>(&graph.operations[affine[layer] + 1].kind)) {
                const at::Tensor scale = of(norm->weight) / (of(norm->running_var) + norm->epsilon).sqrt();
                weight = weight * scale.unsqueeze(1);
                bias = (bias - of(norm->running_mean)) * scale + of(norm->bias);
            }
        }
        folded.view(static_cast<std::size_t>(to.weight)).copy_(weight);
        folded.view(static_cast<std::size_t>(to.bias)).copy_(bias);
    }
    return folded;
}

}  // namespace thalweg::study
