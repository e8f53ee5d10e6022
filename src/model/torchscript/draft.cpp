#include "draft.hpp"

#include <torch/types.h>

#include <algorithm>

namespace thalweg::model::torchscript {

namespace {

at::Tensor of_shape(const at::Tensor& tensor, const Sizes& shape) {
    return tensor.reshape(shape).contiguous();
}

}  // namespace

std::string module_name(const std::string& tensor_name) {
    const auto dot = tensor_name.rfind('.');
    const auto last = dot == std::string::npos ? tensor_name : tensor_name.substr(dot + 1);
    const std::string suffix = "_weight";
    if (last.size() > suffix.size() && last.ends_with(suffix))
        return tensor_name.substr(0, tensor_name.size() - suffix.size());
    return dot == std::string::npos ? tensor_name : tensor_name.substr(0, dot);
}

Draft::Draft(const State& state, Sizes input_shape) : state_(state) {
    for (const auto& item : state.tensors) entry_shapes_.push_back(item.tensor.sizes().vec());
    shapes_.push_back(std::move(input_shape));
}

const Operation* Draft::writer(int value) const {
    return value == 0 ? nullptr : &operations_.at(static_cast<std::size_t>(value) - 1);
}

int Draft::emit(OperationKind kind, std::vector<int> inputs, std::string name) {
    std::vector<Sizes> shapes;
    for (const int input : inputs) shapes.push_back(shape(input));
    auto written = output_shape(name.empty() ? kind_name(kind) : name, kind, shapes, entry_shapes_);
    const int output = static_cast<int>(shapes_.size());
    operations_.push_back({std::move(name), std::move(kind), std::move(inputs), output});
    shapes_.push_back(std::move(written));
    return output;
}

int Draft::reshape(int value, const Sizes& target) {
    if (shape(value) == target) return value;
    if (const auto* known = written_by<Constant>(value))
        return constant(of_shape(constants_[static_cast<std::size_t>(known->index)], target));
    if (const auto* known = written_by<Parameter>(value))
        return parameter(static_cast<std::size_t>(known->weight), target);
    if (written_by<Reshape>(value) != nullptr || written_by<Flatten>(value) != nullptr)
        return reshape(writer(value)->inputs[0], target);
    for (const auto& operation : operations_) {
        const bool same = operation.inputs == std::vector<int>{value} && shape(operation.output) == target &&
                          (std::holds_alternative<Reshape>(operation.kind) ||
                           std::holds_alternative<Flatten>(operation.kind));
        if (same) return operation.output;
    }
    if (target.size() == 1) return emit(Flatten{}, {value});
    return emit(Reshape{target}, {value});
}

int Draft::permute(int value, const Sizes& order) {
    if (std::is_sorted(order.begin(), order.end())) return value;
    if (const auto* known = written_by<Constant>(value)) {
        Sizes sample;
        for (std::size_t i = 1; i < order.size(); ++i) sample.push_back(order[i] - 1);
        const auto tensor = constants_[static_cast<std::size_t>(known->index)];
        return constant(of_shape(tensor, shape(value)).permute(sample));
    }
    if (const auto* before = written_by<Permute>(value)) {
        Sizes both;
        for (const auto axis : order) both.push_back(before->order[static_cast<std::size_t>(axis)]);
        return permute(writer(value)->inputs[0], both);
    }
    for (const auto& operation : operations_) {
        const auto* other = std::get_if<Permute>(&operation.kind);
        if (other != nullptr && other->order == order && operation.inputs[0] == value)
            return operation.output;
    }
    return emit(Permute{order}, {value});
}

int Draft::slice(int value, const Slice& slice) {
    const auto along = static_cast<std::size_t>(slice.axis) - 1;
    if (slice.start == 0 && slice.step == 1 && slice.end == shape(value).at(along)) return value;
    if (const auto* known = written_by<Constant>(value)) {
        const auto tensor = of_shape(constants_[static_cast<std::size_t>(known->index)], shape(value));
        return constant(tensor.slice(slice.axis - 1, slice.start, slice.end, slice.step));
    }
    const auto* cat = written_by<Cat>(value);
    if (cat != nullptr && cat->axis == slice.axis) {  // one of the parts that were just put together
        std::int64_t start = 0;
        for (const int part : writer(value)->inputs) {
            const auto size = shape(part).at(along);
            if (slice.start >= start && slice.end <= start + size)
                return this->slice(part, {slice.axis, slice.start - start, slice.end - start, slice.step});
            start += size;
        }
    }
    for (const auto& operation : operations_) {
        const auto* other = std::get_if<Slice>(&operation.kind);
        if (other != nullptr && operation.inputs[0] == value && options_text(*other) == options_text(slice))
            return operation.output;
    }
    return emit(slice, {value});
}

int Draft::expand(int value, const Sizes& target) {
    if (shape(value) == target) return value;
    return emit(Expand{target}, {value});
}

int Draft::constant(const at::Tensor& tensor) {
    constants_.push_back(tensor.detach().contiguous());
    return emit(Constant{static_cast<std::int64_t>(constants_.size()) - 1, tensor.sizes().vec()}, {});
}

int Draft::parameter(std::size_t state, const Sizes& shape) {
    for (const auto& operation : operations_) {
        const auto* other = std::get_if<Parameter>(&operation.kind);
        if (other != nullptr && other->weight == static_cast<int>(state) && other->shape == shape)
            return operation.output;
    }
    return emit(Parameter{static_cast<int>(state), shape}, {}, state_.tensors.at(state).name);
}

}  // namespace thalweg::model::torchscript
