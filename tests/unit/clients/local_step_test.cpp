#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "helpers.hpp"

namespace thalweg::clients::local_step_test {
namespace {

using test::graph_of;
using test::initial;

struct Batch {
    at::Tensor x, y;
};

Batch random_batch(const model::ModelGraph& graph, std::int64_t n, core::Random& random) {
    auto shape = graph.input_shape();
    shape.insert(shape.begin(), n);
    Batch batch{at::empty(shape, at::kFloat), at::empty({n}, at::kLong)};
    for (std::int64_t i = 0; i < batch.x.numel(); ++i)
        batch.x.data_ptr<float>()[i] = static_cast<float>(random.normal());
    for (std::int64_t i = 0; i < n; ++i) batch.y.data_ptr<std::int64_t>()[i] = random.below(graph.classes());
    return batch;
}

/// The largest difference, as a share of the largest gradient.
double relative_difference(const at::Tensor& a, const at::Tensor& b) {
    return ((a - b).abs().max() / b.abs().max()).item<double>();
}

model::ModelGraph random_chain(core::Random& random) {
    const bool image = random.below(2) == 0;
    model::GraphBuilder builder(image ? std::vector<std::int64_t>{2, 3, 1 + random.below(4)}
                                      : std::vector<std::int64_t>{1 + random.below(40)});
    int value = model::GraphBuilder::input;
    if (image) value = builder.flatten(value);
    const auto depth = random.below(4);
    for (std::int64_t layer = 0; layer < depth; ++layer) {
        value =
            builder.linear("layer" + std::to_string(layer), value, 1 + random.below(30), random.below(3) > 0);
        const auto kind = random.below(4);
        if (kind < 3) value = builder.activation(value, static_cast<model::ActivationKind>(kind));
    }
    builder.linear("last", value, 2 + random.below(8), random.below(3) > 0);
    return std::move(builder).build(core::Value::map());
}

TEST(CompiledStep, AgreesWithAutogradOnRandomChains) {
    core::Random random(11, "test");
    for (int trial = 0; trial < 60; ++trial) {
        const auto graph = random_chain(random);
        const auto compiled = compiled_step(graph);
        ASSERT_NE(compiled, nullptr);
        const auto oracle = autograd_step(graph);
        const auto parameters = initial(graph, static_cast<std::uint64_t>(trial));
        compiled->bind(parameters);
        oracle->bind(parameters);
        for (int batch = 0; batch < 5; ++batch) {  // sizes go up and down
            const auto [x, y] = random_batch(graph, 1 + random.below(17), random);
            const double expected = oracle->compute(x, y);
            EXPECT_NEAR(compiled->compute(x, y), expected, 1e-5 * expected) << "trial " << trial;
            EXPECT_LT(relative_difference(compiled->gradient(), oracle->gradient()), 1e-5)
                << "trial " << trial;
        }
    }
}

TEST(CompiledStep, SameBitsWhateverCameBefore) {
    const auto graph = graph_of("{kind: mlp, hidden: [30, 20], activation: gelu}", {1, 5, 5}, 4);
    const auto parameters = initial(graph);
    core::Random random(1, "test");
    const auto used = compiled_step(graph);
    used->bind(initial(graph, 9));
    for (const std::int64_t n : {3, 64, 1}) {
        const auto [x, y] = random_batch(graph, n, random);
        used->compute(x, y);
    }
    used->bind(parameters);
    const auto fresh = compiled_step(graph);
    fresh->bind(parameters);
    const auto [x, y] = random_batch(graph, 10, random);
    EXPECT_EQ(used->compute(x, y), fresh->compute(x, y));
    EXPECT_TRUE(test::same_bits(used->gradient(), fresh->gradient()));
}

TEST(CompiledStep, SmallerBatchesAllocateNothing) {
    const auto graph = graph_of("{kind: mlp, hidden: [8]}", {4}, 3);
    const auto step = compiled_step(graph);
    step->bind(initial(graph));
    const auto* before = step->gradient().data_ptr<float>();
    core::Random random(1, "test");
    for (const std::int64_t n : {8, 3, 8, 1}) {
        const auto [x, y] = random_batch(graph, n, random);
        step->compute(x, y);
        EXPECT_EQ(step->gradient().data_ptr<float>(), before);
    }
}

TEST(CompiledStep, SeesParametersAsTheyChange) {
    const auto graph = graph_of("linear", {6}, 3);
    auto parameters = initial(graph);
    const auto step = compiled_step(graph);
    step->bind(parameters);
    core::Random random(1, "test");
    const auto [x, y] = random_batch(graph, 4, random);
    step->compute(x, y);
    parameters.values.zero_();
    EXPECT_NEAR(step->compute(x, y), std::log(3.0), 1e-7);
}

TEST(CompiledStep, LeavesOtherGraphsToAutograd) {
    for (const char* yaml :
         {"{kind: mlp, hidden: [8], norm: batch}", "{kind: mlp, hidden: [8], norm: layer}"}) {
        const auto graph = graph_of(yaml, {5}, 3);
        EXPECT_EQ(compiled_step(graph), nullptr) << yaml;
        EXPECT_EQ(make_local_step(graph)->name(), "autograd") << yaml;
    }
    EXPECT_EQ(make_local_step(graph_of("{kind: mlp}", {5}, 3))->name(), "compiled");
    EXPECT_EQ(make_local_step(graph_of("linear", {1, 4, 4}, 3))->name(), "compiled");
}

TEST(CompiledStep, LargeAndNonFiniteLogits) {
    const auto graph = graph_of("linear", {2}, 3);
    auto parameters = initial(graph);
    const auto step = compiled_step(graph);
    step->bind(parameters);
    const auto x = at::ones({1, 2}, at::kFloat);
    const auto y = at::zeros({1}, at::kLong);
    parameters.values.zero_();
    parameters.view(std::size_t{0}).fill_(1e4F);  // equal logits of 20,000: no overflow
    EXPECT_NEAR(step->compute(x, y), std::log(3.0), 1e-6);
    for (const float bad :
         {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
        for (std::int64_t entry = 0; entry < parameters.values.numel(); ++entry) {
            parameters.values.zero_();
            parameters.data()[entry] = bad;
            EXPECT_FALSE(std::isfinite(step->compute(x, y))) << entry;
        }
    }
}

TEST(CompiledStep, RefusesLabelsOutsideTheClasses) {
    const auto graph = graph_of("linear", {2}, 3);
    for (const auto& step : {compiled_step(graph), autograd_step(graph)}) {
        step->bind(initial(graph));
        const auto x = at::ones({1, 2}, at::kFloat);
        EXPECT_ANY_THROW(step->compute(x, at::full({1}, 3, at::kLong))) << step->name();
        EXPECT_ANY_THROW(step->compute(x, at::full({1}, -1, at::kLong))) << step->name();
    }
}

TEST(AutogradStep, GradientsDoNotPileUp) {
    const auto graph = graph_of("{kind: mlp, hidden: [6], norm: layer}", {4}, 3);
    const auto step = autograd_step(graph);
    step->bind(initial(graph));
    core::Random random(1, "test");
    const auto [x, y] = random_batch(graph, 4, random);
    step->compute(x, y);
    const auto once = step->gradient().clone();
    step->compute(x, y);
    EXPECT_TRUE(test::same_bits(once, step->gradient()));
}

}  // namespace
}  // namespace thalweg::clients::local_step_test
