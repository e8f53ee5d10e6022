#include "choices.hpp"

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

}  // namespace thalweg::model
