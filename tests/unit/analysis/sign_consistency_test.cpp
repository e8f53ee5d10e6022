#include <gtest/gtest.h>
#include <torch/types.h>

#include <cmath>
#include <map>

#include "models.hpp"
#include "thalweg/analysis/measures.hpp"
#include "thalweg/core/error.hpp"

namespace thalweg::analysis::sign_consistency_test {
namespace {

using thalweg::testing::linear_model;
using thalweg::testing::mlp;
using thalweg::testing::random_parameters;
using thalweg::testing::set;

std::map<std::string, double> by_name(const SignConsistency& signs) {
    return {signs.tensors.begin(), signs.tensors.end()};
}

TEST(SignConsistency, OneWithItselfAndZeroWithItsNegative) {
    const auto graph = mlp(5, {6}, 3);
    const auto a = random_parameters(graph, 1);
    EXPECT_EQ(sign_consistency(a, a).overall, 1);
    auto b = a.clone();
    b.values.neg_();
    const auto signs = sign_consistency(a, b);
    EXPECT_EQ(signs.overall, 0);
    ASSERT_EQ(signs.tensors.size(), 4u);
    for (const auto& [name, ratio] : signs.tensors) EXPECT_EQ(ratio, 0) << name;
}

TEST(SignConsistency, OfIndependentModelsIsAHalf) {
    const auto graph = mlp(50, {100, 100}, 10);
    const auto signs = sign_consistency(random_parameters(graph, 1), random_parameters(graph, 2));
    EXPECT_NEAR(signs.overall, 0.5, 0.015);  // 16,210 entries: the deviation is 0.004
}

TEST(SignConsistency, LeavesOutWhatIsZeroInBoth) {
    const auto graph = linear_model(3, 2);
    const model::Parameters a(graph.layout), b(graph.layout);
    set(a, "layers.0.weight", {1, 0, 0, -1, 2, -0.0F});
    set(b, "layers.0.weight", {2, 0, 3, -1, -1, 0});
    const auto signs = sign_consistency(a, b);  // agree: 0, 3; counted: 0, 2, 3, 4
    EXPECT_EQ(signs.overall, 2.0 / 4);
    ASSERT_EQ(signs.tensors.size(), 1u);  // the bias is zero in both
    EXPECT_EQ(signs.tensors[0].first, "layers.0.weight");
    EXPECT_EQ(signs.tensors[0].second, 2.0 / 4);
    const auto nothing = sign_consistency(model::Parameters(graph.layout), model::Parameters(graph.layout));
    EXPECT_TRUE(std::isnan(nothing.overall));
    EXPECT_TRUE(nothing.tensors.empty());
}

TEST(SignConsistency, WeighsByMagnitudeAndTestsAgainstChance) {
    const auto graph = linear_model(2, 2);
    const model::Parameters a(graph.layout), b(graph.layout);
    set(a, "layers.0.weight", {1, -2, 3, 0});
    set(b, "layers.0.weight", {4, 5, 1, 7});  // products 4, −10, 3, 0
    set(a, "layers.0.bias", {1, 1});
    set(b, "layers.0.bias", {2, -0.5});
    const auto signs = sign_consistency(a, b);
    ASSERT_EQ(signs.by_tensor.size(), 2u);
    const auto& [name, weight] = signs.by_tensor[0];
    EXPECT_EQ(name, "layers.0.weight");
    EXPECT_EQ(weight.agree, 2);
    EXPECT_EQ(weight.counted, 4);
    EXPECT_EQ(weight.tested, 3);
    EXPECT_DOUBLE_EQ(weight.weighted, 7.0 / 17);
    EXPECT_DOUBLE_EQ(weight.z, (2 - 1.5) / (std::sqrt(3.0) / 2));
    EXPECT_NEAR(weight.p, 0.5637, 1e-4);  // 2(1 − Φ(0.57735))
    EXPECT_EQ(signs.all.agree, 3);
    EXPECT_EQ(signs.all.counted, 6);
    EXPECT_DOUBLE_EQ(signs.all.weighted, 9.0 / 19.5);
    EXPECT_EQ(signs.all.ratio, signs.overall);
    const auto nothing = sign_consistency(model::Parameters(graph.layout), model::Parameters(graph.layout));
    EXPECT_TRUE(std::isnan(nothing.all.weighted) && std::isnan(nothing.all.z) && std::isnan(nothing.all.p));
}

TEST(SignConsistency, OfIndependentModelsLiesWithinChance) {
    const auto graph = mlp(50, {100, 100}, 10);
    double squares = 0;
    for (std::uint64_t seed = 0; seed < 40; ++seed) {
        const auto signs = sign_consistency(random_parameters(graph, 2 * seed + 10),
                                            random_parameters(graph, 2 * seed + 11));
        squares += signs.all.z * signs.all.z / 40;
        EXPECT_LT(std::abs(signs.all.z), 4.5);
    }
    EXPECT_NEAR(squares, 1, 0.7);  // z is standard normal
}

TEST(SignConsistency, TinyNumbersHaveSigns) {
    const auto graph = linear_model(1, 2);
    const model::Parameters a(graph.layout), b(graph.layout);
    set(a, "layers.0.weight", {1e-38F, -1e-38F});
    set(b, "layers.0.weight", {1e-38F, 1e-38F});
    EXPECT_EQ(sign_consistency(a, b).overall, 0.5);
}

TEST(SignConsistency, NormScalesAreShownButNotInTheHeadlineAndBuffersNotAtAll) {
    const auto graph = mlp(4, {5}, 3, true);
    const auto a = random_parameters(graph, 1);
    set(a, "norms.0.weight", {1, 1, 1, 1, 1});
    auto b = a.clone();
    b.values.neg_();
    set(b, "norms.0.weight", {1, 1, 1, 1, 1});
    const auto signs = sign_consistency(a, b);
    EXPECT_EQ(signs.overall, 0);
    EXPECT_EQ(by_name(signs).at("norms.0.weight"), 1);
    EXPECT_EQ(by_name(signs).at("norms.0.bias"), 0);
    EXPECT_EQ(by_name(signs).count("norms.0.running_mean"), 0u);
}

TEST(SignConsistency, AgreesWithTheSlowWayInFloatAndDouble) {
    const auto graph = mlp(4, {5}, 3, true);
    auto a = random_parameters(graph, 1), b = random_parameters(graph, 2);
    a.values.narrow(0, 3, 4).zero_();
    b.values.narrow(0, 5, 4).zero_();
    double agree = 0, counted = 0;
    for (const auto& entry : graph.layout->entries()) {
        if (!entry.trainable || entry.role == model::Role::norm_scale) continue;
        for (std::int64_t i = entry.offset; i < entry.offset + entry.size; ++i) {
            const double product = a.values[i].item<double>() * b.values[i].item<double>();
            if (a.values[i].item<double>() == 0 && b.values[i].item<double>() == 0) continue;
            counted += 1;
            agree += product > 0 ? 1 : 0;
        }
    }
    EXPECT_EQ(sign_consistency(a, b).overall, agree / counted);
    EXPECT_EQ(sign_consistency(a.to_double(), b.to_double()).overall, agree / counted);
}

TEST(SignConsistency, OfDifferentArchitecturesIsAnError) {
    const auto a = random_parameters(linear_model(3, 2), 1), b = random_parameters(linear_model(2, 3), 1);
    EXPECT_THROW(sign_consistency(a, b), core::RunError);
    EXPECT_THROW(sign_consistency(a, a.to_double()), core::RunError);
}

}  // namespace
}  // namespace thalweg::analysis::sign_consistency_test
