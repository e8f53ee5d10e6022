#include <gtest/gtest.h>

#include <map>
#include <set>

#include "fixture.hpp"

namespace thalweg::symmetry {
namespace {

using test::Norm;

/// `name axis offset block` of every place a group acts on.
std::set<std::string> uses(const model::ModelGraph& graph, const Group& group) {
    std::set<std::string> result;
    for (const AxisUse& use : group.uses) {
        result.insert(graph.layout->entries()[use.entry].name + ' ' + std::to_string(use.axis) + ' ' +
                      std::to_string(use.offset) + ' ' + std::to_string(use.block));
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
    const auto& operation = graph.operations[group.activation];
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
        EXPECT_TRUE(std::holds_alternative<model::Activation>(graph.operations[group.activation].kind));
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
        EXPECT_TRUE(std::holds_alternative<model::Activation>(graph.operations[group.activation].kind))
            << activation(graph, group);
        const auto& shape = graph.shapes[static_cast<std::size_t>(graph.operations[group.activation].output)];
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
    EXPECT_EQ(symmetries.groups[0].activation, 0U);
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

/// The builder makes ordinary convolutions only; this one is put into a finished graph.
model::ModelGraph with_groups(std::int64_t channels, std::int64_t out, std::int64_t groups) {
    auto layout = std::make_shared<model::Layout>();
    model::ModelGraph graph;
    const auto add = [&](const std::string& name, std::vector<std::int64_t> shape, model::Role role) {
        return static_cast<int>(layout->add(name, std::move(shape), role));
    };
    using model::Role;
    model::Conv2d first{.weight = add("conv1.weight", {channels, 2, 1, 1}, Role::weight),
                        .bias = add("conv1.bias", {channels}, Role::bias)};
    model::Conv2d second{.weight = add("conv2.weight", {out, channels / groups, 3, 3}, Role::weight),
                         .bias = add("conv2.bias", {out}, Role::bias),
                         .groups = groups};
    model::Linear last{.weight = add("fc.weight", {3, out * 4}, Role::weight),
                       .bias = add("fc.bias", {3}, Role::bias)};
    const model::Activation tanh{model::ActivationKind::tanh};
    graph.operations = {{"conv1", first, {0}, 1},
                        {"tanh", tanh, {1}, 2},
                        {"conv2", second, {2}, 3},
                        {"tanh", tanh, {3}, 4},
                        {"flatten", model::Flatten{}, {4}, 5},
                        {"fc", last, {5}, 6}};
    graph.layout = layout;
    graph.shapes = {{2, 4, 4}, {channels, 4, 4}, {channels, 4, 4}, {out, 2, 2}, {out, 2, 2}, {out * 4}, {3}};
    return graph;
}

TEST(Derive, DepthwiseConvolutionsTieTheirOutputToTheirInput) {
    const auto graph = with_groups(5, 10, 5);
    const auto symmetries = derive(graph);
    ASSERT_EQ(symmetries.groups.size(), 1U);
    EXPECT_EQ(uses(graph, symmetries.groups[0]),
              (std::set<std::string>{"conv1.weight 0 0 1", "conv1.bias 0 0 1", "conv2.weight 0 0 2",
                                     "conv2.bias 0 0 2", "fc.weight 1 0 8"}));
}

TEST(Derive, GroupedConvolutionsFreezeAndSaySo) {
    const auto graph = with_groups(4, 6, 2);
    const auto symmetries = derive(graph);
    EXPECT_TRUE(symmetries.groups.empty());
    EXPECT_EQ(frozen(graph, symmetries).at("conv1.weight 0"), "grouped convolution");
    EXPECT_EQ(frozen(graph, symmetries).at("fc.weight 1"), "grouped convolution");
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
}  // namespace thalweg::symmetry
