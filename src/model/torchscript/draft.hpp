#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "thalweg/model/torchscript.hpp"
#include "trace.hpp"

namespace thalweg::model::torchscript {

/// The graph while it is translated: operations whose entries are numbers of State::tensors. What turns out to be unused
/// is left out at the end.
class Draft {
  public:
    Draft(const State& state, Sizes input_shape);

    const Sizes& shape(int value) const { return shapes_.at(static_cast<std::size_t>(value)); }
    /// The operation that writes a value; nullptr for the input.
    const Operation* writer(int value) const;
    const State& state() const { return state_; }

    /// Appends and returns the value it writes. An unnamed operation is numbered at the end.
    int emit(OperationKind kind, std::vector<int> inputs, std::string name = {});
    // These four look through what is there already, so that views of views and of constants cost nothing.
    int reshape(int value, const Sizes& shape);
    int permute(int value, const Sizes& order);
    int slice(int value, const Slice& slice);
    int expand(int value, const Sizes& shape);
    int constant(const at::Tensor& tensor);
    const at::Tensor& constant_of(std::int64_t index) const {
        return constants_.at(static_cast<std::size_t>(index));
    }
    int parameter(std::size_t state, const Sizes& shape);

    /// The live part as a graph whose last value is `output`.
    ImportedModel finish(int output, const core::Value& spec) const;

  private:
    template <class Kind>
    const Kind* written_by(int value) const {
        const auto* operation = writer(value);
        return operation == nullptr ? nullptr : std::get_if<Kind>(&operation->kind);
    }
    const State& state_;
    std::vector<Sizes> entry_shapes_;
    std::vector<Operation> operations_;
    std::vector<Sizes> shapes_;
    std::vector<at::Tensor> constants_;
};

/// A module's name from its tensor's: `fc` of `fc.weight`, `attention.in_proj` of `attention.in_proj_weight`.
std::string module_name(const std::string& tensor_name);

}  // namespace thalweg::model::torchscript
