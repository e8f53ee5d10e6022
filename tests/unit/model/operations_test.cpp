// Every operation of the model graph: its values against a written-out reference, its gradients against central
// differences, its complaints about wrong shapes.
#include "thalweg/model/operations.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "helpers.hpp"
#include "operation_cases.hpp"
#include "thalweg/core/error.hpp"

namespace thalweg::model::operations_test {
namespace {

using test::OperationCase;
using ::testing::AllOf;
using ::testing::HasSubstr;

std::vector<OperationCase> all_cases() {
    auto all = test::dense_cases();
    for (auto& tested : test::image_cases()) all.push_back(std::move(tested));
    for (auto& tested : test::sequence_cases()) all.push_back(std::move(tested));
    return all;
}

ModelGraph graph_of(const OperationCase& tested) {
    GraphBuilder builder(tested.input);
    tested.append(builder, GraphBuilder::input);
    return std::move(builder).build({});
}

/// Behind a trainable shift of the input, whose gradient is the sum of the samples' gradients with respect to it.
ModelGraph shifted_graph_of(const OperationCase& tested) {
    GraphBuilder builder(tested.input);
    int x = GraphBuilder::input;
    if (tested.symbols == 0)
        x = builder.add(x,
                        builder.parameter("shift", tested.input, tested.input, {Initial::Kind::normal, 1}));
    tested.append(builder, x);
    return std::move(builder).build({});
}

at::Tensor input_of(const OperationCase& tested, const ModelGraph& graph) {
    const auto normal = test::random_input(graph, 3).to(at::kDouble);
    if (tested.symbols == 0) return normal;
    return (normal * 1000).round().abs().remainder(tested.symbols);
}

at::Tensor run(const ModelGraph& graph, Views views, const at::Tensor& input, Mode mode) {
    core::Random random(5, "operation test");
    views.random = &random;
    return forward(graph, views, input, mode);
}

class Operations : public ::testing::TestWithParam<OperationCase> {};

TEST_P(Operations, GiveWhatTheReferenceGives) {
    const auto& tested = GetParam();
    const auto graph = graph_of(tested);
    const auto parameters = test::random_parameters(graph);
    const auto input = input_of(tested, graph).to(at::kFloat);
    const auto wide = parameters.to_double();
    const auto expected =
        tested.reference({input.to(at::kDouble), [&](const std::string& name) { return wide.view(name); }});

    const auto in_double = run(graph, views(wide.clone()), input.to(at::kDouble), tested.mode);
    ASSERT_EQ(in_double.sizes(), expected.sizes());
    EXPECT_EQ(in_double.scalar_type(), at::kDouble);
    EXPECT_LT((in_double - expected).abs().max().item<double>(),
              1e-12 * (1 + expected.abs().max().item<double>()));

    const auto in_float = run(graph, views(parameters), input, tested.mode);
    EXPECT_EQ(in_float.scalar_type(), at::kFloat);
    EXPECT_TRUE(at::allclose(in_float.to(at::kDouble), expected, 1e-4, 2e-6))
        << (in_float - expected).abs().max().item<double>();

    auto shape = graph.shapes.back();
    shape.insert(shape.begin(), 3);
    EXPECT_EQ(in_double.sizes().vec(), shape) << "the shape that the builder promises";
}

TEST_P(Operations, HaveTheGradientOfFiniteDifferences) {
    const auto& tested = GetParam();
    const auto graph = shifted_graph_of(tested);
    const auto parameters = test::random_parameters(graph).to_double();
    const auto input = input_of(tested, graph);
    // A number to which every output contributes differently.
    const auto loss = [&](const Views& views) {
        const auto output = run(graph, views, input, tested.mode);
        return (output * (at::arange(1, output.numel() + 1, output.options()).sin().view(output.sizes())))
            .sum();
    };
    const auto gradient = at::zeros({graph.layout->trainable_size()}, at::kDouble);
    ASSERT_GT(gradient.numel(), 0);
    loss(leaf_views(parameters.clone(), gradient)).backward();

    const double step = 1e-5;
    for (std::int64_t i = 0; i < gradient.numel(); ++i) {
        double value[2];
        for (const int side : {0, 1}) {
            const auto moved = parameters.clone();
            moved.values.data_ptr<double>()[i] += side == 0 ? -step : step;
            value[side] = loss(views(moved)).item<double>();
        }
        ASSERT_NEAR(gradient.data_ptr<double>()[i], (value[1] - value[0]) / (2 * step), 1e-7)
            << "element " << i;
    }
    EXPECT_GT(gradient.abs().sum().item<double>(), 0.01);
}

INSTANTIATE_TEST_SUITE_P(All, Operations, ::testing::ValuesIn(all_cases()),
                         [](const auto& info) { return info.param.name; });

TEST(OperationCases, CoverEveryOperationAndActivation) {
    std::set<std::size_t> kinds;
    std::set<ActivationKind> activations;
    for (const auto& tested : all_cases()) {
        for (const auto& operation : graph_of(tested).operations) {
            kinds.insert(operation.kind.index());
            if (const auto* activation = std::get_if<Activation>(&operation.kind))
                activations.insert(activation->kind);
        }
    }
    EXPECT_EQ(kinds.size(), std::variant_size_v<OperationKind>);
    EXPECT_EQ(activations.size(), static_cast<std::size_t>(ActivationKind::softplus) + 1);
}

TEST(OperationNames, AreDistinct) {
    std::set<std::string> names;
    for (int kind = 0; kind <= static_cast<int>(ActivationKind::softplus); ++kind)
        names.insert(kind_name(Activation{static_cast<ActivationKind>(kind)}));
    EXPECT_EQ(names.size(), static_cast<std::size_t>(ActivationKind::softplus) + 1);
    EXPECT_EQ(kind_name(MaxPool{}), "max_pool");
    EXPECT_EQ(options_text(AvgPool{{2, 2}, {1, 1}, {0, 0}}),
              " kernel 2x2 stride 1x1 padding 0x0 ceil no count_padding yes");
    EXPECT_EQ(options_text(Affine{0.5, 2}), " factor 0.5 offset 2");
}

struct WrongShape {
    std::string name;
    std::vector<Sizes> inputs;
    OperationKind kind;
    std::vector<Sizes> entries;
    std::string reason;
};

Convolution square(std::int64_t groups = 1, bool transposed = false) {
    Convolution conv;
    conv.weight = 0;
    conv.stride = conv.dilation = {1, 1};
    conv.padding = conv.output_padding = {0, 0};
    conv.groups = groups;
    conv.transposed = transposed;
    return conv;
}

template <class Change>
Convolution changed(Convolution conv, Change&& change) {
    change(conv);
    return conv;
}

std::vector<WrongShape> wrong_shapes() {
    BatchNorm batch_norm;
    batch_norm.weight = 0;
    LayerNorm layer_norm;
    layer_norm.weight = 0;
    GroupNorm group_norm;
    group_norm.groups = 2;
    Lstm lstm;
    lstm.weight_input = 0;
    lstm.weight_hidden = 1;
    return {
        {"linear", {{5}}, Linear{0, -1}, {{3, 4}}, "its weight is"},
        {"linear_of_an_image", {{2, 4, 5}}, Linear{0, -1}, {{3, 4}}, "flatten images"},
        {"convolution_channels", {{3, 5, 5}}, square(), {{4, 2, 3, 3}}, "for 2 channels"},
        {"convolution_rank", {{2, 5}}, square(), {{4, 2, 3, 3}}, "it needs an image"},
        {"convolution_kernel", {{2, 5, 2}}, square(), {{4, 2, 3, 3}}, "larger than the image"},
        {"convolution_groups", {{4, 5, 5}}, square(3), {{4, 2, 3, 3}}, "3 groups do not divide"},
        {"convolution_output_groups", {{4, 5, 5}}, square(2), {{3, 2, 3, 3}}, "output channels"},
        {"convolution_lists",
         {{2, 5, 5}},
         changed(square(), [](auto& c) { c.stride = {1}; }),
         {{4, 2, 3, 3}},
         "a number for each spatial axis"},
        {"transposed_channels", {{3, 5, 5}}, square(1, true), {{2, 4, 3, 3}}, "for 2 channels"},
        {"transposed_output_padding",
         {{2, 5, 5}},
         changed(square(1, true),
                 [](auto& c) {
                     c.output_padding = {1, 0};
                 }),
         {{2, 4, 3, 3}},
         "output padding"},
        {"transposed_padding",
         {{2, 2, 2}},
         changed(square(1, true),
                 [](auto& c) {
                     c.padding = {2, 2};
                 }),
         {{2, 4, 3, 3}},
         "nothing would be left"},
        {"batch_norm", {{3, 2, 2}}, batch_norm, {{4}}, "its weight is"},
        {"layer_norm", {{2, 3}}, layer_norm, {{2}}, "its weight is"},
        {"group_norm", {{3, 2}}, group_norm, {}, "do not divide the channels"},
        {"prelu", {{3, 2}}, PRelu{0}, {{2}}, "2 slopes"},
        {"softmax", {{3}}, Softmax{2}, {}, "no axis 2"},
        {"max_pool", {{2, 3, 3}}, MaxPool{{2, 2}, {2, 2}, {2, 0}, {1, 1}}, {}, "half its kernel"},
        {"max_pool_of_nothing", {{2, 1, 3}}, MaxPool{{2, 2}, {2, 2}, {0, 0}, {1, 1}}, {}, "larger than"},
        {"avg_pool", {{6}}, AvgPool{{2, 2}, {2, 2}, {0, 0}}, {}, "it needs an image"},
        {"avg_pool_lists", {{2, 3, 3}}, AvgPool{{2, 2}, {}, {0, 0}}, {}, "a number for each"},
        {"adaptive_pool", {{2, 3, 3}}, AdaptivePool{{0, 1}}, {}, "an empty image"},
        {"reshape", {{2, 3}}, Reshape{{4}}, {}, "not the elements"},
        {"permute", {{2, 3}}, Permute{{0, 1, 1}}, {}, "none of its axes"},
        {"permute_of_the_batch", {{2, 3}}, Permute{{1, 0, 2}}, {}, "none of its axes"},
        {"expand", {{2, 3}}, Expand{{4, 3}}, {}, "cannot be repeated"},
        {"cat", {{2, 3}, {2, 4}}, Cat{1}, {}, "cannot take inputs"},
        {"slice", {{4}}, Slice{1, 2, 5}, {}, "no elements 2 to 5"},
        {"add", {{2, 3}, {3}}, Add{}, {}, "cannot take inputs"},
        {"multiply", {{2, 3}, {2, 2}}, Multiply{}, {}, "cannot take inputs"},
        {"divide", {{2}, {3}}, Divide{}, {}, "cannot take inputs"},
        {"matmul", {{2, 3}, {2, 3}}, MatMul{}, {}, "cannot take inputs"},
        {"attention_heads", {{2, 4}, {2, 4}, {2, 4}}, Attention{3}, {}, "divide the channels"},
        {"attention_keys", {{2, 4}, {3, 4}, {2, 4}}, Attention{2}, {}, "cannot take inputs"},
        {"reduce", {{2, 4}}, Reduce{{}}, {}, "names no axis"},
        {"upsample", {{2, 4}}, Upsample{{8}}, {}, "it needs an image"},
        {"pad", {{2, 4}}, Pad{{-3, -1}}, {}, "nothing would be left"},
        {"parameter", {}, Parameter{0, {2, 2}}, {{3}}, "not the elements"},
        {"lstm", {{4, 3}}, lstm, {{8, 2}, {8, 2}}, "it needs [positions, 2]"},
    };
}

TEST(OperationShapes, AreRefusedWithTheOperationsNameAndTheReason) {
    for (const auto& wrong : wrong_shapes()) {
        const auto message = test::message_of<core::UsageError>(
            [&] { output_shape("stage2." + wrong.name, wrong.kind, wrong.inputs, wrong.entries); });
        EXPECT_THAT(message, AllOf(HasSubstr("stage2." + wrong.name), HasSubstr(wrong.reason)));
    }
}

TEST(Embedding, RefusesWhatIsNoSymbol) {
    GraphBuilder builder({2});
    builder.embedding("table", GraphBuilder::input, 5, 3);
    const auto graph = std::move(builder).build({});
    const auto parameters = test::random_parameters(graph);
    for (const float wrong : {-1.0F, 5.0F, 1.5F, std::numeric_limits<float>::quiet_NaN()}) {
        const auto input = at::tensor({0.0F, wrong}).view({1, 2});
        EXPECT_THAT(test::message_of<core::RunError>(
                        [&] { forward(graph, views(parameters), input, Mode::evaluate); }),
                    AllOf(HasSubstr("table"), HasSubstr("0 to 4")))
            << wrong;
    }
}

TEST(BatchNorm, MovesItsRunningStatisticsByItsMomentum) {
    GraphBuilder builder({2, 3});
    BatchNorm norm;
    norm.running_mean = builder.entry("mean", {2}, Role::running_mean, {});
    norm.running_var = builder.entry("var", {2}, Role::running_var, {Initial::Kind::constant, 1});
    norm.momentum = 0.25;
    builder.append("norm", norm, {GraphBuilder::input});
    const auto graph = std::move(builder).build({});
    Parameters parameters(graph.layout, true);
    parameters.view("var").fill_(2.0);
    const auto input = test::random_input(graph, 4).to(at::kDouble);
    forward(graph, views(parameters), input, Mode::train);
    const auto values = input.transpose(0, 1).flatten(1);
    EXPECT_TRUE(at::allclose(parameters.view("mean"), 0.25 * values.mean(1), 1e-12, 1e-12));
    EXPECT_TRUE(at::allclose(parameters.view("var"), 1.5 + 0.25 * values.var(1), 1e-12, 1e-12));
}

TEST(Dropout, NeedsRandomDrawsInTraining) {
    GraphBuilder builder({4});
    builder.dropout(GraphBuilder::input, 0.5);
    const auto graph = std::move(builder).build({});
    EXPECT_THROW(forward(graph, Views{}, at::ones({2, 4}), Mode::train), std::logic_error);
}

}  // namespace
}  // namespace thalweg::model::operations_test
