#include "thalweg/analysis/hessian.hpp"

#include <ATen/ops/linalg_eigvalsh.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <cmath>

#include "models.hpp"
#include "thalweg/analysis/evaluate.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/model/interpreter.hpp"
#include "unit/support/memory_samples.hpp"
#include "unit/support/thread_communicator.hpp"

namespace thalweg::analysis::hessian_test {
namespace {

using ::testing::HasSubstr;
using thalweg::testing::linear_model;
using thalweg::testing::MemorySamples;
using thalweg::testing::mlp;
using thalweg::testing::random_parameters;
using thalweg::testing::random_samples;
using thalweg::testing::run_ranks;

std::pair<at::Tensor, at::Tensor> all_of(const data::SampleSet& samples) {
    std::vector<std::int64_t> indices;
    for (std::int64_t i = 0; i < samples.size(); ++i) indices.push_back(i);
    const auto x = at::empty({samples.size(), samples.width()}), y = at::empty({samples.size()}, at::kLong);
    samples.gather(indices, x.data_ptr<float>(), y.data_ptr<std::int64_t>());
    return {x.to(at::kDouble), y};
}

/// The gradient of the mean cross-entropy, once differentiated, in double.
at::Tensor gradient(const model::ModelGraph& graph, const model::Parameters& exact, const at::Tensor& x,
                    const at::Tensor& y) {
    const auto sum = at::zeros({graph.layout->trainable_size()}, at::kDouble);
    const at::AutoGradMode recording(true);
    const auto views = model::leaf_views(exact, sum);
    at::cross_entropy_loss(model::forward(graph, views, x, model::Mode::evaluate), y).backward();
    return sum;
}

/// Column by column from differences of gradients: no second derivative is taken.
at::Tensor slow_hessian(const model::ModelGraph& graph, const model::Parameters& parameters,
                        const data::SampleSet& samples) {
    const auto [flat, y] = all_of(samples);
    std::vector<std::int64_t> shape = graph.input_shape();
    shape.insert(shape.begin(), samples.size());
    const auto x = flat.view(shape);
    const std::int64_t n = graph.layout->trainable_size();
    constexpr double h = 1e-5;
    const auto hessian = at::empty({n, n}, at::kDouble);
    for (std::int64_t i = 0; i < n; ++i) {
        auto up = parameters.to_double().clone(), down = parameters.to_double().clone();
        up.values.data_ptr<double>()[i] += h;
        down.values.data_ptr<double>()[i] -= h;
        hessian.select(1, i).copy_((gradient(graph, up, x, y) - gradient(graph, down, x, y)) / (2 * h));
    }
    return (hessian + hessian.t()) / 2;
}

/// Smooth (tanh), so that differences of gradients are derivatives everywhere; with a batch norm.
model::ModelGraph smooth_model() {
    model::GraphBuilder builder({4});
    int value = builder.linear("layers.0", model::GraphBuilder::input, 5);
    value = builder.batch_norm("norms.0", value);
    value = builder.activation(value, model::ActivationKind::tanh);
    builder.linear("head", value, 3);
    return std::move(builder).build(core::Value::map());
}

std::vector<double> descending(const at::Tensor& hessian) {
    const auto values = at::linalg_eigvalsh(hessian, "L");
    std::vector<double> sorted;
    for (std::int64_t i = values.size(0); i-- > 0;) sorted.push_back(values[i].item<double>());
    return sorted;
}

TEST(Hessian, ProductsAreThoseOfTheExactHessian) {
    const auto graph = smooth_model();
    const auto parameters = random_parameters(graph, 3, 0.7);
    const auto samples = random_samples(230, 4, 3);  // three chunks
    const auto exact = slow_hessian(graph, parameters, *samples);
    core::SelfCommunicator alone;
    core::Random random(5, "vector");
    std::vector<double> v;
    for (std::int64_t i = 0; i < exact.size(0); ++i) v.push_back(random.normal());
    const auto product = hessian_product(graph, parameters, *samples, v, alone);
    const auto expected = at::matmul(exact, at::tensor(v, at::kDouble));
    for (std::size_t i = 0; i < product.size(); ++i)
        EXPECT_NEAR(product[i], expected[static_cast<std::int64_t>(i)].item<double>(), 1e-7);
}

TEST(Hessian, TopEigenvaluesAreThoseOfTheExactHessianOnAnyNumberOfRanks) {
    const auto graph = smooth_model();
    const auto parameters = random_parameters(graph, 3, 0.7);
    const auto samples = random_samples(230, 4, 3);
    const auto expected = descending(slow_hessian(graph, parameters, *samples));
    std::vector<double> first;
    for (const int ranks : {1, 3}) {
        run_ranks(ranks, [&](core::Communicator& communicator) {
            const auto top = top_eigenvalues(graph, parameters, *samples, 4, {}, 1, communicator);
            if (communicator.rank() + 1 != communicator.size()) return;
            ASSERT_EQ(top.eigenvalues.size(), 4u);
            EXPECT_TRUE(top.converged);
            EXPECT_EQ(top.parameters, 4 * 5 + 5 + 5 + 5 + 5 * 3 + 3);
            for (std::size_t i = 0; i < 4; ++i) {
                EXPECT_NEAR(top.eigenvalues[i], expected[i], 1e-6 * expected[0]);
                EXPECT_LT(top.residuals[i], 2e-6 * expected[0]);
            }
            EXPECT_GE(top.smallest, expected.back() - 1e-6);
            if (first.empty()) first = top.eigenvalues;
            EXPECT_EQ(top.eigenvalues, first);
        });
    }
}

TEST(Hessian, AllEigenvaluesComeOutWhenAllAreAskedFor) {
    const auto graph = linear_model(3, 3);  // singular: a shift of all logits changes nothing
    const auto parameters = random_parameters(graph, 2);
    const auto samples = random_samples(60, 3, 3);
    const auto expected = descending(slow_hessian(graph, parameters, *samples));
    core::SelfCommunicator alone;
    const auto top = top_eigenvalues(graph, parameters, *samples, 12, {.steps = 0, .tolerance = 0}, 1, alone);
    ASSERT_EQ(top.eigenvalues.size(), 12u);
    for (std::size_t i = 0; i < 12; ++i) EXPECT_NEAR(top.eigenvalues[i], expected[i], 1e-7) << i;
}

TEST(Hessian, OfTwoClassesOnOneInputIsThatWrittenDown) {
    // Logits (ax, bx) without bias gradients: p(1 − p) (x, 1) ⊗ (x, 1) on both classes' entries, with signs.
    const auto graph = linear_model(1, 2);
    const model::Parameters zero(graph.layout);
    const MemorySamples samples(1, {3}, {0});
    core::SelfCommunicator alone;
    const auto top = top_eigenvalues(graph, zero, samples, 1, {}, 1, alone);
    EXPECT_NEAR(top.eigenvalues[0], 0.25 * (9 + 1) * 2, 1e-12);  // p(1−p)·‖(x, 1, −x, −1)‖²
    EXPECT_NEAR(hutchinson_trace(graph, zero, samples, 400, 1, alone).trace, 5, 0.8);
}

TEST(Hessian, ConvolutionsPoolsAndNormsAreDifferentiatedTwice) {
    model::GraphBuilder builder({1, 6, 6});
    int value = builder.conv2d("conv", model::GraphBuilder::input, 3, {3, 3});
    value = builder.layer_norm("norm", value);
    value = builder.activation(value, model::ActivationKind::silu);
    value = builder.avg_pool2d(value, {2, 2}, {2, 2});
    builder.linear("head", builder.flatten(value), 3);
    const auto graph = std::move(builder).build(core::Value::map());
    const auto parameters = random_parameters(graph, 4, 0.5);
    const auto x = random_samples(40, 36, 3);
    core::SelfCommunicator alone;
    const auto expected = descending(slow_hessian(graph, parameters, *x));
    const auto top = top_eigenvalues(graph, parameters, *x, 3, {}, 1, alone);
    for (std::size_t i = 0; i < 3; ++i) EXPECT_NEAR(top.eigenvalues[i], expected[i], 1e-6 * expected[0]);
}

TEST(Hessian, HutchinsonsMeanIsTheTrace) {
    const auto graph = smooth_model();
    const auto parameters = random_parameters(graph, 3, 0.7);
    const auto samples = random_samples(120, 4, 3);
    const double expected = slow_hessian(graph, parameters, *samples).trace().item<double>();
    std::vector<double> first;
    for (const int ranks : {1, 3}) {
        run_ranks(ranks, [&](core::Communicator& communicator) {
            const auto trace = hutchinson_trace(graph, parameters, *samples, 200, 1, communicator);
            if (communicator.rank() != 0) return;
            EXPECT_LT(std::abs(trace.trace - expected), 4 * trace.standard_error);
            EXPECT_LT(trace.standard_error, 0.2 * expected);
            if (first.empty()) first = trace.probes;
            EXPECT_EQ(trace.probes, first);
        });
    }
}

TEST(Hessian, DensityIntegratesToOneAndHasTheTracesMean) {
    const auto graph = smooth_model();
    const auto parameters = random_parameters(graph, 3, 0.7);
    const auto samples = random_samples(120, 4, 3);
    core::SelfCommunicator alone;
    const auto density = spectral_density(
        graph, parameters, *samples, {.probes = 3, .steps = 100, .points = 600, .width = 0.02}, 7, alone);
    double integral = 0, mean = 0;
    for (std::size_t i = 1; i < density.grid.size(); ++i) {
        const double step = density.grid[i] - density.grid[i - 1];
        integral += step * (density.density[i] + density.density[i - 1]) / 2;
        mean +=
            step * (density.density[i] * density.grid[i] + density.density[i - 1] * density.grid[i - 1]) / 2;
    }
    EXPECT_NEAR(integral, 1, 1e-3);
    const auto trace = hutchinson_trace(graph, parameters, *samples, 3, 7, alone);
    const auto n = static_cast<double>(density.parameters);
    EXPECT_NEAR(density.mean, trace.trace / n, 1e-9);  // of the same probes
    EXPECT_NEAR(mean, density.mean, 2e-3 * (density.largest - density.smallest));
    const auto expected = descending(slow_hessian(graph, parameters, *samples));
    EXPECT_NEAR(density.largest, expected.front(), 1e-6);
    EXPECT_NEAR(density.smallest, expected.back(), 1e-6);
}

TEST(Hessian, SaysWhatIsWrong) {
    const auto graph = linear_model(3, 2);
    const auto parameters = random_parameters(graph, 1);
    const auto samples = random_samples(10, 3, 2), other = random_samples(10, 4, 2),
               labels = random_samples(10, 3, 9);
    core::SelfCommunicator alone;
    const auto fault = [&](const auto& work) -> std::string {
        try {
            work();
        } catch (const core::Error& error) {
            return error.what();
        }
        return "no error";
    };
    const auto top = [&](const data::SampleSet& set, std::int64_t k, LanczosOptions options = {}) {
        return fault([&] { top_eigenvalues(graph, parameters, set, k, options, 1, alone); });
    };
    EXPECT_THAT(top(*samples, 0), HasSubstr("1 to 8 eigenvalues"));
    EXPECT_THAT(top(*samples, 9), HasSubstr("1 to 8 eigenvalues"));
    EXPECT_THAT(top(*samples, 3, {.steps = 2}), HasSubstr("at least as many, not 2"));
    EXPECT_THAT(top(*other, 1), HasSubstr("the samples have 4 numbers each"));
    EXPECT_THAT(top(*labels, 1), HasSubstr("2 classes apart"));
    EXPECT_THAT(fault([&] { hutchinson_trace(graph, parameters, *samples, 0, 1, alone); }),
                HasSubstr("at least 1 random probe"));
    const auto density = [&](DensityOptions options) {
        return fault([&] { spectral_density(graph, parameters, *samples, options, 1, alone); });
    };
    EXPECT_THAT(density({.points = 20}), HasSubstr("too coarse"));
    EXPECT_THAT(density({.width = 0}), HasSubstr("width"));
    EXPECT_THAT(density({.steps = 0}), HasSubstr("at least 1 step"));
    const auto wide = linear_model(1000, 1000);  // a million steps of a million numbers
    const auto values = random_parameters(wide, 1);
    const auto few = random_samples(2, 1000, 1000);
    EXPECT_THAT(fault([&] { top_eigenvalues(wide, values, *few, 1, {.steps = 1000000}, 1, alone); }),
                HasSubstr("--steps"));
    EXPECT_THAT(fault([&] { spectral_density(wide, values, *few, {.steps = 1000000}, 1, alone); }),
                HasSubstr("--density-steps"));
}

}  // namespace
}  // namespace thalweg::analysis::hessian_test
