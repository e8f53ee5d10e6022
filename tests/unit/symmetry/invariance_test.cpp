// Every rule of the derivation, proved: random elements of all groups leave the function alone, and the channels that
// should move do.
#include <gtest/gtest.h>
#include <torch/types.h>

#include <cmath>

#include "thalweg/core/error.hpp"
#include "thalweg/symmetry/gauge.hpp"
#include "thalweg/symmetry/symmetry.hpp"

namespace thalweg::symmetry::invariance_test {
namespace {

using model::ActivationKind;
using model::GraphBuilder;

struct Case {
    std::string name;
    std::vector<std::int64_t> input;
    std::function<int(GraphBuilder&)> build;  ///< returns the value the classifier reads: [features]
    std::int64_t hidden, covered;             ///< channels
    std::string groups;                       ///< sizes, `x` between blocks and what is inside
};

void PrintTo(const Case& c, std::ostream* out) {
    *out << c.name;
}

int relu(GraphBuilder& b, int x) {
    return b.activation(x, ActivationKind::relu);
}
int flat(GraphBuilder& b, int x) {
    return b.flatten(x);
}

/// A convolution with options that conv2d has not.
int conv(GraphBuilder& b, const std::string& name, int from, model::Sizes weight,
         model::Convolution options) {
    const auto out = options.transposed ? weight[1] * options.groups : weight[0];
    options.weight =
        b.entry(name + ".weight", weight, model::Role::weight, {model::Initial::Kind::uniform, 0.5});
    options.bias = b.entry(name + ".bias", {out}, model::Role::bias, {model::Initial::Kind::uniform, 0.5});
    return b.append(name, options, {from});
}

std::vector<Case> cases() {
    const std::vector<std::int64_t> image{3, 8, 8};
    return {
        {"residual", image,
         [](GraphBuilder& b) {
             const int x =
                 relu(b, b.batch_norm("bn0", b.conv2d("conv0", 0, 6, {3, 3}, {1, 1}, {1, 1}, false)));
             int y = relu(b, b.batch_norm("bn1", b.conv2d("conv1", x, 5, {3, 3}, {1, 1}, {1, 1}, false)));
             y = b.batch_norm("bn2", b.conv2d("conv2", y, 6, {3, 3}, {1, 1}, {1, 1}, false));
             return flat(b, b.adaptive_avg_pool2d(relu(b, b.add(x, y)), {1, 1}));
         },
         11, 11, "6 5"},
        {"depthwise", image,
         [](GraphBuilder& b) {
             int x = relu(b, b.conv2d("conv0", 0, 6, {3, 3}));
             x = relu(b, b.conv2d("conv1", x, 6, {3, 3}, {1, 1}, {0, 0}, true, 6));
             return flat(b, b.conv2d("conv2", x, 4, {1, 1}));
         },
         10, 10, "6 4"},
        {"depthwise with a multiplier", image,
         [](GraphBuilder& b) {
             int x = relu(b, b.conv2d("conv0", 0, 4, {3, 3}));
             x = relu(b, b.conv2d("conv1", x, 12, {3, 3}, {1, 1}, {0, 0}, true, 4));
             return flat(b, b.conv2d("conv2", x, 5, {1, 1}));
         },
         21, 21, "4x1 4x3 5"},
        {"grouped convolution", image,
         [](GraphBuilder& b) {
             int x = relu(b, b.conv2d("conv0", 0, 8, {3, 3}));
             x = relu(b, b.conv2d("conv1", x, 12, {3, 3}, {1, 1}, {0, 0}, true, 4));
             return flat(b, b.conv2d("conv2", x, 5, {1, 1}));
         },
         25, 25, "4x2 4x3 5"},
        {"group norm", image,
         [](GraphBuilder& b) {
             int x = relu(b, b.group_norm("norm0", b.conv2d("conv0", 0, 12, {3, 3}), 3));
             return flat(b, b.conv2d("conv1", x, 5, {1, 1}));
         },
         17, 17, "3x4 5"},
        {"group norm and grouped convolution that nest badly", image,
         [](GraphBuilder& b) {
             int x = relu(b, b.group_norm("norm0", b.conv2d("conv0", 0, 12, {3, 3}), 2));
             x = relu(b, b.conv2d("conv1", x, 6, {3, 3}, {1, 1}, {0, 0}, true, 3));
             return flat(b, b.conv2d("conv2", x, 5, {1, 1}));
         },
         23, 5, "5"},
        {"instance norm", image,
         [](GraphBuilder& b) {
             return flat(b, relu(b, b.group_norm("norm0", b.conv2d("conv0", 0, 6, {3, 3}), 6)));
         },
         6, 6, "6"},
        {"cat", image,
         [](GraphBuilder& b) {
             const int x = relu(b, b.conv2d("conv0", 0, 4, {3, 3}, {1, 1}, {1, 1}));
             const int y = relu(b, b.conv2d("conv1", x, 5, {3, 3}, {1, 1}, {1, 1}));
             const int z = b.batch_norm("bn", b.cat({x, y}, 1));
             return flat(b, relu(b, b.conv2d("conv2", z, 6, {3, 3})));
         },
         15, 15, "4 5 6"},
        {"squeeze and excite", image,
         [](GraphBuilder& b) {
             const int x = relu(b, b.conv2d("conv0", 0, 6, {3, 3}));
             int gate = relu(b, b.linear("fc1", b.mean(x, {2, 3}), 3));
             gate = b.activation(b.linear("fc2", gate, 6), ActivationKind::sigmoid);
             return flat(b, b.multiply(x, b.reshape(gate, {6, 1, 1})));
         },
         9, 9, "6 3"},
        {"zero-padded shortcut", image,
         [](GraphBuilder& b) {
             const int x = relu(b, b.conv2d("conv0", 0, 6, {3, 3}, {1, 1}, {1, 1}));
             const int y = b.conv2d("conv1", x, 10, {3, 3}, {2, 2}, {1, 1});
             int shortcut = b.slice(b.slice(x, 2, 0, 8, 2), 3, 0, 8, 2);
             shortcut = b.pad(shortcut, {0, 0, 0, 0, 2, 2});
             return flat(b, b.adaptive_avg_pool2d(relu(b, b.add(shortcut, y)), {1, 1}));
         },
         10, 10, "6 4"},
        {"transposed convolution", image,
         [](GraphBuilder& b) {
             const int x = relu(b, b.conv2d("conv0", 0, 6, {3, 3}));
             model::Convolution options;
             options.stride = {2, 2}, options.padding = {0, 0}, options.dilation = {1, 1},
             options.output_padding = {1, 0};
             options.transposed = true;
             return flat(b, relu(b, conv(b, "up", x, {6, 4, 2, 2}, options)));
         },
         10, 10, "6 4"},
        {"grouped transposed convolution", image,
         [](GraphBuilder& b) {
             const int x = relu(b, b.conv2d("conv0", 0, 6, {3, 3}));
             model::Convolution options;
             options.stride = {2, 2}, options.padding = {0, 0}, options.dilation = {1, 1},
             options.output_padding = {1, 0};
             options.transposed = true;
             options.groups = 3;
             return flat(b, relu(b, conv(b, "up", x, {6, 4, 2, 2}, options)));
         },
         18, 18, "3x2 3x4"},
        {"depthwise transposed convolution", image,
         [](GraphBuilder& b) {
             const int x = relu(b, b.conv2d("conv0", 0, 4, {3, 3}));
             model::Convolution options;
             options.stride = {1, 1}, options.padding = {0, 0}, options.dilation = {1, 1},
             options.output_padding = {0, 0};
             options.transposed = true;
             options.groups = 4;
             const int y = relu(b, conv(b, "same", x, {4, 1, 2, 2}, options));
             return flat(b, relu(b, conv(b, "twice", y, {4, 2, 2, 2}, options)));
         },
         12, 12, "4x1 4x2"},
        {"one-dimensional convolution",
         {3, 12},
         [](GraphBuilder& b) {
             model::Convolution options;
             options.stride = {2}, options.padding = {1}, options.dilation = {1},
             options.output_padding = {0};
             const int x = relu(b, conv(b, "conv0", 0, {6, 3, 3}, options));
             return flat(b, relu(b, conv(b, "conv1", x, {4, 6, 3}, options)));
         },
         10,
         10,
         "6 4"},
        {"a layer called twice",
         {7},
         [](GraphBuilder& b) {
             const int x = relu(b, b.linear("fc0", 0, 6));
             model::Linear shared;
             shared.weight =
                 b.entry("shared.weight", {6, 6}, model::Role::weight, {model::Initial::Kind::uniform, 0.4});
             shared.bias =
                 b.entry("shared.bias", {6}, model::Role::bias, {model::Initial::Kind::uniform, 0.4});
             const int once = relu(b, b.append("shared", shared, {x}));
             return relu(b, b.append("shared", shared, {once}));
         },
         6,
         6,
         "6"},
        {"chunk and gate",
         {7},
         [](GraphBuilder& b) {
             const int x = b.linear("fc0", 0, 12);
             const int gate = b.activation(b.slice(x, 1, 6, 12), ActivationKind::silu);
             return relu(b, b.linear("fc1", b.multiply(b.slice(x, 1, 0, 6), gate), 5));
         },
         11,
         11,
         "6 5"},
        {"PReLU and layer norm over images", image,
         [](GraphBuilder& b) {
             int x = b.layer_norm("ln", b.conv2d("conv0", 0, 6, {3, 3}));
             model::PRelu prelu{
                 b.entry("prelu.weight", {6}, model::Role::slope, {model::Initial::Kind::constant, 0.25})};
             return flat(b, b.append("prelu", prelu, {x}));
         },
         6, 6, "6"},
        {"channels last before the linear", image,
         [](GraphBuilder& b) {
             const int x = relu(b, b.conv2d("conv0", 0, 6, {3, 3}));
             return flat(b, b.permute(x, {0, 2, 3, 1}));
         },
         6, 6, "6"},
        {"attention",
         {5, 4},
         [](GraphBuilder& b) {
             const int x = b.linear("in", 0, 12);
             const int h = b.layer_norm("ln", x);
             const int y =
                 b.attention(b.linear("q", h, 12), b.linear("k", h, 12), b.linear("v", h, 12), 3, true);
             return b.mean(b.add(x, b.linear("o", y, 12)), {1});
         },
         36,
         36,
         "12 3x4 3x4"},
        {"attention with one projection",
         {5, 4},
         [](GraphBuilder& b) {
             const int x = b.linear("in", 0, 12);
             const int all = b.linear("qkv", x, 36);
             const int y = b.attention(b.slice(all, 2, 0, 12), b.slice(all, 2, 12, 24),
                                       b.slice(all, 2, 24, 36), 3, false);
             return b.mean(b.add(x, b.linear("o", y, 12)), {1});
         },
         36,
         36,
         "12 3x4 3x4"},
        {"attention written out",
         {5, 4},
         [](GraphBuilder& b) {
             const int x = b.linear("in", 0, 12);
             const auto heads = [&](const std::string& name) {
                 return b.permute(b.reshape(b.linear(name, x, 12), {5, 3, 4}), {0, 2, 1, 3});
             };
             const int q = heads("q"), k = b.permute(heads("k"), {0, 1, 3, 2}), v = heads("v");
             int scores = b.append("", model::Affine{0.5, 0}, {b.append("", model::MatMul{}, {q, k})});
             scores = b.append("", model::Softmax{3}, {scores});
             const int y = b.permute(b.append("", model::MatMul{}, {scores, v}), {0, 2, 1, 3});
             return b.mean(b.add(x, b.linear("o", b.reshape(y, {5, 12}), 12)), {1});
         },
         36,
         36,
         "12 3x4 3x4"},
        {"positions and a class token",
         {5, 4},
         [](GraphBuilder& b) {
             const int x = b.linear("in", 0, 12);
             const int token = b.parameter("token", {1, 1, 12}, {1, 12}, {model::Initial::Kind::normal, 1});
             const int positions =
                 b.parameter("positions", {1, 6, 12}, {6, 12}, {model::Initial::Kind::normal, 1});
             const int y = b.layer_norm("ln", b.add(b.cat({token, x}, 1), positions));
             return b.reshape(b.slice(y, 1, 0, 1), {12});
         },
         12,
         12,
         "12"},
        {"tied embedding",
         {6},
         [](GraphBuilder& b) {
             model::Embedding embedding{b.entry("embedding.weight", {9, 8}, model::Role::embedding,
                                                {model::Initial::Kind::normal, 1})};
             const int x = b.append("embedding", embedding, {0});
             const int y = b.add(x, b.linear("fc2", relu(b, b.linear("fc1", x, 10)), 8));
             model::Linear out;
             out.weight = embedding.weight;
             return b.append("out", out, {b.mean(y, {1})});
         },
         18,
         18,
         "8 10"},
        {"LSTM",
         {6},
         [](GraphBuilder& b) {
             const int x = b.lstm("lstm", b.lstm("lstm", b.embedding("embedding", 0, 9, 5), 7, 0), 6, 1);
             return b.reshape(b.slice(x, 1, 5, 6), {6});
         },
         18,
         18,
         "5 7 6"},
        {"halves with activations of their own",
         {7},
         [](GraphBuilder& b) {
             const int h = b.linear("fc0", 0, 8);
             const int y = b.activation(b.slice(h, 1, 4, 8), ActivationKind::tanh);
             return b.cat({relu(b, b.slice(h, 1, 0, 4)), y}, 1);
         },
         8,
         8,
         "4 4"},
        {"halves that go through the same",
         {7},
         [](GraphBuilder& b) {
             const int h = b.linear("fc0", 0, 8);
             return b.cat({relu(b, b.slice(h, 1, 0, 4)), relu(b, b.slice(h, 1, 4, 8))}, 1);
         },
         8,
         8,
         "4 4"},
        {"halves with pools of their own", image,
         [](GraphBuilder& b) {
             const int h = b.conv2d("conv0", 0, 8, {3, 3});
             const int most = b.max_pool2d(b.slice(h, 1, 0, 4), {6, 6}, {6, 6});
             return flat(b, b.cat({most, b.avg_pool2d(b.slice(h, 1, 4, 8), {6, 6}, {6, 6})}, 1));
         },
         8, 8, "4 4"},
        {"some channels shifted", image,
         [](GraphBuilder& b) {
             const int h = relu(b, b.conv2d("conv0", 0, 6, {3, 3}));
             const int shifted = b.pad(b.slice(b.slice(h, 1, 0, 2), 3, 0, 5), {1, 0});
             return flat(b, b.conv2d("conv1", b.cat({shifted, b.slice(h, 1, 2, 6)}, 1), 4, {3, 3}));
         },
         10, 10, "2 4 4"},
        {"a sum of some channels",
         {7},
         [](GraphBuilder& b) {
             const int h = b.linear("fc0", 0, 8);
             const int sum = b.append("", model::Reduce{{1}, true, false}, {b.slice(h, 1, 0, 3)});
             return b.add(relu(b, b.linear("fc1", h, 5)), sum);
         },
         13,
         13,
         "3 5 5"},
        {"gates of one channel each",
         {7},
         [](GraphBuilder& b) {
             const int h = relu(b, b.linear("fc0", 0, 6));
             const int gates = b.activation(b.linear("g", h, 2), ActivationKind::sigmoid);
             const int c = b.multiply(b.linear("c", h, 5), b.slice(gates, 1, 0, 1));
             return b.add(c, b.multiply(b.linear("d", h, 5), b.slice(gates, 1, 1, 2)));
         },
         11,
         11,
         "6 5"},
        {"a gate that is one of the channels",
         {7},
         [](GraphBuilder& b) {
             const int h = b.linear("fc0", 0, 6);
             const int gate = b.activation(b.slice(h, 1, 0, 1), ActivationKind::sigmoid);
             return b.multiply(b.linear("c", h, 5), gate);
         },
         10,
         10,
         "5 5"},
        {"softmax inside blocks",
         {7},
         [](GraphBuilder& b) {
             const int h = b.reshape(b.linear("fc0", 0, 12), {3, 4});
             return flat(b, b.append("", model::Softmax{2}, {h}));
         },
         12,
         12,
         "3x4"},
        {"layer norm without weights inside blocks",
         {7},
         [](GraphBuilder& b) {
             const int h = b.reshape(b.linear("fc0", 0, 12), {3, 4});
             return flat(b, relu(b, b.append("", model::LayerNorm{}, {h})));
         },
         12,
         12,
         "3x4"},
        {"a slice across flattened channels",
         {2, 9},
         [](GraphBuilder& b) {
             model::Convolution options;
             options.stride = {1}, options.padding = {0}, options.dilation = {1},
             options.output_padding = {0};
             const int h = relu(b, conv(b, "conv0", 0, {4, 2, 7}, options));
             return b.slice(flat(b, h), 1, 1, 12);
         },
         3,
         3,
         "3"},
        {"token mixing",
         {5, 4},
         [](GraphBuilder& b) {
             const int x = b.linear("in", 0, 6);
             int y = b.permute(x, {0, 2, 1});
             y = b.permute(b.linear("t2", relu(b, b.linear("t1", y, 7)), 5), {0, 2, 1});
             return b.mean(b.add(x, y), {1});
         },
         13,
         13,
         "6 7"},
    };
}

class Invariance : public ::testing::TestWithParam<Case> {};

model::ModelGraph graph_of(const Case& tested) {
    GraphBuilder builder(tested.input);
    int value = tested.build(builder);
    if (tested.name != "tied embedding") value = builder.linear("classifier", value, 3);
    return std::move(builder).build(core::Value::map());
}

TEST_P(Invariance, RandomElementsKeepTheFunction) {
    const auto graph = graph_of(GetParam());
    const auto symmetries = derive(graph);
    std::string groups;
    for (const Group& group : symmetries.groups) {
        groups += groups.empty() ? "" : " ";
        if (group.bond >= 0)
            groups += std::to_string(group.blocks) + "x" + std::to_string(group.size / group.blocks);
        if (group.bond < 0) groups += std::to_string(group.size);
    }
    std::string frozen;
    for (const Frozen& f : symmetries.frozen)
        frozen +=
            graph.layout->entries()[f.entry].name + " " + std::to_string(f.axis) + ": " + f.reason + "\n";
    if (!GetParam().groups.empty()) {
        EXPECT_EQ(groups, GetParam().groups) << frozen;
    }
    EXPECT_EQ(symmetries.covered_channels, GetParam().covered) << groups << "\n" << frozen;
    EXPECT_EQ(symmetries.hidden_channels, GetParam().hidden) << groups << "\n" << frozen;
    core::Random random(7, "invariance");
    const Proof proof = verify(graph, symmetries, random);
    EXPECT_LT(proof.max_error, 1e-11);
    EXPECT_GT(proof.elements, 0);
    EXPECT_EQ(proof.draws, 3);
    EXPECT_GT(proof.control, 1e-6) << "the proof does not see every group";
}

/// Whatever the white list lets through is a symmetry, with ReLU and with tanh in its place.
TEST_P(Invariance, FactorsKeepTheFunction) {
    auto graph = graph_of(GetParam());
    core::Random random(7, "gauge");
    for (const auto activation : {ActivationKind::relu, ActivationKind::tanh}) {
        for (auto& operation : graph.operations) {
            auto* found = std::get_if<model::Activation>(&operation.kind);
            if (found != nullptr && found->kind == ActivationKind::relu) found->kind = activation;
        }
        for (const auto kind : {Gauge::Kind::sign, Gauge::Kind::scale}) {
            const Gauge gauge = derive_gauge(graph, kind);
            const Proof proof = verify(graph, gauge, random, 5);
            EXPECT_LT(proof.max_error, 1e-11);
            if (gauge.channels > 0) {
                EXPECT_GT(proof.control, 1e-6) << "the proof does not see every group";
            }
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Rules, Invariance, ::testing::ValuesIn(cases()), [](const auto& info) {
    std::string name = info.param.name;
    for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '_';
    return name;
});

/// A proof that cannot fail proves nothing: a group that is none is found out.
TEST(Verify, FindsAWrongGroup) {
    GraphBuilder builder({7});
    const int x = relu(builder, builder.linear("fc0", 0, 6));
    builder.linear("fc1", x, 3);
    const auto graph = std::move(builder).build(core::Value::map());
    auto symmetries = derive(graph);
    ASSERT_EQ(symmetries.groups.size(), 1U);
    EXPECT_NO_THROW(require_proof(graph, symmetries));
    symmetries.groups[0].uses.pop_back();
    core::Random random(7, "invariance");
    EXPECT_GT(verify(graph, symmetries, random).max_error, 1e-3);
    EXPECT_THROW(require_proof(graph, symmetries), core::RunError);
}

}  // namespace
}  // namespace thalweg::symmetry::invariance_test
