#pragma once

#include <string>

#include "thalweg/core/schema.hpp"
#include "thalweg/model/graph.hpp"

namespace thalweg::model {

/// The options that builders share.
core::Option activation_option();
core::Option norm_option();

ActivationKind activation_kind(const core::Value& option);
/// Appends what `norm` says (`none`, `batch`, `layer`) and returns the value to go on from.
int append_norm(GraphBuilder& builder, const std::string& norm, const std::string& name, int from);

/// Of convolutional networks, which may have group norms, too: `norm`, `groups`, `width`.
core::Option image_norm_option(const char* fallback);
core::Option groups_option();
core::Option width_option();

/// What `norm` and `groups` say.
struct ImageNorm {
    std::string kind;
    std::int64_t groups = 1;

    explicit ImageNorm(const core::Value& options);
    bool none() const { return kind == "none"; }
    /// Appends it and returns the value to go on from. A layer norm is over the channels at each position.
    int append(GraphBuilder& builder, const std::string& name, int from) const;
};

/// So many channels times the option `width`, to the nearest, at least 1.
std::int64_t scaled(std::int64_t channels, const core::Value& options);

/// Appends a square convolution that starts as He et al. (2015) propose: normal weights of variance 2 / fan, the fan
/// counted over the outputs that a weight's input reaches; biases 0.
int append_conv(GraphBuilder& builder, const std::string& name, int from, std::int64_t out,
                std::int64_t kernel, std::int64_t stride, std::int64_t padding, bool bias,
                std::int64_t groups = 1);

/// Appends a linear layer that starts with normal weights of this deviation and biases 0.
int append_linear(GraphBuilder& builder, const std::string& name, int from, std::int64_t out,
                  double deviation);

/// Throw unless samples are images, or windows of symbols; `model` is the builder's name.
void require_images(const core::Value& options, const Sizes& input_shape, const std::string& model);
void require_symbols(const core::Value& options, const Sizes& input_shape, const std::string& model);

}  // namespace thalweg::model
