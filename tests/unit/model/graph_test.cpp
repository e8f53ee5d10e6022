#include "thalweg/model/graph.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <cmath>

#include "helpers.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/text.hpp"

namespace thalweg::model::graph_test {
namespace {

using test::graph_of;
using test::message_of;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::string> operation_names(const ModelGraph& graph) {
    std::vector<std::string> names;
    for (const auto& operation : graph.operations) names.push_back(operation.name);
    return names;
}

TEST(Mlp, HasTheNamesOfAPythonSequential) {
    const auto plain = graph_of("{kind: mlp, hidden: [200, 100]}", {784}, 10);
    EXPECT_THAT(plain.layout->state_dict_order(),
                ElementsAre("layers.0.weight", "layers.0.bias", "layers.2.weight", "layers.2.bias",
                            "layers.4.weight", "layers.4.bias"));
    EXPECT_EQ(plain.layout->trainable_size(), 784 * 200 + 200 + 200 * 100 + 100 + 100 * 10 + 10);
    EXPECT_EQ(plain.summary(), "mlp 784-200-100-10 (178,110 parameters)");
    EXPECT_THAT(operation_names(plain), ElementsAre("layers.0", "relu_1", "layers.2", "relu_2", "layers.4"));
    EXPECT_EQ(plain.classes(), 10);
}

TEST(Mlp, PutsTheNormBetweenLinearAndActivation) {
    const auto graph = graph_of("{kind: mlp, hidden: [5], norm: batch, activation: tanh}", {1, 2, 2}, 3);
    EXPECT_THAT(graph.layout->state_dict_order(),
                ElementsAre("layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias",
                            "layers.1.running_mean", "layers.1.running_var", "layers.1.num_batches_tracked",
                            "layers.3.weight", "layers.3.bias"));
    EXPECT_THAT(operation_names(graph),
                ElementsAre("flatten_1", "layers.0", "layers.1", "tanh_1", "layers.3"));
    // Trainable entries first, float buffers after them.
    EXPECT_EQ(graph.layout->entries()[4].name, "layers.3.weight");
    EXPECT_EQ(graph.layout->entries()[6].name, "layers.1.running_mean");
    EXPECT_EQ(graph.layout->counters().size(), 1U);
    EXPECT_THAT(graph.shapes[1], ElementsAre(4));
}

TEST(Linear, IsOneLayerNamedFc) {
    const auto graph = graph_of("linear", {3, 2, 2}, 5);
    EXPECT_THAT(graph.layout->state_dict_order(), ElementsAre("fc.weight", "fc.bias"));
    EXPECT_EQ(graph.summary(), "linear 12-5 (65 parameters)");
}

TEST(Cnn, NiidBenchHasThePublishedShape) {
    const auto graph = graph_of("{kind: cnn, preset: niid_bench}", {1, 28, 28}, 10);
    EXPECT_THAT(graph.layout->state_dict_order(),
                ElementsAre("conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias", "fc1.weight",
                            "fc1.bias", "fc2.weight", "fc2.bias", "fc3.weight", "fc3.bias"));
    EXPECT_THAT(graph.layout->entries()[4].shape, ElementsAre(120, 256));
    EXPECT_EQ(graph.layout->trainable_size(), 44426);
    EXPECT_EQ(graph.summary(), "cnn 1x28x28-6-16-120-84-10 (44,426 parameters)");
    EXPECT_THAT(operation_names(graph),
                ElementsAre("conv1", "relu_1", "max_pool_1", "conv2", "relu_2", "max_pool_2", "flatten_1",
                            "fc1", "relu_3", "fc2", "relu_4", "fc3"));
}

TEST(Cnn, McmahanHasThePublishedCountOfParameters) {
    const auto graph = graph_of("{kind: cnn, preset: mcmahan}", {1, 28, 28}, 10);
    EXPECT_EQ(graph.layout->trainable_size(), 1663370);
}

TEST(Cnn, BuildsWhatTheListSays) {
    const auto graph = graph_of(
        "{kind: cnn, norm: layer, layers: [{conv: 4, kernel: 3, padding: 1, stride: 2}, {pool: 2, type: "
        "avg}, "
        "{conv: 5, kernel: 2}, {pool: 3, stride: 1}, {linear: 7}]}",
        {3, 16, 16}, 2);
    EXPECT_THAT(operation_names(graph),
                ElementsAre("conv1", "norm1", "relu_1", "avg_pool_1", "conv2", "norm2", "relu_2",
                            "max_pool_1", "flatten_1", "fc1", "norm3", "relu_3", "fc2"));
    EXPECT_THAT(graph.shapes[1], ElementsAre(4, 8, 8));
    EXPECT_THAT(graph.shapes[4], ElementsAre(4, 4, 4));
    EXPECT_THAT(graph.shapes[5], ElementsAre(5, 3, 3));
    EXPECT_THAT(graph.shapes[8], ElementsAre(5, 1, 1));
    const auto affine = graph.affine_operations();
    EXPECT_THAT(affine, ElementsAre(0U, 4U, 9U, 12U));
    EXPECT_THAT(graph.consumers(1), ElementsAre(1U));
    EXPECT_TRUE(graph.consumers(13).empty());
}

TEST(Cnn, WantsExactlyOneOfLayersAndPreset) {
    for (const auto* yaml : {"cnn", "{kind: cnn, preset: mcmahan, layers: [{linear: 3}]}"}) {
        const auto message = message_of<core::UsageError>([&] { graph_of(yaml, {1, 28, 28}, 10); });
        EXPECT_THAT(message, HasSubstr("exactly one of 'layers'")) << yaml;
    }
}

TEST(Cnn, RefusesLayersThatAreNone) {
    const auto refused = [](const std::string& layers, const std::vector<std::int64_t>& input = {1, 8, 8}) {
        return message_of<core::UsageError>(
            [&] { graph_of("{kind: cnn, layers: " + layers + "}", input, 10); });
    };
    EXPECT_THAT(refused("[{kernel: 3}]"), AllOf(HasSubstr("layers[0]"), HasSubstr("a layer is one of")));
    EXPECT_THAT(refused("[{conv: 3, linear: 4, kernel: 2}]"), HasSubstr("a layer is one of"));
    EXPECT_THAT(refused("[{conv: 3}]"), HasSubstr("'kernel'"));
    EXPECT_THAT(refused("[{conv: 3, kernel: 2, type: max}]"), HasSubstr("a convolution has no 'type'"));
    EXPECT_THAT(refused("[{pool: 2, padding: 1}]"), HasSubstr("a pool has no 'padding'"));
    EXPECT_THAT(refused("[{linear: 2, stride: 1}]"), HasSubstr("a linear layer has no 'stride'"));
    EXPECT_THAT(refused("[{linear: 2}, {conv: 3, kernel: 1}]"), HasSubstr("before the first linear layer"));
    EXPECT_THAT(refused("[{conv: 2, kernel: 1}]", {20}), HasSubstr("a cnn needs images"));
}

TEST(Builders, NameModuleShapeAndReasonOfAWrongShape) {
    const auto message = message_of<core::UsageError>([] {
        graph_of("{kind: cnn, layers: [{conv: 4, kernel: 5}, {pool: 2}, {conv: 4, kernel: 5}]}", {1, 10, 10},
                 10);
    });
    EXPECT_THAT(message, AllOf(HasSubstr("model"), HasSubstr("conv2 (convolution 5x5"),
                               HasSubstr(core::shape_text({4, 3, 3})), HasSubstr("larger than the image")));
    EXPECT_THAT(message_of<core::UsageError>([] {
                    graph_of("{kind: cnn, preset: niid_bench}", {1, 8, 8}, 10);
                }),
                HasSubstr("conv2"));
}

TEST(Builders, RefuseImpossibleInputsAndSizes) {
    EXPECT_THROW(graph_of("mlp", {}, 10), core::UsageError);
    EXPECT_EQ(graph_of("mlp", {3, 4}, 10).classes(), 10);
    EXPECT_THROW(graph_of("mlp", {3, 4, 5, 6}, 10), core::UsageError);
    EXPECT_THROW(graph_of("mlp", {3, 0, 4}, 10), core::UsageError);
    EXPECT_THROW(graph_of("mlp", {3}, 0), core::UsageError);
    EXPECT_THROW(graph_of("{kind: mlp, hidden: [0]}", {3}, 2), core::UsageError);
    EXPECT_THROW(graph_of("{kind: mlp, hidden: []}", {3}, 2), core::UsageError);
    EXPECT_THAT(message_of<core::UsageError>([] {
                    graph_of("{kind: mlp, hidden: [9000000000000000000, 9000000000000000000]}", {784}, 10);
                }),
                HasSubstr("2^40"));
}

TEST(GraphBuilder, RefusesWrongShapes) {
    GraphBuilder builder({3, 4, 5});
    EXPECT_THAT(message_of<core::UsageError>([&] { builder.linear("fc", 0, 2); }),
                AllOf(HasSubstr("fc"), HasSubstr("flatten")));
    EXPECT_THROW(builder.conv2d("c", 0, 0, {1, 1}), core::UsageError);
    EXPECT_THROW(builder.conv2d("c", 0, 1, {5, 5}), core::UsageError);
    EXPECT_THROW(builder.conv2d("c", 0, 1, {0, 1}), core::UsageError);
    EXPECT_THROW(builder.max_pool2d(0, {5, 1}, {1, 1}), core::UsageError);
    EXPECT_THROW(builder.max_pool2d(0, {2, 2}, {1, 1}, {2, 0}), core::UsageError);
    EXPECT_THROW(builder.avg_pool2d(builder.flatten(0), {1, 1}, {1, 1}), core::UsageError);
    const int value = builder.conv2d("c", 0, 2, {2, 3}, {1, 2}, {0, 1});
    EXPECT_THAT(builder.shape(value), ElementsAre(2, 3, 3));
}

TEST(ModelSpec, BuildsTheSameGraphAgain) {
    for (const auto* yaml :
         {"{kind: mlp, hidden: [4, 3], norm: layer}", "linear", "{kind: cnn, preset: niid_bench}",
          "{kind: cnn, layers: [{conv: 2, kernel: 3}, {pool: 2, type: avg}], norm: batch}"}) {
        const auto graph = graph_of(yaml, {1, 28, 28}, 7);
        const auto again = build_model_from_spec(core::parse_yaml(core::to_flow(graph.spec), "spec"));
        EXPECT_TRUE(*graph.layout == *again.layout) << yaml;
        EXPECT_TRUE(graph.spec == again.spec) << core::to_flow(graph.spec) << "\n"
                                              << core::to_flow(again.spec);
        EXPECT_EQ(operation_names(graph), operation_names(again));
        EXPECT_EQ(graph.shapes, again.shapes);
    }
}

TEST(ModelSpec, RefusesWhatDescribesNoModel) {
    for (const auto* yaml : {"mlp", "{kind: mlp, classes: 3}", "{kind: mlp, input: [3]}",
                             "{kind: mpl, input: [3], classes: 2}", "{kind: mlp, input: [x], classes: 2}",
                             "{kind: mlp, input: [3], classes: 2, wdith: 3}", "{input: [3], classes: 2}"}) {
        EXPECT_THROW(build_model_from_spec(core::parse_yaml(yaml, "spec")), core::UsageError) << yaml;
    }
}

TEST(Initialise, DrawsUniformlyWithinTheFanIn) {
    const auto graph =
        graph_of("{kind: cnn, layers: [{conv: 20, kernel: 5}, {linear: 50}], norm: batch}", {3, 9, 9}, 10);
    core::Random random(5, "initialisation");
    const auto parameters = initialise(graph, random);
    const auto check = [&](const std::string& module, double fan_in) {
        const auto weight = parameters.view(module + ".weight");
        const double bound = 1.0 / std::sqrt(fan_in);
        EXPECT_LE(weight.abs().max().item<double>(), bound) << module;
        EXPECT_GT(weight.abs().max().item<double>(), 0.97 * bound) << module;
        EXPECT_NEAR(weight.mean().item<double>() / bound, 0.0, 0.06) << module;
        EXPECT_NEAR(weight.to(at::kDouble).pow(2).mean().item<double>() / (bound * bound), 1.0 / 3.0, 0.03)
            << module;
        EXPECT_LE(parameters.view(module + ".bias").abs().max().item<double>(), bound) << module;
        EXPECT_GT(parameters.view(module + ".bias").abs().max().item<double>(), 0.0) << module;
    };
    check("conv1", 75);
    check("fc1", 500);
    EXPECT_TRUE(parameters.view("norm1.weight").eq(1).all().item<bool>());
    EXPECT_TRUE(parameters.view("norm1.bias").eq(0).all().item<bool>());
    EXPECT_TRUE(parameters.view("norm2.running_mean").eq(0).all().item<bool>());
    EXPECT_TRUE(parameters.view("norm2.running_var").eq(1).all().item<bool>());
    EXPECT_TRUE(parameters.counters.eq(0).all().item<bool>());
}

TEST(Initialise, DependsOnTheStreamOnlyAndGoesInLayoutOrder) {
    const auto graph = graph_of("{kind: mlp, hidden: [3]}", {4}, 2);
    core::Random first(5, "initialisation"), again(5, "initialisation"), other(6, "initialisation");
    const auto parameters = initialise(graph, first);
    EXPECT_TRUE(at::equal(parameters.values, initialise(graph, again).values));
    EXPECT_FALSE(at::equal(parameters.values, initialise(graph, other).values));
    core::Random draws(5, "initialisation");
    for (const auto& entry : graph.layout->entries()) {
        const double bound = 1.0 / std::sqrt(entry.name.starts_with("layers.0") ? 4.0 : 3.0);
        for (std::int64_t i = 0; i < entry.size; ++i) {
            EXPECT_EQ(parameters.data()[entry.offset + i], static_cast<float>(draws.uniform(-bound, bound)));
        }
    }
}

}  // namespace
}  // namespace thalweg::model::graph_test
