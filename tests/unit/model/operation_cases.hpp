#pragma once

#include <torch/types.h>

#include <functional>
#include <string>
#include <vector>

#include "thalweg/model/graph.hpp"
#include "thalweg/model/interpreter.hpp"

namespace thalweg::model::test {

/// What a reference may use: the input [N, …], and the graph's entries by name.
struct Given {
    at::Tensor x;
    std::function<at::Tensor(const std::string&)> entry;
};

/// A small graph around one operation and what it must compute, written out.
struct OperationCase {
    std::string name;
    Sizes input;
    std::function<void(GraphBuilder&, int x)> append;
    std::function<at::Tensor(const Given&)> reference;
    Mode mode = Mode::evaluate;
    std::int64_t symbols = 0;  ///< above 0: the input holds whole numbers below it
};

/// Each group in a file of its own.
std::vector<OperationCase> dense_cases();
std::vector<OperationCase> image_cases();
std::vector<OperationCase> sequence_cases();

/// An entry named `name`, for operations that GraphBuilder has no method for.
inline int weight(GraphBuilder& builder, const std::string& name, Sizes shape, Role role = Role::weight) {
    return builder.entry(name, std::move(shape), role, {Initial::Kind::uniform, 0.5});
}

}  // namespace thalweg::model::test
