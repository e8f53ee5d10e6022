#include "thalweg/model/parameters.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <cmath>
#include <limits>

#include "helpers.hpp"
#include "thalweg/core/error.hpp"

namespace thalweg::model::parameters_test {
namespace {

using ::testing::ElementsAre;

Layout small_layout() {
    Layout layout;
    layout.add("a.weight", {2, 3}, Role::weight);
    layout.add("a.bias", {2}, Role::bias);
    layout.add("n.weight", {2}, Role::norm_scale);
    layout.add("n.bias", {2}, Role::norm_shift);
    layout.add("z.weight", {1, 2}, Role::weight);
    layout.add("n.running_mean", {2}, Role::running_mean);
    layout.add("n.running_var", {2}, Role::running_var);
    layout.add_counter("n.num_batches_tracked");
    return layout;
}

TEST(Layout, CountsTrainablesAndBuffers) {
    const auto layout = small_layout();
    EXPECT_EQ(layout.trainable_size(), 6 + 2 + 2 + 2 + 2);
    EXPECT_EQ(layout.size(), 14 + 4);
    EXPECT_EQ(layout.entries()[5].offset, 14);
    EXPECT_FALSE(layout.entries()[5].trainable);
    EXPECT_TRUE(layout.entries()[4].trainable);
    EXPECT_EQ(layout.find("n.bias"), 3U);
    EXPECT_EQ(layout.find("n.num_batches_tracked"), std::nullopt);
    EXPECT_EQ(layout.find("nothing"), std::nullopt);
}

TEST(Layout, OrdersNamesAsPytorchDoes) {
    EXPECT_THAT(small_layout().state_dict_order(),
                ElementsAre("a.weight", "a.bias", "n.weight", "n.bias", "n.running_mean", "n.running_var",
                            "n.num_batches_tracked", "z.weight"));
}

TEST(Layout, RefusesMistakes) {
    auto layout = small_layout();
    EXPECT_THROW(layout.add("late.weight", {1}, Role::weight), std::logic_error);
    EXPECT_THROW(layout.add("n.running_var", {2}, Role::running_var), std::logic_error);
    EXPECT_THROW(layout.add("n.num_batches_tracked", {2}, Role::running_var), std::logic_error);
    EXPECT_THROW(layout.add_counter("n.num_batches_tracked"), std::logic_error);
    EXPECT_THROW(layout.add("m.running_var", {-1}, Role::running_var), std::logic_error);
    const auto huge = std::int64_t{1} << 40;
    EXPECT_THROW(layout.add("m.running_var", {huge, huge}, Role::running_var), std::logic_error);
}

TEST(Layout, ComparesNamesShapesAndRoles) {
    EXPECT_TRUE(small_layout() == small_layout());
    auto more = small_layout();
    more.add("m.running_mean", {1}, Role::running_mean);
    EXPECT_FALSE(small_layout() == more);
    auto counted = small_layout();
    counted.add_counter("m.num_batches_tracked");
    EXPECT_FALSE(small_layout() == counted);
    Layout a, b;
    a.add("w", {2, 3}, Role::weight);
    b.add("w", {3, 2}, Role::weight);
    EXPECT_FALSE(a == b);
}

TEST(Parameters, ViewsShareMemoryAndClonesDoNot) {
    const Parameters parameters(std::make_shared<const Layout>(small_layout()));
    EXPECT_EQ(parameters.values.sum().item<float>(), 0.0F);
    EXPECT_EQ(parameters.counters.size(0), 1);
    const auto copy = parameters.clone();
    parameters.view("a.bias").fill_(3.0);
    EXPECT_EQ(parameters.data()[6], 3.0F);
    EXPECT_EQ(parameters.data()[5], 0.0F);
    EXPECT_EQ(copy.data()[6], 0.0F);
    EXPECT_THAT(parameters.view(0).sizes().vec(), ElementsAre(2, 3));
    EXPECT_EQ(parameters.trainable().size(0), 14);
    EXPECT_THROW(parameters.view("nothing"), std::logic_error);
}

TEST(Parameters, ConvertsBetweenFloatAndDouble) {
    Parameters parameters(std::make_shared<const Layout>(small_layout()));
    parameters.values.fill_(0.1F);
    parameters.counters.fill_(7);
    const auto wide = parameters.to_double();
    EXPECT_TRUE(wide.is_double());
    EXPECT_FALSE(parameters.is_double());
    EXPECT_EQ(wide.values[0].item<double>(), static_cast<double>(0.1F));
    EXPECT_EQ(wide.counters[0].item<std::int64_t>(), 7);
    EXPECT_THROW(wide.data(), std::logic_error);
    EXPECT_TRUE(at::equal(wide.to_float().values, parameters.values));
    // A conversion that changes nothing still gives memory of its own.
    EXPECT_NE(parameters.to_float().data(), parameters.data());
}

TEST(Parameters, FindsTheFirstEntryThatIsNotFinite) {
    Parameters parameters(std::make_shared<const Layout>(small_layout()));
    EXPECT_EQ(parameters.first_non_finite(), std::nullopt);
    parameters.view("n.running_var")[1] = std::numeric_limits<float>::infinity();
    EXPECT_EQ(parameters.first_non_finite(), "n.running_var (1 of 2 values)");
    parameters.view("a.weight")[1][2] = std::nanf("");
    parameters.view("a.weight")[0][2] = -std::numeric_limits<float>::infinity();
    EXPECT_EQ(parameters.first_non_finite(), "a.weight (2 of 6 values)");
    EXPECT_EQ(parameters.to_double().first_non_finite(), "a.weight (2 of 6 values)");
}

TEST(Parameters, SaysWhenMemoryDoesNotSuffice) {
    Layout layout;
    layout.add("w", {std::int64_t{1} << 45}, Role::weight);
    const auto shared = std::make_shared<const Layout>(layout);
    EXPECT_THROW(Parameters{shared}, core::RunError);
}

}  // namespace
}  // namespace thalweg::model::parameters_test
