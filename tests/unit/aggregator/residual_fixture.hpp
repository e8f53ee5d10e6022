#pragma once

#include <functional>
#include <string>
#include <vector>

#include "unit/aggregator/fusion_fixture.hpp"

namespace thalweg::testing {

using aggregator::RepairOptions;
using model::ActivationKind;
using model::GraphBuilder;

inline model::ModelGraph built(GraphBuilder builder) {
    return std::move(builder).build(core::Value::map({{"kind", core::Value::of("test")}}));
}

/// A block with an identity shortcut and one with a projection. `norm`: none, batch, layer or instance.
inline model::ModelGraph residual_net(const std::string& norm) {
    GraphBuilder b({2, 6, 6});
    const auto conv = [&](const std::string& name, int from, std::int64_t out, std::int64_t kernel,
                          std::int64_t stride) {
        const int value =
            b.conv2d(name, from, out, {kernel, kernel}, {stride, stride}, {kernel / 2, kernel / 2});
        if (norm == "batch") return b.batch_norm(name + ".norm", value);
        if (norm == "layer") return b.layer_norm(name + ".norm", value);
        if (norm == "instance") return b.group_norm(name + ".norm", value, out);
        return value;
    };
    const auto relu = [&](int value) { return b.activation(value, ActivationKind::relu); };
    int x = relu(conv("stem", 0, 5, 3, 1));
    x = relu(b.add(conv("a.2", relu(conv("a.1", x, 5, 3, 1)), 5, 3, 1), x));
    x = relu(b.add(conv("b.2", relu(conv("b.1", x, 7, 3, 2)), 7, 3, 1), conv("b.down", x, 7, 1, 2)));
    b.linear("fc", b.flatten(b.adaptive_avg_pool2d(x, {1, 1})), 4);
    return built(std::move(b));
}

/// Two pre-norm sums after an embedding with positions, which is no residual sum.
inline model::ModelGraph transformer() {
    GraphBuilder b({4, 6});
    int x = b.linear("embed", 0, 8);
    x = b.add(x, b.parameter("positions", {4, 8}, {4, 8}, {model::Initial::Kind::normal, 1}));
    int y = b.layer_norm("ln1", x);
    y = b.attention(b.linear("q", y, 8), b.linear("k", y, 8), b.linear("v", y, 8), 2, false);
    x = b.add(x, b.dropout(b.linear("proj", y, 8), 0.1));
    y = b.activation(b.linear("up", b.layer_norm("ln2", x), 12), ActivationKind::gelu);
    x = b.add(x, b.linear("down", y, 8));
    b.linear("head", b.mean(b.layer_norm("ln", x), {1}), 4);
    return built(std::move(b));
}

/// relu(linear) plus whatever `branch` makes of that and of the input; then the classifier.
inline model::ModelGraph one_sum(const std::function<int(GraphBuilder&, int shortcut)>& branch) {
    GraphBuilder b({6});
    const int x = b.activation(b.linear("stem", 0, 9), ActivationKind::relu);
    b.linear("fc", b.activation(b.add(x, branch(b, x)), ActivationKind::relu), 4);
    return built(std::move(b));
}

inline Round round_of(model::ModelGraph graph, int clients) {
    Round round = make_round("mlp", clients);
    round.graph = std::move(graph);
    round.symmetries = symmetry::derive(round.graph);
    std::int64_t width = 1;
    for (const auto extent : round.graph.input_shape()) width *= extent;
    for (std::size_t k = 0; k < round.updates.size(); ++k) {
        round.updates[k].parameters = random_model(round.graph, 300 + k);
        round.client_samples[k] = random_samples(round.updates[k].samples, width, 4, 400 + k);
    }
    round.holdout = random_samples(700, width, 4, 500);
    round.global = {};
    return round;
}

inline std::vector<std::size_t> sums_of(const model::ModelGraph& graph) {
    const auto all =
        aggregator::repaired_operations(graph, RepairOptions::from("within", "std", "repair", false, true));
    std::vector<std::size_t> sums;
    for (const auto i : all) {
        if (std::holds_alternative<model::Add>(graph.operations[i].kind)) sums.push_back(i);
    }
    return sums;
}

/// [channels, values] of a value, with the channels where the graphs above have them.
inline at::Tensor values_at(const Round& round, const model::Parameters& parameters, int value,
                            const at::Tensor& x) {
    const at::Tensor out = model::forward(round.graph, model::views(parameters), x, model::Mode::evaluate, {},
                                          static_cast<std::size_t>(value - 1))
                               .to(at::kDouble);
    return out.movedim(round.graph.input_shape().size() == 3 ? 1 : -1, 0).flatten(1);
}

struct Moments {
    at::Tensor mean, deviation;
};

inline Moments wanted_at(const Round& round, int value, const std::function<at::Tensor(std::size_t)>& x) {
    const auto w = aggregator::weights(members_of(round, 1), aggregator::Weighting::samples);
    Moments wanted;
    for (std::size_t k = 0; k < w.size(); ++k) {
        const auto out = values_at(round, round.updates[k].parameters, value, x(k));
        const auto mean = w[k] * out.mean(1), deviation = w[k] * out.var(1, false).sqrt();
        wanted =
            k == 0 ? Moments{mean, deviation} : Moments{wanted.mean + mean, wanted.deviation + deviation};
    }
    return wanted;
}

/// How many channels have a deviation that is off by more than 2%, or a mean by more than 2% of a deviation.
struct Off {
    std::int64_t deviations, means;
};
inline Off off(const at::Tensor& out, const Moments& wanted) {
    const auto deviation = out.var(1, false).sqrt();
    return {((deviation / wanted.deviation - 1).abs() > 0.02).sum().item<std::int64_t>(),
            ((out.mean(1) - wanted.mean).abs() > 0.02 * wanted.deviation).sum().item<std::int64_t>()};
}

struct Case {
    const char* name;
    model::ModelGraph graph;
    std::size_t sums;
};
inline std::vector<Case> cases() {
    return {{"none", residual_net("none"), 2},
            {"batch", residual_net("batch"), 2},
            {"layer", residual_net("layer"), 2},
            {"instance", residual_net("instance"), 2},
            {"transformer", transformer(), 2}};
}

}  // namespace thalweg::testing
