#include "thalweg/analysis/support.hpp"

#include <ATen/ops/linalg_eigvalsh.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <cmath>

#include "models.hpp"
#include "thalweg/core/error.hpp"
#include "unit/support/memory_samples.hpp"
#include "unit/support/thread_communicator.hpp"

namespace thalweg::analysis::support_test {
namespace {

using thalweg::testing::mlp;
using thalweg::testing::random_parameters;
using thalweg::testing::random_samples;
using thalweg::testing::run_ranks;

/// By the eigenvalues.
double slow_dimension(const at::Tensor& matrix) {
    const auto values = at::linalg_eigvalsh(matrix, "L");
    return std::pow(values.sum().item<double>(), 2) / (values * values).sum().item<double>();
}

at::Tensor covariance(const at::Tensor& rows) {
    const auto centred = rows - rows.mean(0);
    return at::matmul(centred.t(), centred) / static_cast<double>(rows.size(0));
}

TEST(Support, OfPlantedSpectra) {
    EXPECT_NEAR(effective_dimension(at::eye(7, at::kDouble)), 7, 1e-12);
    const auto v = at::arange(1, 6, at::kDouble);
    EXPECT_NEAR(effective_dimension(at::outer(v, v)), 1, 1e-12);
    EXPECT_NEAR(effective_dimension(at::diag(at::tensor({3.0, 1.0, 0.0}))), 16.0 / 10, 1e-6);
    EXPECT_TRUE(std::isnan(effective_dimension(at::zeros({2, 2}))));
}

TEST(Support, OfALayerIsWhatTheEigenvaluesSayOnAnyNumberOfRanks) {
    const auto graph = mlp(6, {9, 4}, 3);
    const auto parameters = random_parameters(graph, 1);
    const auto exact = parameters.to_double();
    const auto samples = random_samples(1100, 6, 3);  // three chunks
    std::vector<std::int64_t> indices;
    for (std::int64_t i = 0; i < samples->size(); ++i) indices.push_back(i);
    const auto x32 = at::empty({samples->size(), 6}), y = at::empty({samples->size()}, at::kLong);
    samples->gather(indices, x32.data_ptr<float>(), y.data_ptr<std::int64_t>());
    std::vector<double> first;
    for (const int ranks : {1, 3}) {
        std::vector<double> numbers;
        run_ranks(ranks, [&](core::Communicator& communicator) {
            const auto found = support(graph, parameters, *samples, communicator);
            if (communicator.rank() != 0) return;
            ASSERT_EQ(found.size(), 3u);
            auto x = x32.to(at::kDouble);
            for (const auto& layer : found) {
                const auto w = exact.view(layer.layer + ".weight");
                const auto sigma = covariance(x);
                EXPECT_EQ(layer.inputs, w.size(1));
                EXPECT_EQ(layer.outputs, w.size(0));
                EXPECT_NEAR(layer.weights, slow_dimension(at::matmul(w.t(), w)), 1e-9);
                EXPECT_NEAR(layer.inputs_covariance, slow_dimension(sigma), 1e-9);
                EXPECT_NEAR(layer.outputs_covariance, slow_dimension(at::matmul(at::matmul(w, sigma), w.t())),
                            1e-9);
                x = (at::matmul(x, w.t()) + exact.view(layer.layer + ".bias")).clamp_min(0);
                for (const double number : {layer.weights, layer.inputs_covariance, layer.outputs_covariance})
                    numbers.push_back(number);
            }
        });
        if (first.empty()) first = numbers;
        EXPECT_EQ(numbers, first);
    }
}

TEST(Support, WideLayersGoByTheirSamples) {
    const auto graph = mlp(40, {5}, 3);  // more inputs than samples
    const auto parameters = random_parameters(graph, 1);
    const auto samples = random_samples(12, 40, 3);
    std::vector<std::int64_t> indices;
    for (std::int64_t i = 0; i < 12; ++i) indices.push_back(i);
    const auto x = at::empty({12, 40}), y = at::empty({12}, at::kLong);
    samples->gather(indices, x.data_ptr<float>(), y.data_ptr<std::int64_t>());
    core::SelfCommunicator alone;
    const auto found = support(graph, parameters, *samples, alone);
    EXPECT_NEAR(found[0].inputs_covariance, slow_dimension(covariance(x.to(at::kDouble))), 1e-9);
    EXPECT_LT(found[0].inputs_covariance, 11);
}

TEST(Support, OfConvolutionsCountsPositionsAsSamples) {
    model::GraphBuilder builder({2, 5, 5});
    int value = builder.conv2d("conv.0", model::GraphBuilder::input, 4, {3, 3});
    value = builder.activation(value, model::ActivationKind::relu);
    value = builder.conv2d("conv.1", value, 4, {1, 1}, {1, 1}, {0, 0}, true, 2);
    value = builder.flatten(value);
    builder.linear("head", value, 3);
    const auto graph = std::move(builder).build(core::Value::map());
    const auto parameters = random_parameters(graph, 1);
    const auto samples = random_samples(30, 50, 3);
    std::vector<std::int64_t> indices;
    for (std::int64_t i = 0; i < 30; ++i) indices.push_back(i);
    const auto x32 = at::empty({30, 2, 5, 5}), y = at::empty({30}, at::kLong);
    samples->gather(indices, x32.data_ptr<float>(), y.data_ptr<std::int64_t>());
    const auto x = x32.to(at::kDouble);
    const auto exact = parameters.to_double();
    const auto z = at::conv2d(x, exact.view("conv.0.weight"), exact.view("conv.0.bias"));
    const auto rows = [](const at::Tensor& t) { return t.permute({0, 2, 3, 1}).reshape({-1, t.size(1)}); };
    core::SelfCommunicator alone;
    const auto found = support(graph, parameters, *samples, alone);
    ASSERT_EQ(found.size(), 3u);
    EXPECT_NEAR(found[0].inputs_covariance, slow_dimension(covariance(rows(x))), 1e-9);
    EXPECT_NEAR(found[0].outputs_covariance, slow_dimension(covariance(rows(z))), 1e-9);
    EXPECT_NEAR(found[1].inputs_covariance, slow_dimension(covariance(rows(z.clamp_min(0)))), 1e-9);
    // Two groups: the matrix has two blocks.
    const auto w = exact.view("conv.1.weight").flatten(1);
    auto blocks = at::zeros({4, 4}, at::kDouble);
    blocks.narrow(0, 0, 2).narrow(1, 0, 2).copy_(w.narrow(0, 0, 2));
    blocks.narrow(0, 2, 2).narrow(1, 2, 2).copy_(w.narrow(0, 2, 2));
    EXPECT_NEAR(found[1].weights, slow_dimension(at::matmul(blocks.t(), blocks)), 1e-9);
    EXPECT_EQ(found[2].inputs, 36);
    EXPECT_EQ(found[0].outputs, 4);
}

TEST(Support, NeedsTwoSamplesOfTheModelsShape) {
    const auto graph = mlp(6, {8}, 3);
    const auto a = random_parameters(graph, 1);
    core::SelfCommunicator alone;
    EXPECT_THROW(support(graph, a, *random_samples(1, 6, 3), alone), core::UsageError);
    EXPECT_THROW(support(graph, a, *random_samples(9, 5, 3), alone), core::UsageError);
}

}  // namespace
}  // namespace thalweg::analysis::support_test
