// The one file that includes torch/torch.h (20 seconds): the interpreter against plain LibTorch modules.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <set>

#include "helpers.hpp"
#include "thalweg/model/interpreter.hpp"

namespace thalweg::model::torch_modules_test {
namespace {

using test::graph_of;
namespace nn = torch::nn;

/// ConvNeXt's norm over the channels at each position of an image.
struct ChannelNormImpl : nn::Module {
    explicit ChannelNormImpl(std::int64_t channels) {
        weight = register_parameter("weight", torch::ones({channels}));
        bias = register_parameter("bias", torch::zeros({channels}));
    }
    at::Tensor forward(const at::Tensor& x) {
        const auto mean = x.mean(1, true);
        const auto var = (x - mean).pow(2).mean(1, true);
        return (x - mean) / torch::sqrt(var + 1e-5) * weight.view({1, -1, 1, 1}) + bias.view({1, -1, 1, 1});
    }
    at::Tensor weight, bias;
};
TORCH_MODULE(ChannelNorm);

/// A Sequential under `layers`, called with flattened images: what mlp's names promise.
struct PlainMlp : nn::Module {
    PlainMlp(std::int64_t in, const std::vector<std::int64_t>& hidden, std::int64_t classes,
             const std::string& norm, const std::string& activation) {
        for (const auto width : hidden) {
            layers->push_back(nn::Linear(in, width));
            if (norm == "batch") layers->push_back(nn::BatchNorm1d(width));
            if (norm == "layer") layers->push_back(nn::LayerNorm(nn::LayerNormOptions({width})));
            if (activation == "relu") layers->push_back(nn::ReLU());
            if (activation == "tanh") layers->push_back(nn::Tanh());
            if (activation == "gelu") layers->push_back(nn::GELU());
            in = width;
        }
        layers->push_back(nn::Linear(in, classes));
        register_module("layers", layers);
    }
    at::Tensor forward(const at::Tensor& x) { return layers->forward(x.flatten(1)); }
    nn::Sequential layers;
};

/// NIID-Bench's SimpleCNN, with norms if asked for.
struct PlainCnn : nn::Module {
    explicit PlainCnn(const std::string& norm_) : norm(norm_) {
        if (norm == "batch") {
            norm1 = register_module("norm1", nn::BatchNorm2d(6));
            norm2 = register_module("norm2", nn::BatchNorm2d(16));
            norm3 = register_module("norm3", nn::BatchNorm1d(120));
            norm4 = register_module("norm4", nn::BatchNorm1d(84));
        } else if (norm == "layer") {
            norm1 = register_module("norm1", ChannelNorm(6));
            norm2 = register_module("norm2", ChannelNorm(16));
            norm3 = register_module("norm3", nn::LayerNorm(nn::LayerNormOptions({120})));
            norm4 = register_module("norm4", nn::LayerNorm(nn::LayerNormOptions({84})));
        }
    }
    at::Tensor normalise(const std::shared_ptr<nn::Module>& module, const at::Tensor& x) {
        if (auto* batch2 = module->as<nn::BatchNorm2d>()) return batch2->forward(x);
        if (auto* batch1 = module->as<nn::BatchNorm1d>()) return batch1->forward(x);
        if (auto* channel = module->as<ChannelNorm>()) return channel->forward(x);
        return module->as<nn::LayerNorm>()->forward(x);
    }
    at::Tensor finish(const std::shared_ptr<nn::Module>& module, const at::Tensor& x) {
        return torch::relu(module ? normalise(module, x) : x);
    }
    at::Tensor forward(at::Tensor x) {
        x = torch::max_pool2d(finish(norm1, conv1(x)), 2);
        x = torch::max_pool2d(finish(norm2, conv2(x)), 2);
        x = finish(norm3, fc1(x.view({x.size(0), 256})));
        return fc3(finish(norm4, fc2(x)));
    }
    std::string norm;
    std::shared_ptr<nn::Module> norm1, norm2, norm3, norm4;
    nn::Conv2d conv1 = register_module("conv1", nn::Conv2d(1, 6, 5));
    nn::Conv2d conv2 = register_module("conv2", nn::Conv2d(6, 16, 5));
    nn::Linear fc1 = register_module("fc1", nn::Linear(256, 120));
    nn::Linear fc2 = register_module("fc2", nn::Linear(120, 84));
    nn::Linear fc3 = register_module("fc3", nn::Linear(84, 10));
};

std::map<std::string, at::Tensor> state_of(const nn::Module& module) {
    std::map<std::string, at::Tensor> state;
    for (const auto& item : module.named_parameters()) state[item.key()] = item.value();
    for (const auto& item : module.named_buffers()) state[item.key()] = item.value();
    return state;
}

void expect_same_state(const ModelGraph& graph, const Parameters& parameters, const nn::Module& module,
                       const std::string& what) {
    auto state = state_of(module);
    for (const auto& entry : graph.layout->entries()) {
        EXPECT_TRUE(at::allclose(state.at(entry.name), parameters.view(entry.name), 1e-5, 1e-6))
            << what << ": " << entry.name;
    }
    for (std::size_t i = 0; i < graph.layout->counters().size(); ++i) {
        EXPECT_EQ(state.at(graph.layout->counters()[i]).item<std::int64_t>(),
                  parameters.counters[static_cast<std::int64_t>(i)].item<std::int64_t>());
    }
}

/// Same names; with the same parameters the same outputs, gradients and running statistics.
template <class Module>
void compare(const std::string& yaml, const std::vector<std::int64_t>& input_shape, Module& module) {
    const auto graph = graph_of(yaml, input_shape, 10);
    const auto parameters = test::random_parameters(graph);
    auto state = state_of(module);
    std::set<std::string> names, expected;
    for (const auto& [name, tensor] : state) names.insert(name);
    for (const auto& name : graph.layout->state_dict_order()) expected.insert(name);
    ASSERT_EQ(names, expected) << yaml;
    {
        const torch::NoGradGuard no_grad;
        for (const auto& entry : graph.layout->entries())
            state[entry.name].copy_(parameters.view(entry.name));
    }
    const auto gradient = at::zeros({graph.layout->trainable_size()});
    const auto leaves = leaf_views(parameters, gradient);
    for (int step = 0; step < 2; ++step) {
        const auto input = test::random_input(graph, 8, 10 + static_cast<std::uint64_t>(step));
        const auto ours = forward(graph, leaves, input, Mode::train);
        const auto theirs = module.forward(input);
        EXPECT_TRUE(at::allclose(ours, theirs, 1e-6, 1e-6)) << yaml << (ours - theirs).abs().max();
        ours.pow(2).sum().backward();
        theirs.pow(2).sum().backward();
    }
    for (const auto& entry : graph.layout->entries()) {
        if (!entry.trainable) continue;
        const auto ours = gradient.narrow(0, entry.offset, entry.size).view(entry.shape);
        const auto theirs = state[entry.name].grad();
        const double scale = theirs.abs().max().template item<double>() + 1e-3;
        EXPECT_LT((ours - theirs).abs().max().template item<double>(), 1e-4 * scale)
            << yaml << ": " << entry.name;
    }
    expect_same_state(graph, parameters, module, yaml);
    module.eval();
    const auto input = test::random_input(graph, 8, 20);
    EXPECT_TRUE(at::allclose(forward(graph, views(parameters), input, Mode::evaluate), module.forward(input),
                             1e-6, 1e-6))
        << yaml;
}

TEST(TorchModules, MlpAgreesWithSequential) {
    for (const std::string norm : {"none", "batch", "layer"}) {
        for (const std::string activation : {"relu", "tanh", "gelu"}) {
            PlainMlp module(36, {20, 12}, 10, norm, activation);
            compare("{kind: mlp, hidden: [20, 12], norm: " + norm + ", activation: " + activation + "}",
                    {1, 6, 6}, module);
        }
    }
}

TEST(TorchModules, NiidBenchAgreesWithItsModules) {
    for (const std::string norm : {"none", "batch", "layer"}) {
        PlainCnn module(norm);
        compare("{kind: cnn, preset: niid_bench, norm: " + norm + "}", {1, 28, 28}, module);
    }
}

/// Strides, paddings, average pools and gelu, as a Sequential with the names of cnn's rule.
TEST(TorchModules, OddCnnAgreesWithItsModules) {
    struct Odd : nn::Module {
        at::Tensor forward(at::Tensor x) {
            x = torch::avg_pool2d(torch::gelu(conv1(x)), 2);
            x = torch::max_pool2d(torch::gelu(conv2(x)), 3, 1);
            return fc1(x.flatten(1));
        }
        nn::Conv2d conv1 =
            register_module("conv1", nn::Conv2d(nn::Conv2dOptions(3, 5, 3).stride(2).padding(1)));
        nn::Conv2d conv2 = register_module("conv2", nn::Conv2d(nn::Conv2dOptions(5, 4, 2).padding(1)));
        nn::Linear fc1 = register_module("fc1", nn::Linear(4 * 3 * 3, 10));
    };
    Odd module;
    compare(
        "{kind: cnn, activation: gelu, layers: [{conv: 5, kernel: 3, stride: 2, padding: 1}, {pool: 2, type: "
        "avg}, "
        "{conv: 4, kernel: 2, padding: 1}, {pool: 3, stride: 1}]}",
        {3, 16, 16}, module);
}

}  // namespace
}  // namespace thalweg::model::torch_modules_test
