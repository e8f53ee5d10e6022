#include "choices.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace thalweg::model {

core::Option activation_option() {
    return core::choice("activation", {"relu", "tanh", "gelu"}, "what follows every hidden layer")
        .by_default("relu");
}

core::Option norm_option() {
    return core::choice("norm", {"none", "batch", "layer"}, "norm between a hidden layer and its activation")
        .by_default("none");
}

ActivationKind activation_kind(const core::Value& option) {
    const auto& name = option.as_text();
    if (name == "relu") return ActivationKind::relu;
    if (name == "tanh") return ActivationKind::tanh;
    if (name == "gelu") return ActivationKind::gelu;
    throw std::logic_error("activation_kind: " + name);
}

int append_norm(GraphBuilder& builder, const std::string& norm, const std::string& name, int from) {
    if (norm == "none") return from;
    if (norm == "batch") return builder.batch_norm(name, from);
    if (norm == "layer") return builder.layer_norm(name, from);
    throw std::logic_error("append_norm: " + norm);
}

core::Option image_norm_option(const char* fallback) {
    return core::choice("norm", {"none", "batch", "layer", "group"},
                        "norm of the convolutions; layer: over the channels at each position")
        .by_default(fallback);
}

core::Option groups_option() {
    return core::integer("groups", "of norm: group; they divide every width").at_least(1).by_default(8);
}

core::Option width_option() {
    return core::number("width", "factor on all widths").above(0).at_most(64).by_default(1);
}

ImageNorm::ImageNorm(const core::Value& options)
    : kind(options["norm"].as_text()), groups(options["groups"].as_int()) {}

int ImageNorm::append(GraphBuilder& builder, const std::string& name, int from) const {
    return kind == "group" ? builder.group_norm(name, from, groups) : append_norm(builder, kind, name, from);
}

std::int64_t scaled(std::int64_t channels, const core::Value& options) {
    const double wanted = static_cast<double>(channels) * options["width"].as_number();
    return std::max<std::int64_t>(1, std::llround(wanted));
}

int append_conv(GraphBuilder& builder, const std::string& name, int from, std::int64_t out,
                std::int64_t kernel, std::int64_t stride, std::int64_t padding, bool bias,
                std::int64_t groups) {
    const int value =
        builder.conv2d(name, from, out, {kernel, kernel}, {stride, stride}, {padding, padding}, bias, groups);
    const auto fan = static_cast<double>(out / groups * kernel * kernel);
    builder.start(name + ".weight", {Initial::Kind::normal, std::sqrt(2.0 / fan)});
    if (bias) builder.start(name + ".bias", {Initial::Kind::constant, 0});
    return value;
}

int append_linear(GraphBuilder& builder, const std::string& name, int from, std::int64_t out,
                  double deviation) {
    const int value = builder.linear(name, from, out);
    builder.start(name + ".weight", {Initial::Kind::normal, deviation});
    builder.start(name + ".bias", {Initial::Kind::constant, 0});
    return value;
}

void require_images(const core::Value& options, const Sizes& input_shape, const std::string& model) {
    if (input_shape.size() == 3) return;
    options.reject("a " + model + " needs images [channels, height, width]; this data set has vectors of " +
                   std::to_string(input_shape.front()) + " features: choose mlp or linear");
}

void require_symbols(const core::Value& options, const Sizes& input_shape, const std::string& model) {
    if (input_shape.size() == 1) return;
    options.reject("a " + model +
                   " needs windows of symbols, such as the data set text has; this one has images");
}

}  // namespace thalweg::model
