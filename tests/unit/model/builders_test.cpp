// The builders of networks from the literature: their sizes as published, their names and values as Python's modules.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <cmath>
#include <cstdlib>
#include <optional>

#include "helpers.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/files.hpp"
#include "thalweg/model/interpreter.hpp"
#include "thalweg/model/model_file.hpp"

namespace thalweg::model::builders_test {
namespace {

using test::graph_of;
using test::message_of;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct Published {
    std::string yaml;
    Sizes input;
    std::int64_t classes, parameters;
};

/// torchvision's documentation for its models; the others by the papers' rules.
TEST(Builders, HaveThePublishedNumbersOfParameters) {
    const Sizes imagenet{3, 224, 224}, cifar{3, 32, 32};
    const Published all[] = {
        {"{kind: vgg, depth: 11, classifier: dense}", imagenet, 1000, 132863336},
        {"{kind: vgg, depth: 13, classifier: dense}", imagenet, 1000, 133047848},
        {"{kind: vgg, depth: 16, classifier: dense, norm: batch}", imagenet, 1000, 138365992},
        {"{kind: vgg, depth: 19, classifier: dense}", imagenet, 1000, 143667240},
        {"{kind: resnet, depth: 18}", imagenet, 1000, 11689512},
        {"{kind: resnet, depth: 34}", imagenet, 1000, 21797672},
        {"{kind: resnet, depth: 50}", imagenet, 1000, 25557032},
        {"{kind: vit, patch: 16, depth: 12, heads: 12, dim: 768, mlp_dim: 3072}", imagenet, 1000, 86567656},
        {"mobilenet", imagenet, 1000, 3504872},
        {"{kind: mobilenet, stem: large}", imagenet, 1000, 3504872},
        {"{kind: densenet, growth: 32, blocks: [6, 12, 24, 16], stem: large}", imagenet, 1000, 7978856},
        // Option A, as in the paper: 0.27, 0.46 and 0.85 million.
        {"{kind: resnet, depth: 20, shortcut: pad}", cifar, 10, 269722},
        {"{kind: resnet, depth: 32, shortcut: pad}", cifar, 10, 464154},
        {"{kind: resnet, depth: 56, shortcut: pad}", cifar, 10, 853018},
        // DenseNet-BC (L = 100, k = 12): 0.8 million.
        {"{kind: densenet, growth: 12, blocks: [16, 16, 16]}", cifar, 10, 769162},
    };
    for (const auto& published : all) {
        const auto graph = graph_of(published.yaml, published.input, published.classes);
        EXPECT_EQ(graph.layout->trainable_size(), published.parameters) << published.yaml;
        EXPECT_EQ(graph.classes(), published.classes);
    }
}

TEST(Builders, ShrinkImagesAsPublished) {
    const auto largest_before_mean = [](const std::string& yaml, const Sizes& input) {
        const auto graph = graph_of(yaml, input, 10);
        for (const auto& operation : graph.operations) {
            if (std::holds_alternative<AdaptivePool>(operation.kind))
                return graph.shapes[static_cast<std::size_t>(operation.inputs[0])];
        }
        return Sizes{};
    };
    EXPECT_THAT(largest_before_mean("{kind: resnet, depth: 50}", {3, 224, 224}), ElementsAre(2048, 7, 7));
    EXPECT_THAT(largest_before_mean("{kind: resnet, depth: 18, stem: small}", {3, 32, 32}),
                ElementsAre(512, 4, 4));
    EXPECT_THAT(largest_before_mean("{kind: resnet, depth: 20, width: 4}", {3, 32, 32}),
                ElementsAre(256, 8, 8));
    EXPECT_THAT(largest_before_mean("{kind: vgg, depth: 16}", {3, 32, 32}), ElementsAre(512, 1, 1));
    EXPECT_THAT(largest_before_mean("mobilenet", {3, 32, 32}), ElementsAre(1280, 4, 4));
    EXPECT_THAT(largest_before_mean("{kind: mobilenet, stem: large}", {3, 224, 224}),
                ElementsAre(1280, 7, 7));
    EXPECT_THAT(largest_before_mean("densenet", {3, 32, 32}), ElementsAre(132, 8, 8));
}

/// Cases of builders_in_python.py, for five classes.
struct PythonCase {
    std::string name, yaml;
    Sizes input;
};

const std::vector<PythonCase>& python_cases() {
    static const std::vector<PythonCase> cases{
        {"vgg11", "{kind: vgg, width: 0.125}", {3, 32, 32}},
        {"vgg13_small_image", "{kind: vgg, depth: 13, width: 0.125, norm: layer, pools: 3}", {3, 9, 12}},
        {"vgg16_batch_dense",
         "{kind: vgg, depth: 16, width: 0.0625, norm: batch, classifier: dense}",
         {3, 64, 32}},
        {"vgg19_group", "{kind: vgg, depth: 19, width: 0.125, norm: group, groups: 4}", {3, 32, 32}},
        {"resnet20", "{kind: resnet, width: 0.5}", {3, 12, 12}},
        {"resnet20_pad", "{kind: resnet, width: 0.4375, shortcut: pad}", {3, 11, 12}},
        {"resnet32_none", "{kind: resnet, depth: 32, width: 0.5, norm: none}", {3, 8, 8}},
        {"resnet56_group_pad",
         "{kind: resnet, depth: 56, width: 0.25, norm: group, groups: 4, shortcut: pad}",
         {3, 8, 8}},
        {"resnet18", "{kind: resnet, depth: 18, width: 0.125}", {3, 40, 32}},
        {"resnet34_layer_small",
         "{kind: resnet, depth: 34, width: 0.125, norm: layer, stem: small}",
         {3, 12, 12}},
        {"resnet18_full", "{kind: resnet, depth: 18}", {3, 40, 32}},
        {"resnet50", "{kind: resnet, depth: 50, width: 0.125}", {3, 32, 40}},
        {"vit", "{kind: vit, depth: 2, heads: 3, dim: 12, mlp_dim: 20}", {3, 16, 16}},
        {"vit_mean",
         "{kind: vit, patch: 8, depth: 1, heads: 2, dim: 8, mlp_dim: 12, pooling: mean}",
         {3, 16, 16}},
        {"transformer", "{kind: transformer, depth: 2, heads: 3, dim: 12, mlp_dim: 20}", {7}},
        {"transformer_tied", "{kind: transformer, depth: 1, heads: 2, dim: 8, mlp_dim: 12, tied: true}", {4}},
        {"lstm", "{kind: lstm, embedding: 3, hidden: 6}", {6}},
        {"mobilenet", "{kind: mobilenet, width: 0.25}", {3, 16, 16}},
        {"mobilenet_large", "{kind: mobilenet, width: 0.5, stem: large}", {3, 32, 48}},
        {"densenet", "{kind: densenet, growth: 4, blocks: [2, 3, 2]}", {3, 12, 12}},
        {"densenet_large", "{kind: densenet, growth: 6, blocks: [1, 2, 1, 1], stem: large}", {3, 64, 64}}};
    return cases;
}

/// Nothing at zero, where some weights start, lest what is before them goes unseen.
Parameters random_parameters(const ModelGraph& graph) {
    const auto parameters = test::random_parameters(graph);
    core::Random random(8, "test parameters");
    for (std::size_t i = 0; i < graph.layout->entries().size(); ++i) {
        const auto& entry = graph.layout->entries()[i];
        if (parameters.view(i).abs().max().item<float>() > 0) continue;
        const double bound = 1 / std::sqrt(static_cast<double>(entry.size / entry.shape.front()));
        for (std::int64_t j = 0; j < entry.size; ++j)
            parameters.data()[entry.offset + j] = static_cast<float>(random.uniform(-bound, bound));
    }
    return parameters;
}

at::Tensor input_of(const ModelGraph& graph, std::int64_t count) {
    const auto normal = test::random_input(graph, count);
    return graph.input_shape().size() == 1 ? (normal * 1000).round().abs().remainder(graph.classes())
                                           : normal;
}

std::optional<std::string> python_with_torch() {
    for (const std::string python : {"/usr/bin/python3", "python3"}) {
        if (std::system((python + " -c 'import torch' > /dev/null 2>&1").c_str()) == 0) return python;
    }
    return std::nullopt;
}

TEST(Builders, HaveNamesAndValuesOfPythonsModules) {
    const auto python = python_with_torch();
    if (!python)
        GTEST_SKIP() << "no Python here can import torch: the builders are not compared with its modules";
    const test::TemporaryFolder folder;
    for (const auto& tested : python_cases()) {
        const auto graph = graph_of(tested.yaml, tested.input, 5);
        save_model(folder / (tested.name + ".pt"), graph, random_parameters(graph), {});
        save_tensors(folder / (tested.name + ".input.pt"), {{"x", input_of(graph, 3)}}, {});
    }
    const auto log = folder / "log.txt";
    const auto command = *python + " " + THALWEG_TEST_DIR + "/unit/model/builders_in_python.py " +
                         (folder / "").string() + " > " + log.string() + " 2>&1";
    ASSERT_EQ(std::system(command.c_str()), 0) << core::read_file(log);
    const auto compared = core::read_file(log);
    if (compared.find("as torchvision's") == std::string::npos) {
        std::cout << "torchvision is not installed: its modules were rewritten, not loaded\n";
    }
    for (const auto& tested : python_cases()) {
        const auto graph = graph_of(tested.yaml, tested.input, 5);
        const auto expected = load_tensors(folder / (tested.name + ".output.pt")).at("y");
        const auto ours = forward(graph, views(random_parameters(graph).to_double()),
                                  input_of(graph, 3).to(at::kDouble), Mode::evaluate);
        ASSERT_EQ(ours.sizes(), expected.sizes()) << tested.name;
        const double scale = expected.abs().max().item<double>();
        EXPECT_GT(scale, 0) << tested.name;
        EXPECT_LT((ours - expected).abs().max().item<double>(), 1e-10 * scale) << tested.name;
    }
}

TEST(Builders, TrainEveryEntry) {
    for (const auto& tested : python_cases()) {
        const auto graph = graph_of(tested.yaml, tested.input, 5);
        const auto parameters = random_parameters(graph).to_double();
        const auto gradient = at::zeros({graph.layout->trainable_size()}, at::kDouble);
        core::Random random(1, "dropout");
        auto leaves = leaf_views(parameters, gradient);
        leaves.random = &random;
        const auto logits = forward(graph, leaves, input_of(graph, 4).to(at::kDouble), Mode::train);
        at::cross_entropy_loss(logits, at::arange(4, at::kLong)).backward();
        for (const auto& entry : graph.layout->entries()) {
            if (!entry.trainable) continue;
            const auto part = gradient.narrow(0, entry.offset, entry.size);
            EXPECT_GT(part.abs().max().item<double>(), 0.0) << tested.name << ": " << entry.name;
        }
        EXPECT_TRUE(at::isfinite(gradient).all().item<bool>()) << tested.name;
    }
}

TEST(Builders, StartAsTheirSourcesSay) {
    const auto deviation = [](const std::string& yaml, const Sizes& input, const std::string& name) {
        const auto graph = graph_of(yaml, input, 10);
        core::Random random(3, "initialisation");
        const auto values = initialise(graph, random).view(name);
        return values.pow(2).mean().sqrt().item<double>();
    };
    const Sizes image{3, 32, 32};
    const auto near = [](double value) { return ::testing::DoubleNear(value, 0.06 * value); };
    EXPECT_THAT(deviation("{kind: vgg, width: 0.5}", image, "features.3.weight"),
                near(std::sqrt(2.0 / (64 * 9))));
    EXPECT_EQ(deviation("{kind: vgg, width: 0.5}", image, "features.3.bias"), 0.0);
    EXPECT_THAT(deviation("resnet", image, "layer2.0.conv2.weight"), near(std::sqrt(2.0 / (32 * 9))));
    // Nine branches of two layers.
    const std::string plain = "{kind: resnet, norm: none}";
    EXPECT_THAT(deviation(plain, image, "layer2.0.conv1.weight"),
                near(std::sqrt(2.0 / (32 * 9)) / std::sqrt(9.0)));
    EXPECT_EQ(deviation(plain, image, "layer2.0.conv2.weight"), 0.0);
    EXPECT_THAT(deviation("vit", image, "encoder.pos_embedding"), near(0.02));
    EXPECT_THAT(deviation("vit", image, "encoder.layers.encoder_layer_0.mlp.0.weight"),
                near(std::sqrt(6.0 / (192 + 768) / 3)));
    EXPECT_EQ(deviation("vit", image, "heads.head.weight"), 0.0);
    EXPECT_THAT(deviation("transformer", {20}, "embedding.weight"), near(0.02));
    // A depthwise convolution: nine outputs hang on a weight's input.
    EXPECT_THAT(deviation("mobilenet", image, "features.5.conv.1.0.weight"), near(std::sqrt(2.0 / 9)));
}

TEST(Builders, KeepSignalsInRangeAtTheStart) {
    // Without a norm, too, depth must not make the first logits explode or die.
    for (const std::string yaml :
         {"{kind: vgg, depth: 19, width: 0.25}", "{kind: resnet, depth: 56, norm: none}",
          "{kind: resnet, depth: 50, norm: none, width: 0.25, stem: small}",
          "{kind: resnet, depth: 20, norm: group}", "densenet", "mobilenet"}) {
        const auto graph = graph_of(yaml, {3, 32, 32}, 10);
        core::Random random(4, "initialisation");
        auto start = initialise(graph, random);
        auto leaves = views(start);
        leaves.random = &random;
        at::Tensor hidden;  // what the classifier reads
        forward(graph, leaves, test::random_input(graph, 4), Mode::train,
                [&](std::size_t operation, const at::Tensor& output) {
                    if (operation + 2 == graph.operations.size()) hidden = output;
                });
        const double scale = hidden.pow(2).mean().sqrt().item<double>();
        EXPECT_GT(scale, 0.02) << yaml;
        EXPECT_LT(scale, 20.0) << yaml;
    }
}

TEST(Builders, ShareTheEmbeddingWhenTied) {
    const auto graph = graph_of("{kind: transformer, tied: true}", {10}, 30);
    const auto* embedding = std::get_if<Embedding>(&graph.operations[1].kind);
    const auto* output = std::get_if<Linear>(&graph.operations.back().kind);
    ASSERT_NE(embedding, nullptr);
    ASSERT_NE(output, nullptr);
    EXPECT_EQ(embedding->weight, output->weight);
    EXPECT_LT(output->bias, 0);
    EXPECT_FALSE(graph.layout->find("output.weight").has_value());
}

TEST(Builders, SayWhatDoesNotFit) {
    const auto refused = [](const std::string& yaml, const Sizes& input) {
        return message_of<core::UsageError>([&] { graph_of(yaml, input, 10); });
    };
    for (const auto* kind : {"vgg", "resnet", "vit", "mobilenet", "densenet"})
        EXPECT_THAT(refused(kind, {20}), AllOf(HasSubstr(kind), HasSubstr("needs images"))) << kind;
    for (const auto* kind : {"transformer", "lstm"})
        EXPECT_THAT(refused(kind, {1, 8, 8}), AllOf(HasSubstr(kind), HasSubstr("windows of symbols")))
            << kind;
    EXPECT_THAT(refused("vgg", {1, 28, 28}), AllOf(HasSubstr("max_pool_5"), HasSubstr("larger than")));
    EXPECT_THAT(refused("{kind: vgg, depth: 12}", {3, 32, 32}), HasSubstr("11"));
    EXPECT_THAT(refused("{kind: vit, patch: 5}", {3, 32, 32}),
                AllOf(HasSubstr("patch"), HasSubstr("do not tile")));
    EXPECT_THAT(refused("{kind: vit, heads: 5}", {3, 32, 32}), HasSubstr("5 heads do not divide dim 192"));
    EXPECT_THAT(refused("{kind: resnet, norm: group, groups: 5}", {3, 32, 32}),
                AllOf(HasSubstr("bn1"), HasSubstr("do not divide the channels")));
    EXPECT_THAT(refused("{kind: densenet, blocks: [0]}", {3, 32, 32}), HasSubstr("blocks"));
}

TEST(Builders, ComeBackFromTheirSpecs) {
    for (const auto& tested : python_cases()) {
        const auto graph = graph_of(tested.yaml, tested.input, 5);
        const auto again = build_model_from_spec(core::parse_yaml(core::to_flow(graph.spec), "spec"));
        EXPECT_TRUE(*graph.layout == *again.layout) << tested.name;
        EXPECT_TRUE(graph.spec == again.spec) << tested.name;
        EXPECT_EQ(graph.shapes, again.shapes) << tested.name;
    }
}

}  // namespace
}  // namespace thalweg::model::builders_test
