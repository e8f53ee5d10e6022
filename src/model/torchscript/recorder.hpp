#pragma once

#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/ir/ir.h>
#include <torch/csrc/jit/runtime/graph_executor.h>

#include <filesystem>
#include <memory>
#include <string>

#include "load.hpp"

namespace thalweg::model::torchscript {

/// Where a node stands in the Python code: `net.py:12`. Empty when the file does not say.
std::string source_of(const torch::jit::Node& node);

/// Runs of one module under LibTorch's tracer, each as a flat graph of the operations that it took. One at a time in a
/// process: LibTorch's settings are changed while it lives.
class Recorder {
  public:
    /// `path` and `loaded` must outlive it.
    Recorder(const std::filesystem::path& path, torch::jit::Module module, const LoadedState& loaded);
    ~Recorder();
    Recorder(const Recorder&) = delete;
    Recorder& operator=(const Recorder&) = delete;

    /// UsageError for what a graph of operations cannot hold: results that are no tensor, control flow that reads data,
    /// parameters under torch.no_grad(). LibTorch's own exceptions when the module cannot be run on the input.
    std::shared_ptr<torch::jit::Graph> record(const at::Tensor& input);

    /// What a chain of GetAttr nodes gives.
    c10::IValue attribute(const torch::jit::Node* node) const;
    /// The index in State::tensors of what a chain of GetAttr nodes gives, or -1.
    int state_index(const torch::jit::Node* node) const;

    [[noreturn]] void refuse(const std::string& reason) const;

  private:
    void refuse_decisions(const torch::jit::Graph& graph, const at::Tensor& output) const;
    void refuse_untrained(const torch::jit::Graph& graph) const;
    void fix_buffers(torch::jit::Graph& graph) const;

    const std::filesystem::path& path_;
    torch::jit::Module module_;
    const LoadedState& loaded_;
    torch::jit::GraphOptimizerEnabledGuard as_written_{false};
};

}  // namespace thalweg::model::torchscript
