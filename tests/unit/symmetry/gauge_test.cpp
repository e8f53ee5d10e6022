// Signs and scales: which channels may be multiplied, and that the factors do what they say.
#include "thalweg/symmetry/gauge.hpp"

#include <gtest/gtest.h>
#include <torch/types.h>

#include <functional>
#include <stdexcept>

#include "thalweg/model/interpreter.hpp"

namespace thalweg::symmetry::gauge_test {
namespace {

using model::ActivationKind;
using model::GraphBuilder;

struct Case {
    std::string name;
    std::vector<std::int64_t> input;
    std::function<int(GraphBuilder&)> build;
    std::string signs, scales;  ///< the groups: name and channels
    std::string reason;         ///< one that is given for a fixed channel; empty: not looked at
};

void PrintTo(const Case& c, std::ostream* out) {
    *out << c.name;
}

int relu(GraphBuilder& b, int x) {
    return b.activation(x, ActivationKind::relu);
}
int tanh(GraphBuilder& b, int x) {
    return b.activation(x, ActivationKind::tanh);
}

std::vector<Case> cases() {
    const std::vector<std::int64_t> image{2, 8, 8};
    return {
        {"tanh",
         {7},
         [](GraphBuilder& b) { return tanh(b, b.linear("a", tanh(b, b.linear("b", 0, 5)), 4)); },
         "b 5, a 4",
         "",
         "tanh"},
        {"relu",
         {7},
         [](GraphBuilder& b) { return relu(b, b.linear("a", relu(b, b.linear("b", 0, 5)), 4)); },
         "",
         "b 5, a 4",
         "relu"},
        {"gelu",
         {7},
         [](GraphBuilder& b) { return b.activation(b.linear("a", 0, 5), ActivationKind::gelu); },
         "",
         "",
         "gelu"},
        {"no activation: both", {7}, [](GraphBuilder& b) { return b.linear("a", 0, 5); }, "a 5", "a 5", ""},
        {"max pool breaks signs, not scales", image,
         [](GraphBuilder& b) {
             return b.flatten(b.max_pool2d(b.conv2d("a", 0, 3, {3, 3}), {2, 2}, {2, 2}));
         },
         "", "a 3", "max pool"},
        {"mean pool breaks neither", image,
         [](GraphBuilder& b) {
             return b.flatten(b.avg_pool2d(b.conv2d("a", 0, 3, {3, 3}), {2, 2}, {2, 2}));
         },
         "a 3", "a 3", ""},
        {"batch norm: signs pass it, scales begin after it", image,
         [](GraphBuilder& b) {
             return b.flatten(b.batch_norm("n", b.conv2d("a", 0, 3, {3, 3})));
         },
         "a 3, n 3", "n 3", "the epsilon of a norm"},
        {"layer norm: both begin after it",
         {7},
         [](GraphBuilder& b) { return b.layer_norm("n", b.linear("a", 0, 6)); },
         "n 6",
         "n 6",
         "a norm over channels"},
        {"residual of relu: one factor for the stream",
         {7},
         [](GraphBuilder& b) {
             const int x = relu(b, b.linear("a", 0, 6));
             return relu(b, b.add(x, b.linear("c", relu(b, b.linear("b", x, 5)), 6)));
         },
         "",
         "a 6, b 5",
         ""},
        {"a sigmoid gate",
         {7},
         [](GraphBuilder& b) {
             return b.multiply(b.linear("a", 0, 6),
                               b.activation(b.linear("g", 0, 6), ActivationKind::sigmoid));
         },
         "a 6",
         "a 6",
         "sigmoid"},
        {"attention: its values",
         {5, 4},
         [](GraphBuilder& b) {
             const int y =
                 b.attention(b.linear("q", 0, 6), b.linear("k", 0, 6), b.linear("v", 0, 6), 2, false);
             return b.mean(y, {1});
         },
         "v 6",
         "v 6",
         "softmax"},
        {"LSTM: signs of its state",
         {5, 4},
         [](GraphBuilder& b) { return b.reshape(b.slice(b.lstm("l", 0, 6), 1, 4, 5), {6}); },
         "l_l0 6",
         "",
         ""},
        {"positional parameters join the stream",
         {5, 4},
         [](GraphBuilder& b) {
             const int p = b.parameter("p", {1, 5, 6}, {5, 6}, {model::Initial::Kind::normal, 1});
             return b.mean(b.add(b.linear("a", 0, 6), p), {1});
         },
         "p 6",
         "p 6",
         ""},
    };
}

model::ModelGraph graph_of(const Case& tested) {
    GraphBuilder builder(tested.input);
    builder.linear("classifier", tested.build(builder), 3);
    return std::move(builder).build(core::Value::map());
}

std::string text_of(const Gauge& gauge) {
    std::string text;
    for (const auto& group : gauge.groups)
        text += (text.empty() ? "" : ", ") + group.name + " " + std::to_string(group.size);
    return text;
}

class GaugeRules : public ::testing::TestWithParam<Case> {};

TEST_P(GaugeRules, FindTheChannelsThatMayBeMultiplied) {
    const auto graph = graph_of(GetParam());
    const Gauge signs = derive_gauge(graph, Gauge::Kind::sign),
                scales = derive_gauge(graph, Gauge::Kind::scale);
    EXPECT_EQ(text_of(signs), GetParam().signs);
    EXPECT_EQ(text_of(scales), GetParam().scales);
    std::string reasons;
    for (const auto* gauge : {&signs, &scales}) {
        for (const auto& fixed : gauge->fixed) reasons += fixed.reason + "\n";
    }
    EXPECT_NE(reasons.find(GetParam().reason), std::string::npos) << reasons;
    core::Random random(7, "gauge");
    for (const auto* gauge : {&signs, &scales}) {
        const Proof proof = verify(graph, *gauge, random, 5);
        EXPECT_LT(proof.max_error, 1e-12);
        if (gauge->channels > 0) {
            EXPECT_GT(proof.control, 1e-4);
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Rules, GaugeRules, ::testing::ValuesIn(cases()), [](const auto& info) {
    std::string name = info.param.name;
    for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '_';
    return name;
});

/// In training mode, too, where a batch norm sees the batch: flips are exact, and running statistics follow.
TEST(Gauge, SignsBeforeABatchNormHoldInTraining) {
    GraphBuilder builder({2, 6, 6});
    const int x = tanh(builder, builder.batch_norm("n", builder.conv2d("a", 0, 3, {3, 3})));
    builder.linear("classifier", builder.flatten(x), 3);
    const auto graph = std::move(builder).build(core::Value::map());
    const Gauge gauge = derive_gauge(graph, Gauge::Kind::sign);
    core::Random random(3, "gauge");
    const auto a = random_parameters(graph, random);
    const auto b = multiply(a, gauge, random_factors(gauge, random));
    EXPECT_FALSE(at::equal(a.values, b.values));
    const auto x0 = random_inputs(graph, 4, random);
    const at::NoGradGuard no_grad;
    auto views_a = model::views(a), views_b = model::views(b);
    const auto before = model::forward(graph, views_a, x0, model::Mode::train);
    const auto after = model::forward(graph, views_b, x0, model::Mode::train);
    EXPECT_LT((before - after).abs().max().item<double>(), 1e-12);
    // The statistics that the step left behind differ by the factors alone.
    const auto still = model::forward(graph, views_a, x0, model::Mode::evaluate) -
                       model::forward(graph, views_b, x0, model::Mode::evaluate);
    EXPECT_LT(still.abs().max().item<double>(), 1e-12);
}

TEST(Gauge, RefusesFactorsThatAreNone) {
    GraphBuilder builder({7});
    builder.linear("classifier", relu(builder, builder.linear("a", 0, 2)), 3);
    const auto graph = std::move(builder).build(core::Value::map());
    core::Random random(3, "gauge");
    const auto parameters = random_parameters(graph, random);
    const Gauge scales = derive_gauge(graph, Gauge::Kind::scale);
    EXPECT_THROW(multiply(parameters, scales, {1.0, -2.0}), std::logic_error);
    EXPECT_THROW(multiply(parameters, scales, {1.0}), std::logic_error);
    EXPECT_NO_THROW(multiply(parameters, scales, {0.5, 2.0}));
}

/// A shared weight that is made by one and read by another: a sign is its own inverse, a scale is not.
TEST(Gauge, SharedWeights) {
    GraphBuilder builder({6});
    model::Embedding embedding{
        builder.entry("embedding.weight", {9, 8}, model::Role::embedding, {model::Initial::Kind::normal, 1})};
    const int x = builder.append("embedding", embedding, {0});
    model::Linear out;
    out.weight = embedding.weight;
    builder.append("out", out, {builder.mean(x, {1})});
    const auto graph = std::move(builder).build(core::Value::map());
    const Gauge signs = derive_gauge(graph, Gauge::Kind::sign),
                scales = derive_gauge(graph, Gauge::Kind::scale);
    EXPECT_EQ(text_of(signs), "embedding 8");
    EXPECT_EQ(text_of(scales), "");
    core::Random random(3, "gauge");
    EXPECT_LT(verify(graph, signs, random).max_error, 1e-12);
}

}  // namespace
}  // namespace thalweg::symmetry::gauge_test
