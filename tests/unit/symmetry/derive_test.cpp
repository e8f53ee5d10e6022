#include <gtest/gtest.h>

#include <map>
#include <set>

#include "fixture.hpp"

namespace thalweg::symmetry::derive_test {
namespace {

using test::Norm;

/// `name axis offset block` of every place a group acts on.
std::set<std::string> uses(const model::ModelGraph& graph, const Group& group) {
    std::set<std::string> result;
    for (const AxisUse& use : group.uses) {
        result.insert(graph.layout->entries()[use.entry].name + ' ' + std::to_string(use.axis) + ' ' +
                      std::to_string(use.run().value_or(-1)) + ' ' + std::to_string(use.each));
    }
    return result;
}

std::map<std::string, std::string> frozen(const model::ModelGraph& graph, const Symmetries& symmetries) {
    std::map<std::string, std::string> result;
    for (const Frozen& f : symmetries.frozen) {
        result[graph.layout->entries()[f.entry].name + ' ' + std::to_string(f.axis)] = f.reason;
    }
    return result;
}

std::string activation(const model::ModelGraph& graph, const Group& group) {
    const auto& operation = graph.operations[group.sight.operation];
    return model::kind_name(operation.kind) + " after " + operation.name;
}

TEST(Derive, AnMlpHasOneGroupAHiddenLayer) {
    const auto graph = test::mlp(Norm::batch);
    const auto symmetries = derive(graph);
    ASSERT_EQ(symmetries.groups.size(), 2U);
    EXPECT_EQ(symmetries.groups[0].name, "layers.0");
    EXPECT_EQ(symmetries.groups[0].size, 9);
    EXPECT_EQ(uses(graph, symmetries.groups[0]),
              (std::set<std::string>{"layers.0.weight 0 0 1", "layers.0.bias 0 0 1", "norms.0.weight 0 0 1",
                                     "norms.0.bias 0 0 1", "norms.0.running_mean 0 0 1",
                                     "norms.0.running_var 0 0 1", "layers.1.weight 1 0 1"}));
    EXPECT_EQ(symmetries.groups[1].name, "layers.1");
    EXPECT_EQ(symmetries.groups[1].size, 7);
    EXPECT_EQ(frozen(graph, symmetries), (std::map<std::string, std::string>{{"layers.0.weight 1", "input"},
                                                                             {"layers.2.weight 0", "output"},
                                                                             {"layers.2.bias 0", "output"}}));
    // all but the last bias
    const double size = static_cast<double>(graph.layout->trainable_size());
    EXPECT_DOUBLE_EQ(symmetries.coverage, (size - 3) / size);
    for (const Group& group : symmetries.groups) {
        EXPECT_TRUE(std::holds_alternative<model::Activation>(graph.operations[group.sight.operation].kind));
    }
}

TEST(Derive, AFlattenedConvolutionReachesTheLinearInBlocks) {
    const auto graph = test::cnn(Norm::layer);
    const auto symmetries = derive(graph);
    ASSERT_EQ(symmetries.groups.size(), 3U);
    EXPECT_EQ(uses(graph, symmetries.groups[0]),
              (std::set<std::string>{"conv1.weight 0 0 1", "conv1.bias 0 0 1", "norm1.weight 0 0 1",
                                     "norm1.bias 0 0 1", "conv2.weight 1 0 1"}));
    EXPECT_EQ(uses(graph, symmetries.groups[1]),
              (std::set<std::string>{"conv2.weight 0 0 1", "norm2.weight 0 0 1", "norm2.bias 0 0 1",
                                     "fc1.weight 1 0 4"}));
    EXPECT_EQ(symmetries.groups[1].size, 4);
    EXPECT_EQ(symmetries.groups[2].name, "fc1");
    // looked at after the activation, before pooling
    for (const Group& group : symmetries.groups) {
        EXPECT_TRUE(std::holds_alternative<model::Activation>(graph.operations[group.sight.operation].kind))
            << activation(graph, group);
        const auto& shape =
            graph.shapes[static_cast<std::size_t>(graph.operations[group.sight.operation].output)];
        EXPECT_EQ(shape.front(), group.size);
    }
    EXPECT_EQ(frozen(graph, symmetries).at("conv1.weight 1"), "input");
}

TEST(Derive, AnActivationAfterFlatteningIsNotWhereChannelsAreSeen) {
    model::GraphBuilder builder({1, 4, 4});
    int value = builder.flatten(builder.conv2d("conv", 0, 3, {3, 3}));
    value = builder.activation(value, model::ActivationKind::relu);
    builder.linear("fc", value, 2);
    const auto graph = std::move(builder).build(test::spec());
    const auto symmetries = derive(graph);
    ASSERT_EQ(symmetries.groups.size(), 1U);
    EXPECT_EQ(uses(graph, symmetries.groups[0]),
              (std::set<std::string>{"conv.weight 0 0 1", "conv.bias 0 0 1", "fc.weight 1 0 4"}));
    EXPECT_EQ(symmetries.groups[0].sight.operation, 0U);
}

TEST(Derive, ALinearModelHasNoGroups) {
    model::GraphBuilder builder({5});
    builder.linear("layers.0", 0, 3);
    const auto graph = std::move(builder).build(test::spec());
    const auto symmetries = derive(graph);
    EXPECT_TRUE(symmetries.groups.empty());
    EXPECT_EQ(symmetries.coverage, 0.0);
    EXPECT_EQ(frozen(graph, symmetries).at("layers.0.weight 0"), "output");
    EXPECT_EQ(frozen(graph, symmetries).at("layers.0.weight 1"), "input");
}

TEST(Derive, ASingleChannelIsNoGroup) {
    model::GraphBuilder builder({5});
    builder.linear("layers.1", builder.linear("layers.0", 0, 1), 3);
    const auto graph = std::move(builder).build(test::spec());
    const auto symmetries = derive(graph);
    EXPECT_TRUE(symmetries.groups.empty());
    EXPECT_EQ(frozen(graph, symmetries).at("layers.1.weight 1"), "a single channel");
}

model::ModelGraph with_groups(std::int64_t channels, std::int64_t out, std::int64_t groups) {
    model::GraphBuilder builder({2, 4, 4});
    int value = builder.activation(builder.conv2d("conv1", 0, channels, {1, 1}), model::ActivationKind::tanh);
    value = builder.conv2d("conv2", value, out, {3, 3}, {1, 1}, {0, 0}, true, groups);
    value = builder.flatten(builder.activation(value, model::ActivationKind::tanh));
    builder.linear("fc", value, 3);
    return std::move(builder).build(core::Value::map());
}

TEST(Derive, DepthwiseConvolutionsTieTheirOutputToTheirInput) {
    const auto graph = with_groups(5, 10, 5);
    const auto symmetries = derive(graph);
    // Every input channel makes two outputs, which may change places and come along with it.
    ASSERT_EQ(symmetries.groups.size(), 2U);
    EXPECT_EQ(uses(graph, symmetries.groups[0]),
              (std::set<std::string>{"conv1.weight 0 0 1", "conv1.bias 0 0 1"}));
    EXPECT_EQ(uses(graph, symmetries.groups[1]),
              (std::set<std::string>{"conv2.weight 0 0 1", "conv2.bias 0 0 1", "fc.weight 1 0 4"}));
    for (const Group& group : symmetries.groups) {
        EXPECT_EQ(group.blocks, 5);
        EXPECT_EQ(group.bond, 0);
    }
    EXPECT_FALSE(respects_blocks(symmetries.groups[1], {0, 2, 1, 3, 4, 5, 6, 7, 8, 9}));
    EXPECT_TRUE(respects_blocks(symmetries.groups[1], {3, 2, 0, 1, 4, 5, 6, 7, 8, 9}));
}

TEST(Derive, AGroupedConvolutionHasOtherChannelsInEachSlab) {
    const auto graph = with_groups(4, 6, 2);
    const auto symmetries = derive(graph);
    ASSERT_EQ(symmetries.groups.size(), 2U);
    EXPECT_EQ(symmetries.groups[0].size, 4);
    EXPECT_EQ(symmetries.groups[1].size, 6);
    const AxisUse& inside = symmetries.groups[0].uses.back();
    EXPECT_EQ(graph.layout->entries()[inside.entry].name, "conv2.weight");
    EXPECT_EQ(inside.axis, 1);
    EXPECT_EQ(inside.slabs, 2);
    EXPECT_EQ(inside.slab_of, (std::vector<std::int64_t>{0, 1}));
    EXPECT_EQ(inside.places, (std::vector<std::int64_t>{0, 1, 0, 1}));
}

TEST(Derive, DepthwisePermutationsKeepTheFunction) {
    const auto graph = with_groups(5, 10, 5);
    const auto symmetries = derive(graph);
    const auto parameters = test::random_parameters(graph, 1);
    core::Random random(1, "depthwise");
    const auto moved = permute(parameters, symmetries, random_permutations(symmetries, random));
    const auto x = test::random_batch(graph, 4, 1);
    EXPECT_LT(test::largest_difference(test::outputs(graph, parameters, x), test::outputs(graph, moved, x)),
              1e-9);
    EXPECT_FALSE(at::equal(parameters.values, moved.values));
}

}  // namespace
}  // namespace thalweg::symmetry::derive_test
