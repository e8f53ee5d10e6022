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

}  // namespace thalweg::model
