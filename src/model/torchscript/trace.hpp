#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "thalweg/model/operations.hpp"

// A TorchScript module as a flat list of aten operations, free of LibTorch's compiler headers: only trace.cpp and
// load.cpp include those.

namespace thalweg::model::torchscript {

/// Sizes of the two traces' batches: primes, so that what varies with the batch shows, and more than one sample, which
/// batch norm needs.
inline constexpr std::int64_t first_batch = 5, second_batch = 7;

/// One axis' extent as both traces have it: `count`, times the batch's size or not.
struct Extent {
    std::int64_t count = 1;
    bool batch = false;
    bool operator==(const Extent&) const = default;
};
using Extents = std::vector<Extent>;

/// A tensor of the module's state. Tied ones are one tensor with several names.
struct StateTensor {
    std::string name;   ///< the first of its names
    at::Tensor tensor;  ///< a copy of its own, as in the file
    bool parameter = false;
    bool frozen = false;  ///< a parameter that does not ask for a gradient
};
/// A name of Python's state_dict and the tensor it stands for.
struct StateName {
    std::string name;
    std::size_t tensor = 0;
};
struct State {
    std::vector<StateTensor> tensors;
    std::vector<StateName> order;  ///< as Python's state_dict has it
};

/// A value of the trace: something known, a tensor of the state, or what a node writes.
struct Value {
    enum class Kind { constant, state, tensor, list };
    Kind kind = Kind::constant;
    c10::IValue constant,
        other;  ///< in the first and the second trace; they differ where the batch's size is in it
    std::size_t state = 0;   ///< index in State::tensors
    Extents extents;         ///< of a tensor
    std::vector<int> items;  ///< of a list that the trace puts together
};

struct Node {
    std::string kind;  ///< `aten::linear`
    std::vector<int> inputs, outputs;
    std::string source;  ///< where it stands in the Python code: `net.py:12`
};

struct Trace {
    State state;
    std::vector<Value> values;
    std::vector<Node> nodes;
    int input = 0, output = 0;
    bool tokens = false;  ///< the module takes whole numbers only
    /// The module's own answer in evaluation mode.
    std::function<at::Tensor(const at::Tensor&)> evaluate;
};

/// Loads and records. Errors as import_torchscript.
Trace trace_module(const std::filesystem::path& path, const std::string& content, const Sizes& input_shape);

/// RunError("Cannot read <path>: …") unless `content` is a zip archive all of whose records have the CRC they should.
void check_archive(const std::filesystem::path& path, const std::string& content);

}  // namespace thalweg::model::torchscript
