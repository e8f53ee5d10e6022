#include "pseudo_gradient.hpp"

#include <torch/types.h>

#include "thalweg/core/error.hpp"

namespace thalweg::aggregator {

void ServerOptimizer::remember(const Memory& memory) {
    if (memory.empty()) return;
    throw core::RunError("the checkpoint holds the memory of another server optimizer (" +
                         memory.front().first +
                         ", …) than this configuration names, which has none; resume with the configuration "
                         "it was written with");
}

PseudoGradientOptimizer::PseudoGradientOptimizer(std::vector<std::string> names, std::vector<double> start)
    : names_(std::move(names)), start_(std::move(start)) {}

model::Parameters PseudoGradientOptimizer::step(const model::Parameters& previous,
                                                const model::Parameters& fused) {
    if (!previous.defined()) return fused;
    const at::Tensor from = previous.trainable().to(at::kDouble);
    if (kept_.empty()) {
        for (const double value : start_) kept_.push_back(at::full_like(from, value));
    }
    if (kept_.front().numel() != from.numel()) {
        throw core::RunError("the server optimizer's memory is of a model with " +
                             std::to_string(kept_.front().numel()) + " parameters, and this one has " +
                             std::to_string(from.numel()));
    }
    model::Parameters result = fused.clone();
    result.trainable().copy_(from + direction(fused.trainable().to(at::kDouble) - from, kept_));
    return result;
}

ServerOptimizer::Memory PseudoGradientOptimizer::memory() const {
    Memory memory;
    for (std::size_t i = 0; i < kept_.size(); ++i) memory.emplace_back(names_[i], kept_[i]);
    return memory;
}

void PseudoGradientOptimizer::remember(const Memory& memory) {
    kept_.clear();
    if (memory.empty()) return;  // written before the first step
    bool fits = memory.size() == names_.size();
    for (std::size_t i = 0; fits && i < memory.size(); ++i) {
        const auto& [name, tensor] = memory[i];
        fits = name == names_[i] && tensor.scalar_type() == at::kDouble && tensor.dim() == 1 &&
               tensor.numel() == memory.front().second.numel();
    }
    if (!fits) {
        throw core::RunError(
            "the checkpoint does not hold this server optimizer's memory; resume with the configuration it "
            "was "
            "written with");
    }
    for (const auto& [name, tensor] : memory) kept_.push_back(tensor.clone());
}

}  // namespace thalweg::aggregator
