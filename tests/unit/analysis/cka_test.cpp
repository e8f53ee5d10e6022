#include "thalweg/analysis/cka.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <algorithm>
#include <cmath>

#include "models.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/model/interpreter.hpp"
#include "unit/support/memory_samples.hpp"
#include "unit/support/thread_communicator.hpp"

namespace thalweg::analysis::cka_test {
namespace {

using thalweg::testing::mlp;
using thalweg::testing::random_parameters;
using thalweg::testing::random_samples;
using thalweg::testing::run_ranks;

model::ModelGraph small_cnn() {
    model::GraphBuilder builder({2, 6, 6});
    int value = builder.conv2d("conv.0", model::GraphBuilder::input, 4, {3, 3});
    value = builder.activation(value, model::ActivationKind::relu);
    value = builder.conv2d("conv.1", value, 5, {3, 3});
    value = builder.activation(value, model::ActivationKind::relu);
    value = builder.flatten(value);
    builder.linear("head", value, 3);
    return std::move(builder).build(core::Value::map());
}

/// All layers' outputs at once, in double.
std::vector<at::Tensor> outputs(const model::ModelGraph& graph, const model::Parameters& parameters,
                                const data::SampleSet& samples) {
    std::vector<std::int64_t> indices, shape = graph.input_shape();
    for (std::int64_t i = 0; i < samples.size(); ++i) indices.push_back(i);
    shape.insert(shape.begin(), samples.size());
    const auto x = at::empty(shape), y = at::empty({samples.size()}, at::kLong);
    samples.gather(indices, x.data_ptr<float>(), y.data_ptr<std::int64_t>());
    const auto layers = graph.affine_operations();
    std::vector<at::Tensor> found;
    const auto exact = parameters.to_double();
    model::forward(graph, model::views(exact), x.to(at::kDouble), model::Mode::evaluate,
                   [&](std::size_t operation, const at::Tensor& output) {
                       if (std::find(layers.begin(), layers.end(), operation) != layers.end())
                           found.push_back(output.clone());
                   });
    return found;
}

/// In the space of features: ‖YᵀX‖² ÷ (‖XᵀX‖·‖YᵀY‖).
double slow_cka(const at::Tensor& first, const at::Tensor& second) {
    const auto x = first - first.mean(0), y = second - second.mean(0);
    const auto square = [](const at::Tensor& t) { return (t * t).sum().item<double>(); };
    return square(at::matmul(y.t(), x)) /
           std::sqrt(square(at::matmul(x.t(), x)) * square(at::matmul(y.t(), y)));
}

TEST(Cka, AgreesWithTheFeatureSpaceOnAnyNumberOfRanks) {
    const auto graph_a = small_cnn();
    model::GraphBuilder builder({2, 6, 6});
    const int flat = builder.flatten(model::GraphBuilder::input);
    builder.linear("only", flat, 3);
    const auto graph_c = std::move(builder).build(core::Value::map());
    const auto a = random_parameters(graph_a, 1), c = random_parameters(graph_c, 2);
    const auto samples = random_samples(70, 72, 3);
    for (const auto spatial : {Spatial::flatten, Spatial::channels}) {
        const auto of_a = outputs(graph_a, a, *samples), of_c = outputs(graph_c, c, *samples);
        const auto features = [&](const at::Tensor& t) {
            if (t.dim() == 2) return t;
            return spatial == Spatial::flatten ? t.flatten(1) : t.mean(std::vector<std::int64_t>{2, 3});
        };
        std::vector<std::vector<double>> first;
        for (const int ranks : {1, 3}) {
            run_ranks(ranks, [&](core::Communicator& communicator) {
                const auto found = cka(graph_a, a, graph_c, c, *samples, spatial, communicator);
                if (communicator.rank() != 0) return;
                EXPECT_EQ(found.layers_a, (std::vector<std::string>{"conv.0", "conv.1", "head"}));
                EXPECT_EQ(found.layers_b, (std::vector<std::string>{"only"}));
                EXPECT_TRUE(found.diagonal.empty());
                for (std::size_t i = 0; i < 3; ++i)
                    EXPECT_NEAR(found.matrix[i][0], slow_cka(features(of_a[i]), features(of_c[0])), 1e-10);
                if (first.empty()) first = found.matrix;
                EXPECT_EQ(found.matrix, first);
            });
        }
    }
}

TEST(Cka, OneWithItselfAndWithItselfPermuted) {
    const auto graph = mlp(6, {8, 7}, 3);
    const auto a = random_parameters(graph, 1);
    auto b = a.clone();  // the hidden units of the first layer in another order
    const auto order = at::tensor({3, 1, 0, 2, 7, 6, 5, 4}, at::kLong);
    b.view("layers.0.weight").copy_(a.view("layers.0.weight").index_select(0, order));
    b.view("layers.0.bias").copy_(a.view("layers.0.bias").index_select(0, order));
    b.view("layers.1.weight").copy_(a.view("layers.1.weight").index_select(1, order));
    const auto samples = random_samples(90, 6, 3);
    core::SelfCommunicator alone;
    for (const auto& other : {a, b}) {
        const auto found = cka(graph, a, graph, other, *samples, Spatial::flatten, alone);
        ASSERT_EQ(found.diagonal.size(), 3u);
        for (const double value : found.diagonal) EXPECT_NEAR(value, 1, 1e-12);
        EXPECT_LT(found.matrix[0][2], 0.999);
    }
}

TEST(Cka, HasNoValueWhereALayerDoesNotVary) {
    const auto graph = mlp(6, {8}, 3);
    const auto a = random_parameters(graph, 1);
    auto b = a.clone();
    b.view("layers.0.weight").zero_();
    core::SelfCommunicator alone;
    const auto found = cka(graph, a, graph, b, *random_samples(40, 6, 3), Spatial::flatten, alone);
    EXPECT_TRUE(std::isnan(found.matrix[0][0]));
    EXPECT_TRUE(std::isnan(found.matrix[0][1]));
}

TEST(Cka, SaysWhatIsWrong) {
    const auto graph = mlp(6, {8}, 3);
    const auto a = random_parameters(graph, 1);
    core::SelfCommunicator alone;
    EXPECT_THROW(cka(graph, a, graph, a, *random_samples(1, 6, 3), Spatial::flatten, alone),
                 core::UsageError);
    EXPECT_THROW(cka(graph, a, graph, a, *random_samples(9, 5, 3), Spatial::flatten, alone),
                 core::UsageError);
    EXPECT_THROW(spatial_of("maps"), core::UsageError);
    try {  // Gram matrices of terabytes
        cka(graph, a, graph, a, *random_samples(200000, 6, 3), Spatial::flatten, alone);
        ADD_FAILURE();
    } catch (const core::RunError& error) {
        EXPECT_THAT(error.what(), ::testing::HasSubstr("--samples"));
    }
}

}  // namespace
}  // namespace thalweg::analysis::cka_test
