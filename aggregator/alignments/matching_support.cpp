#include "matching_support.hpp"

#include <torch/types.h>

#include <span>
#include <stdexcept>

#include "thalweg/core/error.hpp"

namespace thalweg::aggregator {

void require_same_layout(const model::ModelGraph& graph, const model::Parameters& a,
                         const model::Parameters& b) {
    for (const model::Parameters* model : {&a, &b}) {
        if (!model->defined() || model->values.numel() != graph.layout->size()) {
            throw std::logic_error("matching a model that is not of the graph's layout");
        }
    }
    if (a.is_double() != b.is_double()) throw std::logic_error("matching a float model to a double one");
}

symmetry::Permutation best_assignment(symmetry::AssignmentSolver& solver, const at::Tensor& gain,
                                      const std::string& group) {
    const at::Tensor dense = gain.contiguous();
    const auto count = static_cast<std::size_t>(dense.numel());
    try {
        if (dense.scalar_type() == at::kFloat) {
            return solver.maximise(std::span<const float>(dense.data_ptr<float>(), count), dense.size(0));
        }
        return solver.maximise(std::span<const double>(dense.data_ptr<double>(), count), dense.size(0));
    } catch (const std::invalid_argument&) {
        throw core::RunError(
            "the channels of " + group +
            " cannot be matched: what their matches gain is not finite, so one of the two models "
            "holds NaN, an infinity or huge values; its training has most likely diverged");
    }
}

void permute_update(Update& update, const symmetry::Symmetries& symmetries,
                    const symmetry::Permutations& permutations) {
    update.parameters = symmetry::permute(update.parameters, symmetries, permutations);
    if (!update.mask.defined()) return;
    model::Parameters mask(update.parameters.layout);
    mask.trainable().copy_(update.mask);
    update.mask = symmetry::permute(mask, symmetries, permutations).trainable().gt(0.5);
}

}  // namespace thalweg::aggregator
