#include "thalweg/model/interpreter.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <map>

#include "helpers.hpp"
#include "thalweg/core/error.hpp"

namespace thalweg::model::interpreter_test {
namespace {

using test::graph_of;
using test::random_input;
using test::random_parameters;

const char* const all_kinds[] = {
    "{kind: mlp, hidden: [7, 6]}",
    "{kind: mlp, hidden: [7, 6], norm: batch, activation: tanh}",
    "{kind: mlp, hidden: [7], norm: layer, activation: relu}",
    "{kind: mlp, hidden: [7], norm: batch, activation: gelu}",
    "linear",
    "{kind: cnn, layers: [{conv: 3, kernel: 3}, {pool: 2}, {linear: 5}], norm: batch}",
    "{kind: cnn, layers: [{conv: 3, kernel: 3}, {pool: 2, type: avg}], norm: layer, activation: tanh}",
    "{kind: cnn, layers: [{conv: 3, kernel: 3}, {conv: 2, kernel: 1}], activation: relu}",
};
const std::vector<std::int64_t> image{2, 6, 6};

/// [N, classes] → a number whose gradient reaches every logit differently.
at::Tensor weighted_sum(const at::Tensor& logits) {
    const auto count = logits.numel();
    return (logits * at::arange(1, count + 1, logits.options()).view(logits.sizes()).sin()).sum();
}

TEST(Forward, MultipliesAsByHand) {
    const auto graph = graph_of("{kind: mlp, hidden: [2]}", {2}, 1);
    Parameters parameters(graph.layout);
    const float values[] = {1, 2, 3, -4, 0.5, 1, 10, 100, 7};
    std::copy(std::begin(values), std::end(values), parameters.data());
    const auto logits = forward(graph, views(parameters), at::ones({1, 2}), Mode::evaluate);
    // hidden = relu(1 + 2 + 0.5, 3 - 4 + 1) = (3.5, 0)
    EXPECT_EQ(logits.item<float>(), 42.0F);
}

TEST(SamplesAtOnce, FollowFromTheLargestValueOfTheGraph) {
    const auto of = [](std::int64_t widest) {
        return samples_at_once(graph_of("{kind: mlp, hidden: [8, " + std::to_string(widest) + "]}", {3}, 2));
    };
    EXPECT_EQ(of(8), 500);
    EXPECT_EQ(of(4194), 500);    // 2²¹ ÷ 4194 = 500.04
    EXPECT_EQ(of(4200), 496);    // 499, down to a multiple of 16
    EXPECT_EQ(of(65536), 32);    // 8 MiB
    EXPECT_EQ(of(1 << 20), 16);  // never fewer
    // 6 channels of 30×30: 2²¹ ÷ 5400 = 388, down to a multiple of 16.
    EXPECT_EQ(
        samples_at_once(graph_of("{kind: cnn, layers: [{conv: 6, kernel: 3}, {linear: 5}]}", {3, 32, 32}, 2)),
        384);
}

TEST(Forward, TapsSeeEveryOutputUntouched) {
    for (const auto* kind : all_kinds) {
        const auto graph = graph_of(kind, image, 4);
        const auto parameters = random_parameters(graph);
        const auto input = random_input(graph, 5);
        for (const auto mode : {Mode::evaluate, Mode::train}) {
            std::vector<at::Tensor> seen;
            const auto tapped = forward(graph, views(parameters.clone()), input, mode,
                                        [&](std::size_t operation, const at::Tensor& output) {
                                            EXPECT_EQ(operation, seen.size());
                                            seen.push_back(output);
                                        });
            ASSERT_EQ(seen.size(), graph.operations.size());
            const auto plain = forward(graph, views(parameters.clone()), input, mode);
            EXPECT_TRUE(at::equal(tapped, plain)) << kind;
            for (std::size_t i = 0; i < seen.size(); ++i) {
                const auto alone = forward(graph, views(parameters.clone()), input, mode, {}, i);
                EXPECT_TRUE(at::equal(seen[i], alone)) << kind << " operation " << i;
                auto shape = graph.shapes[i + 1];
                shape.insert(shape.begin(), 5);
                EXPECT_EQ(seen[i].sizes().vec(), shape) << kind << " operation " << i;
            }
        }
    }
}

TEST(Forward, StopsEarlyWithoutTouchingWhatComesLater) {
    const auto graph = graph_of("{kind: mlp, hidden: [3, 3], norm: batch}", {4}, 2);
    const auto parameters = random_parameters(graph);
    forward(graph, views(parameters), random_input(graph, 5), Mode::train, {}, 1);
    EXPECT_EQ(parameters.counters[0].item<std::int64_t>(), 1);
    EXPECT_EQ(parameters.counters[1].item<std::int64_t>(), 0);
    EXPECT_THROW(forward(graph, views(parameters), random_input(graph, 5), Mode::train, {}, 99),
                 std::logic_error);
}

TEST(Forward, LeavesTheInputAlone) {
    GraphBuilder builder({3});
    builder.linear("fc", builder.activation(GraphBuilder::input, ActivationKind::relu), 2);
    const auto graph = std::move(builder).build({});
    const auto input = at::full({2, 3}, -1.0F);
    forward(graph, views(random_parameters(graph)), input, Mode::evaluate);
    EXPECT_TRUE(at::equal(input, at::full({2, 3}, -1.0F)));
}

TEST(Forward, LeavesAValueWithTwoReadersAlone) {
    // Both activations read the same linear layer; the builders have no such graph, an imported one may.
    GraphBuilder builder({3});
    const int hidden = builder.linear("a", 0, 4);
    builder.activation(hidden, ActivationKind::relu);
    builder.linear("b", builder.activation(hidden, ActivationKind::tanh), 2);
    const auto graph = std::move(builder).build({});
    const auto parameters = random_parameters(graph);
    const auto input = random_input(graph, 6);
    const auto pre = at::linear(input, parameters.view("a.weight"), parameters.view("a.bias"));
    const auto expected = at::linear(at::tanh(pre), parameters.view("b.weight"), parameters.view("b.bias"));
    EXPECT_TRUE(at::allclose(forward(graph, views(parameters), input, Mode::evaluate), expected, 1e-6, 1e-6));
}

TEST(Forward, ReleasesValuesAfterTheirLastReader) {
    const auto graph = graph_of("{kind: mlp, hidden: [3, 3, 3]}", {4}, 2);
    const auto parameters = random_parameters(graph);
    std::vector<c10::weak_intrusive_ptr<c10::TensorImpl>> seen;
    forward(graph, views(parameters), random_input(graph, 2), Mode::evaluate,
            [&](std::size_t operation, const at::Tensor& output) {
                seen.emplace_back(output.getIntrusivePtr());
                for (std::size_t i = 0; i + 1 < operation; ++i) EXPECT_TRUE(seen[i].expired()) << i;
            });
}

TEST(Forward, RefusesAnotherTypeOrShape) {
    const auto graph = graph_of("{kind: mlp, hidden: [3]}", {4}, 2);
    const auto parameters = random_parameters(graph);
    EXPECT_THROW(forward(graph, views(parameters), at::zeros({2, 4}, at::kDouble), Mode::evaluate),
                 std::logic_error);
    EXPECT_THROW(forward(graph, views(parameters.to_double()), at::zeros({2, 4}), Mode::evaluate),
                 std::logic_error);
    EXPECT_THROW(forward(graph, views(parameters), at::zeros({2, 5}), Mode::evaluate), std::logic_error);
    EXPECT_THROW(forward(graph, views(parameters), at::zeros({4}), Mode::evaluate), std::logic_error);
    const auto other = graph_of("linear", {4}, 2);
    EXPECT_THROW(forward(graph, views(random_parameters(other)), at::zeros({2, 4}), Mode::evaluate),
                 std::logic_error);
}

TEST(Forward, DoubleAgreesWithFloat) {
    for (const auto* kind : all_kinds) {
        const auto graph = graph_of(kind, image, 4);
        const auto parameters = random_parameters(graph);
        const auto input = random_input(graph, 5);
        for (const auto mode : {Mode::evaluate, Mode::train}) {
            const auto narrow = forward(graph, views(parameters.clone()), input, mode);
            const auto wide = forward(graph, views(parameters.to_double()), input.to(at::kDouble), mode);
            EXPECT_EQ(wide.scalar_type(), at::kDouble);
            EXPECT_TRUE(at::allclose(narrow.to(at::kDouble), wide, 1e-4, 1e-5)) << kind;
        }
    }
}

TEST(BatchNorm, UpdatesRunningStatisticsInPlace) {
    const auto graph = graph_of("{kind: mlp, hidden: [3], norm: batch}", {4}, 2);
    const auto parameters = random_parameters(graph).to_double();
    const auto before = parameters.clone();
    const auto input = random_input(graph, 6).to(at::kDouble);
    const auto pre = at::linear(input, parameters.view("layers.0.weight"), parameters.view("layers.0.bias"));
    forward(graph, views(parameters), input, Mode::train);
    const auto mean = 0.9 * before.view("layers.1.running_mean") + 0.1 * pre.mean(0);
    const auto var =
        0.9 * before.view("layers.1.running_var") + 0.1 * (pre - pre.mean(0)).pow(2).sum(0) / 5.0;
    EXPECT_TRUE(at::allclose(parameters.view("layers.1.running_mean"), mean, 1e-12, 1e-12));
    EXPECT_TRUE(at::allclose(parameters.view("layers.1.running_var"), var, 1e-12, 1e-12));
    EXPECT_TRUE(at::equal(parameters.trainable(), before.trainable()));
    EXPECT_EQ(parameters.counters[0].item<std::int64_t>(), 1);
    const auto after = parameters.clone();
    forward(graph, views(parameters), input, Mode::evaluate);
    EXPECT_TRUE(at::equal(parameters.values, after.values));
    EXPECT_EQ(parameters.counters[0].item<std::int64_t>(), 1);
}

TEST(BatchNorm, RefusesASingleTrainingValue) {
    const auto graph = graph_of("{kind: mlp, hidden: [3], norm: batch}", {4}, 2);
    const auto parameters = random_parameters(graph);
    const auto before = parameters.clone();
    EXPECT_THROW(forward(graph, views(parameters), at::zeros({1, 4}), Mode::train), core::RunError);
    EXPECT_TRUE(at::equal(parameters.values, before.values));
    EXPECT_EQ(parameters.counters[0].item<std::int64_t>(), 0);
    EXPECT_NO_THROW(forward(graph, views(parameters), at::zeros({1, 4}), Mode::evaluate));
}

TEST(LayerNorm, OfAnImageNormalisesChannelsAtEachPosition) {
    GraphBuilder builder({3, 2, 2});
    builder.linear("fc", builder.flatten(builder.layer_norm("norm", 0)), 2);
    const auto graph = std::move(builder).build({});
    const auto parameters = random_parameters(graph).to_double();
    const auto input = random_input(graph, 4).to(at::kDouble);
    const auto output = forward(graph, views(parameters), input, Mode::evaluate, {}, 0);
    const auto mean = input.mean(1, true);
    const auto var = (input - mean).pow(2).mean(1, true);
    const auto expected =
        (input - mean) / (var + 1e-5).sqrt() * parameters.view("norm.weight").view({1, 3, 1, 1}) +
        parameters.view("norm.bias").view({1, 3, 1, 1});
    EXPECT_TRUE(at::allclose(output, expected, 1e-10, 1e-10));
}

TEST(LeafViews, KeepTheGradientAliased) {
    for (const auto* kind : all_kinds) {
        const auto graph = graph_of(kind, image, 4);
        const auto parameters = random_parameters(graph);
        const auto gradient = at::zeros({graph.layout->trainable_size()});
        const auto leaves = leaf_views(parameters, gradient);
        const auto input = random_input(graph, 5);
        at::Tensor once;
        for (int repeat = 1; repeat <= 3; ++repeat) {
            weighted_sum(forward(graph, leaves, input, Mode::train)).backward();
            if (repeat == 1) once = gradient.clone();
            EXPECT_TRUE(at::allclose(gradient, repeat * once, 1e-4, 1e-4)) << kind << " repeat " << repeat;
            for (std::size_t i = 0; i < leaves.entries.size(); ++i) {
                const auto& entry = graph.layout->entries()[i];
                EXPECT_EQ(leaves.entries[i].requires_grad(), entry.trainable);
                if (!entry.trainable) continue;
                EXPECT_EQ(leaves.entries[i].grad().data_ptr<float>(),
                          gradient.data_ptr<float>() + entry.offset);
                EXPECT_EQ(leaves.entries[i].data_ptr<float>(), parameters.data() + entry.offset);
            }
        }
        EXPECT_GT(once.abs().sum().item<float>(), 0.0F);
    }
}

TEST(LeafViews, MayHaveTheirBuffersWrittenBeforeBackward) {
    const auto graph = graph_of("{kind: mlp, hidden: [5, 4], norm: batch}", {4}, 3);
    const auto input = random_input(graph, 6);
    const auto gradient_after = [&](bool write) {
        const auto parameters = random_parameters(graph);
        const auto gradient = at::zeros({graph.layout->trainable_size()});
        const auto loss = weighted_sum(forward(graph, leaf_views(parameters, gradient), input, Mode::train));
        if (write) {
            const auto trainable = graph.layout->trainable_size();
            parameters.values.narrow(0, trainable, graph.layout->size() - trainable).zero_();
            parameters.view("layers.1.running_mean").fill_(3.0);
        }
        loss.backward();
        return gradient;
    };
    EXPECT_TRUE(at::equal(gradient_after(false), gradient_after(true)));
}

TEST(LeafViews, TrainLikeOrdinaryParameters) {
    // Three steps of gradient descent, once on the flat vector, once on tensors of their own.
    const auto graph = graph_of("{kind: mlp, hidden: [5]}", {4}, 3);
    const auto input = random_input(graph, 6);
    const auto parameters = random_parameters(graph);
    std::map<std::string, at::Tensor> own;
    for (const auto& entry : graph.layout->entries()) {
        own[entry.name] = parameters.view(entry.name).clone().set_requires_grad(true);
    }
    const auto gradient = at::zeros({graph.layout->trainable_size()});
    const auto leaves = leaf_views(parameters, gradient);
    for (int step = 0; step < 3; ++step) {
        gradient.zero_();
        weighted_sum(forward(graph, leaves, input, Mode::train)).backward();
        parameters.trainable().sub_(gradient, 0.1);

        auto hidden = at::relu(at::linear(input, own["layers.0.weight"], own["layers.0.bias"]));
        const auto loss = weighted_sum(at::linear(hidden, own["layers.2.weight"], own["layers.2.bias"]));
        for (auto& [name, tensor] : own) tensor.mutable_grad().reset();
        loss.backward();
        const at::NoGradGuard no_grad;
        for (auto& [name, tensor] : own) tensor.sub_(tensor.grad(), 0.1);
    }
    for (const auto& [name, tensor] : own) EXPECT_TRUE(at::equal(tensor, parameters.view(name))) << name;
}

TEST(LeafViews, RefuseAGradientOfAnotherSizeOrType) {
    const auto graph = graph_of("{kind: mlp, hidden: [5], norm: batch}", {4}, 3);
    const auto parameters = random_parameters(graph);
    EXPECT_THROW(leaf_views(parameters, at::zeros({graph.layout->size()})), std::logic_error);
    EXPECT_THROW(leaf_views(parameters, at::zeros({graph.layout->trainable_size()}, at::kDouble)),
                 std::logic_error);
}

TEST(Views, RecordNothing) {
    const auto graph = graph_of("{kind: mlp, hidden: [5], norm: batch}", {4}, 3);
    const auto logits = forward(graph, views(random_parameters(graph)), random_input(graph, 6), Mode::train);
    EXPECT_FALSE(logits.requires_grad());
}

}  // namespace
}  // namespace thalweg::model::interpreter_test
