#pragma once

#include <torch/csrc/jit/api/module.h>

#include <map>
#include <string>

#include "trace.hpp"

namespace thalweg::model::torchscript {

/// Gives this process the operations of newer PyTorch versions that the importer knows and this LibTorch lacks.
void add_later_operations();

/// The module in evaluation mode with float parameters. RunError when LibTorch cannot read it.
torch::jit::Module load_module(const std::filesystem::path& path, const std::string& content);

/// The module's parameters and buffers. `alive`: the module's own tensors, by index in State::tensors.
struct LoadedState {
    State state;
    std::vector<at::Tensor> alive;
    /// The index of one of the module's own tensors, or -1.
    int find(const at::Tensor& tensor) const;
    /// Writes the values of the file back: tracing in training mode moves running statistics.
    void restore() const;
};
LoadedState read_state(const torch::jit::Module& module, const std::filesystem::path& path);

}  // namespace thalweg::model::torchscript
