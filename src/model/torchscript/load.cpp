#include "load.hpp"

#include <torch/csrc/jit/serialization/import.h>

#include <sstream>

#include "thalweg/core/error.hpp"

namespace thalweg::model::torchscript {

namespace {

/// Own parameters, own buffers, then the same of each submodule: the order of a Python state_dict.
void collect(const torch::jit::Module& module, const std::string& prefix, LoadedState& loaded,
             const std::filesystem::path& path) {
    const auto add = [&](const std::string& name, const at::Tensor& tensor, bool parameter) {
        if (!tensor.defined()) return;
        const auto full = prefix + name;
        int index = loaded.find(tensor);
        if (index < 0) {
            for (std::size_t i = 0; i < loaded.alive.size(); ++i) {
                if (!loaded.alive[i].is_alias_of(tensor) || tensor.numel() == 0) continue;
                throw core::UsageError(
                    path.string() + ": " + full + " and " + loaded.state.tensors[i].name +
                    " are different views of the same memory, which a flat vector of parameters "
                    "cannot express. Give each a tensor of its own before saving.");
            }
            index = static_cast<int>(loaded.alive.size());
            loaded.alive.push_back(tensor);
            loaded.state.tensors.push_back({full, tensor.detach().clone(at::MemoryFormat::Contiguous),
                                            parameter, parameter && !tensor.requires_grad()});
        }
        loaded.state.order.push_back({full, static_cast<std::size_t>(index)});
    };
    for (const auto& item : module.named_parameters(false)) add(item.name, item.value, true);
    for (const auto& item : module.named_buffers(false)) add(item.name, item.value, false);
    for (const auto& item : module.named_children())
        collect(item.value, prefix + item.name + ".", loaded, path);
}

}  // namespace

int LoadedState::find(const at::Tensor& tensor) const {
    for (std::size_t i = 0; i < alive.size(); ++i) {
        const auto& other = alive[i];
        const bool same =
            other.is_same(tensor) ||
            (tensor.numel() > 0 && other.data_ptr() == tensor.data_ptr() && other.sizes() == tensor.sizes() &&
             other.strides() == tensor.strides() && other.scalar_type() == tensor.scalar_type());
        if (same) return static_cast<int>(i);
    }
    return -1;
}

void LoadedState::restore() const {
    const at::NoGradGuard no_grad;
    for (std::size_t i = 0; i < alive.size(); ++i) alive[i].detach().copy_(state.tensors[i].tensor);
}

torch::jit::Module load_module(const std::filesystem::path& path, const std::string& content) {
    add_later_operations();
    try {
        std::istringstream stream(content);
        auto module = torch::jit::load(stream, at::Device(at::kCPU));
        const auto to_float = [](const at::Tensor& tensor) {
            if (tensor.is_floating_point() && tensor.scalar_type() != at::kFloat)
                tensor.set_data(tensor.to(at::kFloat));
        };
        const at::NoGradGuard no_grad;
        for (const at::Tensor& tensor : module.parameters()) to_float(tensor);
        for (const at::Tensor& tensor : module.buffers()) to_float(tensor);
        return module;
    } catch (const std::exception& error) {
        throw core::RunError(
            "Cannot read " + path.string() +
            ": LibTorch refuses the TorchScript module: " + core::first_paragraph(error.what()) +
            ". A module saved by a newer PyTorch may hold operations that this LibTorch lacks.");
    }
}

LoadedState read_state(const torch::jit::Module& module, const std::filesystem::path& path) {
    LoadedState loaded;
    collect(module, "", loaded, path);
    return loaded;
}

}  // namespace thalweg::model::torchscript
