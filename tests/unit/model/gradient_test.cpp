#include <gtest/gtest.h>
#include <torch/types.h>

#include "helpers.hpp"
#include "thalweg/model/interpreter.hpp"

namespace thalweg::model::gradient_test {
namespace {

using test::graph_of;

struct GradientCase {
    std::string name, yaml;
    std::vector<std::int64_t> input;
    Mode mode;
};

std::vector<GradientCase> cases() {
    std::vector<GradientCase> all{{"linear", "linear", {5}, Mode::train}};
    for (const std::string norm : {"none", "batch", "layer"}) {
        for (const std::string activation : {"relu", "tanh", "gelu"}) {
            const auto rest = ", norm: " + norm + ", activation: " + activation + "}";
            const auto name = norm + "_" + activation;
            all.push_back({"mlp_" + name, "{kind: mlp, hidden: [4, 3]" + rest, {5}, Mode::train});
            all.push_back(
                {"cnn_" + name,
                 "{kind: cnn, layers: [{conv: 3, kernel: 3, padding: 1, stride: 2}, {pool: 2, type: avg}, "
                 "{conv: 2, kernel: 2}, {pool: 2, stride: 1}, {linear: 3}]" +
                     rest,
                 {2, 11, 11},
                 Mode::train});
        }
    }
    all.push_back({"mlp_batch_evaluate", "{kind: mlp, hidden: [4], norm: batch}", {5}, Mode::evaluate});
    all.push_back({"cnn_batch_evaluate",
                   "{kind: cnn, layers: [{conv: 2, kernel: 3}], norm: batch}",
                   {1, 5, 5},
                   Mode::evaluate});
    return all;
}

class Gradient : public ::testing::TestWithParam<GradientCase> {};

/// Cross-entropy of made-up labels, as the clients minimise it.
at::Tensor loss_of(const ModelGraph& graph, const Views& views, const at::Tensor& input, Mode mode) {
    const auto labels = at::arange(input.size(0), at::kLong).remainder(graph.classes());
    return at::cross_entropy_loss(forward(graph, views, input, mode), labels);
}

TEST_P(Gradient, AgreesWithFiniteDifferences) {
    const auto graph = graph_of(GetParam().yaml, GetParam().input, 3);
    const auto parameters = test::random_parameters(graph).to_double();
    const auto input = test::random_input(graph, 5).to(at::kDouble);
    const auto gradient = at::zeros({graph.layout->trainable_size()}, at::kDouble);
    loss_of(graph, leaf_views(parameters.clone(), gradient), input, GetParam().mode).backward();

    const double step = 1e-5;
    for (std::int64_t i = 0; i < graph.layout->trainable_size(); ++i) {
        double loss[2];
        for (const int side : {0, 1}) {
            const auto moved = parameters.clone();
            moved.values.data_ptr<double>()[i] += side == 0 ? -step : step;
            loss[side] = loss_of(graph, views(moved), input, GetParam().mode).item<double>();
        }
        const double difference = (loss[1] - loss[0]) / (2 * step);
        ASSERT_NEAR(gradient.data_ptr<double>()[i], difference, 1e-7) << "element " << i;
    }
    EXPECT_GT(gradient.abs().sum().item<double>(), 0.01);
}

INSTANTIATE_TEST_SUITE_P(Builders, Gradient, ::testing::ValuesIn(cases()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace thalweg::model::gradient_test
