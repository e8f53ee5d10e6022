#include <torch/types.h>

#include <cmath>

#include "plugins.hpp"
#include "thalweg/analysis/valley.hpp"

// What every noise must do, by itself and as a valley's direction.
namespace thalweg::testing::noises_test {
namespace {

using analysis::Noise;
using analysis::ValleyOptions;

class NoiseContract : public PluginContract {
  protected:
    static model::ModelGraph make_graph() {
        model::GraphBuilder builder({3, 6, 6});
        int value = builder.conv2d("conv", model::GraphBuilder::input, 4, {3, 3});
        value = builder.activation(builder.batch_norm("norm", value), model::ActivationKind::relu);
        builder.linear("head", builder.flatten(value), 5);
        return std::move(builder).build(core::Value::map());
    }
    model::ModelGraph graph_ = make_graph();
    model::Parameters theta_ = [&] {
        core::Random random(1, "noise contract");
        return model::initialise(graph_, random);
    }();
    std::vector<double> draw(std::span<const std::int64_t> places, std::uint64_t seed) const {
        core::Random random(seed, "noise contract");
        return make_plugin<Noise>(GetParam())->draw(graph_, theta_, places, random);
    }
    at::Tensor direction(const std::string& part, const std::string& norm = "global",
                         std::optional<double> ratio = std::nullopt) const {
        const ValleyOptions options{
            .noise = section_of(GetParam()), .sign_ratio = ratio, .norm = norm, .part = part};
        return analysis::valley_direction(graph_, theta_, options, 1, 0);
    }
};

TEST_P(NoiseContract, GivesOneFiniteNumberForEachPlace) {
    for (const std::string part : {"all", "classifier", "conv.weight"}) {
        const auto places = analysis::part_places(graph_, part);
        const auto numbers = draw(places, 3);
        ASSERT_EQ(numbers.size(), places.size());
        double largest = 0;
        for (const double number : numbers) {
            ASSERT_TRUE(std::isfinite(number));
            largest = std::max(largest, std::abs(number));
        }
        EXPECT_GT(largest, 0) << part;
        EXPECT_EQ(draw(places, 3), numbers);
    }
}

TEST_P(NoiseContract, StaysInThePartAskedFor) {
    for (const std::string part : {"all", "features", "classifier", "head.weight"}) {
        const auto epsilon = direction(part);
        EXPECT_EQ(epsilon.numel(), graph_.layout->size());
        EXPECT_TRUE(epsilon.isfinite().all().item<bool>());
        EXPECT_TRUE(at::equal(epsilon, direction(part)));
        std::vector<bool> in_part(static_cast<std::size_t>(epsilon.numel()), false);
        double squares = 0;
        for (const auto place : analysis::part_places(graph_, part)) {
            in_part[static_cast<std::size_t>(place)] = true;
            squares += std::pow(theta_.values[place].item<double>(), 2);
        }
        for (std::int64_t i = 0; i < epsilon.numel(); ++i) {
            if (!in_part[static_cast<std::size_t>(i)]) {
                ASSERT_EQ(epsilon.data_ptr<double>()[i], 0) << i;
            }
        }
        EXPECT_NEAR(epsilon.norm().item<double>(), std::sqrt(squares), 1e-9) << part;
    }
}

TEST_P(NoiseContract, HasTheSignsAskedFor) {
    const auto along = direction("head.weight", "global", 1.0),
               against = direction("head.weight", "global", 0.0);
    EXPECT_TRUE((along * theta_.values).ge(0).all().item<bool>());
    EXPECT_TRUE(at::equal(along, -against));
    EXPECT_TRUE(direction("all", "filter", 0.5).isfinite().all().item<bool>());
}

TEST_P(NoiseContract, DoesNotWriteIntoTheModel) {
    const auto before = theta_.clone();
    direction("all");
    EXPECT_TRUE(at::equal(before.values, theta_.values));
}

INSTANTIATE_TEST_SUITE_P(Registered, NoiseContract, ::testing::ValuesIn(cases_of("noise")), plugin_case_name);

}  // namespace
}  // namespace thalweg::testing::noises_test
