#include "thalweg/model/operations.hpp"

#include <array>
#include <cstdio>
#include <stdexcept>

namespace thalweg::model {

namespace {

/// ` stride 1x1 groups 1`: every option, entries left out.
struct OptionsText {
    std::string text;
    void entry(const char*, int) {}
    void counter(const char*, int) {}
    void value(const char* name, std::int64_t number) { add(name, std::to_string(number)); }
    void value(const char* name, bool yes) { add(name, yes ? "yes" : "no"); }
    void value(const char* name, double number) {
        std::array<char, 32> digits{};
        std::snprintf(digits.data(), digits.size(), "%.9g", number);
        add(name, digits.data());
    }
    void value(const char* name, const Sizes& sizes) {
        std::string joined;
        for (const auto size : sizes) {
            joined += joined.empty() ? "" : "x";
            joined += std::to_string(size);
        }
        add(name, joined);
    }
    void value(const char*, ActivationKind) {}  // the kind's name says it
    void add(const char* name, const std::string& value) {
        text += " ";
        text += name;
        text += " ";
        text += value;
    }
};

}  // namespace

std::string activation_name(ActivationKind kind) {
    switch (kind) {
        case ActivationKind::relu:
            return "relu";
        case ActivationKind::tanh:
            return "tanh";
        case ActivationKind::gelu:
            return "gelu";
        case ActivationKind::gelu_tanh:
            return "gelu_tanh";
        case ActivationKind::leaky_relu:
            return "leaky_relu";
        case ActivationKind::relu6:
            return "relu6";
        case ActivationKind::elu:
            return "elu";
        case ActivationKind::silu:
            return "silu";
        case ActivationKind::sigmoid:
            return "sigmoid";
        case ActivationKind::hard_swish:
            return "hard_swish";
        case ActivationKind::hard_sigmoid:
            return "hard_sigmoid";
        case ActivationKind::hard_tanh:
            return "hard_tanh";
        case ActivationKind::softplus:
            return "softplus";
    }
    throw std::logic_error("activation_name: not an activation");
}

std::string kind_name(const OperationKind& kind) {
    if (const auto* activation = std::get_if<Activation>(&kind)) return activation_name(activation->kind);
    return std::visit([](const auto& operation) { return std::string(operation.name); }, kind);
}

std::string options_text(const OperationKind& kind) {
    OptionsText visit;
    std::visit([&](const auto& operation) { operation.fields(operation, visit); }, kind);
    return visit.text;
}

}  // namespace thalweg::model
