// Operations on vectors and on anything element by element.
#include <cmath>

#include "operation_cases.hpp"

namespace thalweg::model::test {

namespace {

using Reference = std::function<at::Tensor(const at::Tensor&)>;

OperationCase activation(const std::string& name, ActivationKind kind, double first, double second,
                         const Reference& reference) {
    return {name,
            {3, 4},
            [=](GraphBuilder& b, int x) { b.activation(x, kind, first, second); },
            [=](const Given& given) { return reference(given.x); }};
}

void append_activations(std::vector<OperationCase>& all) {
    using Kind = ActivationKind;
    const auto hard_sigmoid = [](const at::Tensor& x) { return (x / 6 + 0.5).clamp(0, 1); };
    all.push_back(activation("relu", Kind::relu, 0, 0, [](const auto& x) { return x.clamp_min(0); }));
    all.push_back(
        activation("tanh", Kind::tanh, 0, 0, [](const auto& x) { return 1 - 2 / (1 + (2 * x).exp()); }));
    all.push_back(activation("gelu", Kind::gelu, 0, 0,
                             [](const auto& x) { return x * 0.5 * (1 + (x / std::sqrt(2.0)).erf()); }));
    all.push_back(activation("gelu_tanh", Kind::gelu_tanh, 0, 0, [](const auto& x) {
        return x * 0.5 * (1 + (std::sqrt(2 / M_PI) * (x + 0.044715 * x.pow(3))).tanh());
    }));
    all.push_back(activation("leaky_relu", Kind::leaky_relu, 0.2, 0,
                             [](const auto& x) { return at::where(x > 0, x, 0.2 * x); }));
    all.push_back(activation("relu6", Kind::relu6, 0, 0, [](const auto& x) { return x.clamp(0, 6); }));
    all.push_back(activation("elu", Kind::elu, 0.7, 0,
                             [](const auto& x) { return at::where(x > 0, x, 0.7 * (x.exp() - 1)); }));
    all.push_back(activation("silu", Kind::silu, 0, 0, [](const auto& x) { return x / (1 + (-x).exp()); }));
    all.push_back(
        activation("sigmoid", Kind::sigmoid, 0, 0, [](const auto& x) { return 1 / (1 + (-x).exp()); }));
    all.push_back(
        activation("hard_swish", Kind::hard_swish, 0, 0, [=](const auto& x) { return x * hard_sigmoid(x); }));
    all.push_back(activation("hard_sigmoid", Kind::hard_sigmoid, 0, 0, hard_sigmoid));
    all.push_back(activation("hard_tanh", Kind::hard_tanh, -0.5, 0.8,
                             [](const auto& x) { return x.clamp(-0.5, 0.8); }));
    all.push_back(
        activation("softplus", Kind::softplus, 0, 0, [](const auto& x) { return (1 + x.exp()).log(); }));
}

/// Two operands out of one input: the first three of six channels, and the mean of the others over axis 2.
int first(GraphBuilder& b, int x) {
    return b.slice(x, 1, 0, 3);
}
int second(GraphBuilder& b, int x) {
    return b.append("", Reduce{{2}, true, true}, {b.slice(x, 1, 3, 6)});
}
at::Tensor first(const at::Tensor& x) {
    return x.narrow(1, 0, 3);
}
at::Tensor second(const at::Tensor& x) {
    return x.narrow(1, 3, 3).mean(2, true);
}

void append_arithmetic(std::vector<OperationCase>& all) {
    all.push_back({"add_broadcast",
                   {6, 4},
                   [](GraphBuilder& b, int x) {
                       b.append("", Add{-0.5}, {first(b, x), second(b, x)});
                   },
                   [](const Given& g) { return first(g.x) - 0.5 * second(g.x); }});
    all.push_back({"multiply_broadcast",
                   {6, 4},
                   [](GraphBuilder& b, int x) { b.multiply(second(b, x), first(b, x)); },
                   [](const Given& g) { return first(g.x) * second(g.x); }});
    all.push_back({"divide_broadcast",
                   {6, 4},
                   [](GraphBuilder& b, int x) {
                       const int below = b.append("", Affine{0.1, 2.0}, {second(b, x)});
                       b.append("", Divide{}, {first(b, x), below});
                   },
                   [](const Given& g) { return first(g.x) / (0.1 * second(g.x) + 2.0); }});
    all.push_back({"affine",
                   {5},
                   [](GraphBuilder& b, int x) {
                       b.append("", Affine{-3, 0.25}, {x});
                   },
                   [](const Given& g) { return -3 * g.x + 0.25; }});
    all.push_back({"affine_factor",
                   {5},
                   [](GraphBuilder& b, int x) {
                       b.append("", Affine{1.5, 0}, {x});
                   },
                   [](const Given& g) { return g.x + 0.5 * g.x; }});
    all.push_back({"multiply_by_a_parameter",
                   {3, 4},
                   [](GraphBuilder& b, int x) {
                       b.multiply(x, b.parameter("gate", {4}, {1, 4}, {Initial::Kind::normal, 1}));
                   },
                   [](const Given& g) { return g.x * g.entry("gate"); }});
    all.push_back({"add_a_constant",
                   {3, 4},
                   [](GraphBuilder& b, int x) {
                       const auto index = b.constant(at::arange(12, at::kDouble));
                       b.add(x, b.append("", Constant{index, {3, 4}}, {}));
                   },
                   [](const Given& g) {
                       return g.x + at::arange(12, at::kLong).view({1, 3, 4}).to(g.x.scalar_type());
                   }});
}

void append_reductions(std::vector<OperationCase>& all) {
    all.push_back({"softmax",
                   {3, 4},
                   [](GraphBuilder& b, int x) {
                       b.append("", Softmax{1, false}, {x});
                   },
                   [](const Given& g) { return g.x.exp() / g.x.exp().sum(1, true); }});
    all.push_back({"log_softmax",
                   {3, 4},
                   [](GraphBuilder& b, int x) {
                       b.append("", Softmax{2, true}, {x});
                   },
                   [](const Given& g) { return g.x - g.x.exp().sum(2, true).log(); }});
    all.push_back({"mean",
                   {3, 4, 2},
                   [](GraphBuilder& b, int x) {
                       b.mean(x, {2, 3});
                   },
                   [](const Given& g) { return g.x.flatten(2).sum(2) / 8; }});
    all.push_back({"sum_kept",
                   {3, 4},
                   [](GraphBuilder& b, int x) {
                       b.append("", Reduce{{1}, true, false}, {x});
                   },
                   [](const Given& g) {
                       return (g.x.select(1, 0) + g.x.select(1, 1) + g.x.select(1, 2)).unsqueeze(1);
                   }});
}

void append_moves(std::vector<OperationCase>& all) {
    all.push_back({"flatten",
                   {2, 3, 4},
                   [](GraphBuilder& b, int x) { b.flatten(x); },
                   [](const Given& g) {
                       return g.x.reshape({-1, 24});
                   }});
    all.push_back({"reshape",
                   {2, 6},
                   [](GraphBuilder& b, int x) {
                       b.reshape(x, {3, 4});
                   },
                   [](const Given& g) {
                       return g.x.flatten(1).unflatten(1, {3, 4});
                   }});
    all.push_back({"permute",
                   {2, 3, 4},
                   [](GraphBuilder& b, int x) {
                       b.permute(x, {0, 3, 1, 2});
                   },
                   [](const Given& g) { return g.x.movedim(3, 1); }});
    all.push_back({"expand",
                   {1, 4},
                   [](GraphBuilder& b, int x) {
                       b.append("", Expand{{3, 4}}, {x});
                   },
                   [](const Given& g) {
                       return at::cat({g.x, g.x, g.x}, 1);
                   }});
    all.push_back({"cat_with_a_parameter",
                   {2, 3},
                   [](GraphBuilder& b, int x) {
                       b.cat({b.parameter("token", {1, 1, 3}, {1, 3}, {Initial::Kind::normal, 1}), x, x}, 1);
                   },
                   [](const Given& g) {
                       const auto token = at::ones({g.x.size(0), 1, 1}, g.x.options()) * g.entry("token");
                       return at::cat({token, g.x, g.x}, 1);
                   }});
    all.push_back({"slice_with_step",
                   {2, 7},
                   [](GraphBuilder& b, int x) { b.slice(x, 2, 1, 7, 3); },
                   [](const Given& g) {
                       return at::stack({g.x.select(2, 1), g.x.select(2, 4)}, 2);
                   }});
    all.push_back({"pad",
                   {2, 4},
                   [](GraphBuilder& b, int x) {
                       b.append("", Pad{{1, 2, 0, 1}, 0.5}, {x});
                   },
                   [](const Given& g) {
                       auto out = at::full({g.x.size(0), 3, 7}, 0.5, g.x.options());
                       out.narrow(1, 0, 2).narrow(2, 1, 4).copy_(g.x);
                       return out;
                   }});
    all.push_back({"pad_that_cuts",
                   {2, 4},
                   [](GraphBuilder& b, int x) {
                       b.append("", Pad{{-1, 1}, 0}, {x});
                   },
                   [](const Given& g) {
                       return at::cat({g.x.narrow(2, 1, 3), at::zeros_like(g.x.narrow(2, 0, 1))}, 2);
                   }});
}

at::Tensor normalised(const at::Tensor& x, const std::vector<std::int64_t>& axes, double epsilon) {
    const auto centred = x - x.mean(axes, true);
    return centred / (centred.pow(2).mean(axes, true) + epsilon).sqrt();
}

void append_layers(std::vector<OperationCase>& all) {
    const auto linear = [](const Given& g) {
        const auto products = g.x.unsqueeze(-2) * g.entry("fc.weight");  // [N, …, out, in]
        return products.sum(-1) + g.entry("fc.bias");
    };
    all.push_back({"linear", {5}, [](GraphBuilder& b, int x) { b.linear("fc", x, 3); }, linear});
    all.push_back(
        {"linear_over_the_last_axis", {2, 5}, [](GraphBuilder& b, int x) { b.linear("fc", x, 3); }, linear});
    all.push_back({"linear_without_bias",
                   {5},
                   [](GraphBuilder& b, int x) { b.linear("fc", x, 3, false); },
                   [](const Given& g) { return (g.x.unsqueeze(-2) * g.entry("fc.weight")).sum(-1); }});
    for (const std::int64_t slopes : {1, 3}) {
        all.push_back({"prelu_" + std::to_string(slopes),
                       {3, 4},
                       [=](GraphBuilder& b, int x) {
                           b.append("act", PRelu{weight(b, "act.weight", {slopes}, Role::slope)}, {x});
                       },
                       [](const Given& g) {
                           return at::where(g.x > 0, g.x, g.x * g.entry("act.weight").view({1, -1, 1}));
                       }});
    }
    all.push_back({"layer_norm",
                   {3, 4},
                   [](GraphBuilder& b, int x) { b.layer_norm("ln", x, 1e-3); },
                   [](const Given& g) {
                       return normalised(g.x, {2}, 1e-3) * g.entry("ln.weight") + g.entry("ln.bias");
                   }});
    all.push_back({"layer_norm_over_two_axes",
                   {2, 3, 4},
                   [](GraphBuilder& b, int x) {
                       LayerNorm norm;
                       norm.axes = 2;
                       norm.weight = weight(b, "ln.weight", {3, 4});
                       b.append("ln", norm, {x});
                   },
                   [](const Given& g) {
                       return normalised(g.x, {2, 3}, 1e-5) * g.entry("ln.weight");
                   }});
    all.push_back({"batch_norm_of_vectors",
                   {4},
                   [](GraphBuilder& b, int x) { b.batch_norm("bn", x); },
                   [](const Given& g) {
                       return normalised(g.x, {0}, 1e-5) * g.entry("bn.weight") + g.entry("bn.bias");
                   },
                   Mode::train});
}

}  // namespace

std::vector<OperationCase> dense_cases() {
    std::vector<OperationCase> all;
    append_activations(all);
    append_arithmetic(all);
    append_reductions(all);
    append_moves(all);
    append_layers(all);
    return all;
}

}  // namespace thalweg::model::test
