#include <array>
#include <cmath>

#include "contract/plugins.hpp"
#include "thalweg/clients/training.hpp"

/// What every registered algorithm, objective and schedule must do.
namespace thalweg::testing::clients_test {
namespace {

constexpr std::size_t size = 67;  // not a multiple of any vector's width

/// Numbers of either sign, none near zero, where some terms have a kink.
std::vector<float> random_values(std::uint64_t seed) {
    core::Random random(seed, "contract");
    std::vector<float> values(size);
    for (auto& value : values) {
        value = static_cast<float>((random.uniform() < 0.5 ? -1 : 1) * random.uniform(0.1, 1.0));
    }
    return values;
}

class AlgorithmContract : public PluginContract {
  protected:
    /// Σ (values − target)²/2 and its gradient.
    double quadratic(std::vector<float>& gradient) const {
        double sum = 0;
        for (std::size_t i = 0; i < size; ++i) {
            gradient[i] = values_[i] - target_[i];
            sum += 0.5 * static_cast<double>(gradient[i]) * gradient[i];
        }
        return sum;
    }

    /// The losses before each of so many steps from the start, and after them.
    std::vector<double> train(clients::Algorithm& algorithm, int steps) {
        values_ = random_values(1);
        std::vector<double> losses;
        std::vector<float> gradient(size);
        for (int step = 0; step < steps; ++step) {
            losses.push_back(quadratic(gradient));
            algorithm.step(values_, gradient, algorithm.learning_rate());
        }
        losses.push_back(quadratic(gradient));
        return losses;
    }

    std::vector<float> target_ = random_values(2);
    std::vector<float> values_ = random_values(1);
};

TEST_P(AlgorithmContract, ALearningRateOfZeroMovesNothing) {
    const auto algorithm = make_plugin<clients::Algorithm>(GetParam());
    algorithm->start(size);
    std::vector<float> gradient(size);
    for (int step = 0; step < 3; ++step) {
        quadratic(gradient);
        algorithm->step(values_, gradient, 0.0);
        EXPECT_EQ(values_, random_values(1)) << "step " << step;
    }
}

TEST_P(AlgorithmContract, LowersAQuadratic) {
    const auto algorithm = make_plugin<clients::Algorithm>(GetParam());
    EXPECT_GT(algorithm->learning_rate(), 0);
    algorithm->start(size);
    const auto losses = train(*algorithm, 20);
    for (std::size_t i = 1; i < losses.size(); ++i) EXPECT_LT(losses[i], losses[i - 1]) << "step " << i;
}

TEST_P(AlgorithmContract, StartForgets) {
    const auto used = make_plugin<clients::Algorithm>(GetParam());
    used->start(size);
    train(*used, 5);
    const auto expected = values_;
    EXPECT_NE(expected, random_values(1));
    used->start(size);
    train(*used, 5);
    EXPECT_EQ(values_, expected);

    // After a model of another size, too, and as a new one does it.
    std::vector<float> other(2 * size, 1.0F);
    used->start(2 * size);
    used->step(other, other, 0.1);
    used->start(size);
    train(*used, 5);
    EXPECT_EQ(values_, expected);
    const auto fresh = make_plugin<clients::Algorithm>(GetParam());
    fresh->start(size);
    train(*fresh, 5);
    EXPECT_EQ(values_, expected);
}

TEST_P(AlgorithmContract, DoesNotWriteIntoTheGradient) {
    const auto algorithm = make_plugin<clients::Algorithm>(GetParam());
    algorithm->start(size);
    const auto gradient = random_values(3);
    algorithm->step(values_, gradient, 0.1);
    EXPECT_EQ(gradient, random_values(3));
}

class ObjectiveContract : public PluginContract {
  protected:
    struct Added {
        double value;
        std::vector<float> gradient;
    };
    Added add(const std::vector<float>& local, const std::vector<float>& global, float before = 0) const {
        Added result{0, std::vector<float>(size, before)};
        result.value = objective_->add(local, global, result.gradient);
        return result;
    }
    std::unique_ptr<clients::Objective> objective_ = make_plugin<clients::Objective>(GetParam());
    std::vector<float> local_ = random_values(4), global_ = random_values(5);
};

TEST_P(ObjectiveContract, GradientIsTheSlopeOfTheValue) {
    global_[7] = 0;
    const auto gradient = add(local_, global_).gradient;
    double largest = 0;
    for (const float g : gradient) largest = std::max(largest, static_cast<double>(std::abs(g)));
    for (std::size_t i = 0; i < size; ++i) {
        auto above = local_, below = local_;
        above[i] += 0.01F;
        below[i] -= 0.01F;
        const double run = static_cast<double>(above[i]) - below[i];
        const double slope = (add(above, global_).value - add(below, global_).value) / run;
        EXPECT_NEAR(gradient[i], slope, 1e-3 * largest) << "element " << i;
    }
}

TEST_P(ObjectiveContract, AddsToTheGradientThatIsThere) {
    const auto alone = add(local_, global_), onto = add(local_, global_, 0.25F);
    EXPECT_EQ(alone.value, onto.value);
    for (std::size_t i = 0; i < size; ++i) EXPECT_NEAR(onto.gradient[i], 0.25F + alone.gradient[i], 1e-6);
}

TEST_P(ObjectiveContract, EmptyMeansThatNothingIsAdded) {
    const auto added = add(local_, global_, 0.25F);
    const bool nothing = added.value == 0 && added.gradient == std::vector<float>(size, 0.25F);
    EXPECT_EQ(objective_->empty(), nothing);
}

TEST_P(ObjectiveContract, TermsAboutTheStartVanishThere) {
    const std::array<std::string, 3> known{"none", "fedprox", "fedsign"};
    if (std::find(known.begin(), known.end(), GetParam().name) == known.end())
        GTEST_SKIP() << "not known to be such a term";
    const auto added = add(local_, local_);
    EXPECT_EQ(added.value, 0);
    EXPECT_EQ(added.gradient, std::vector<float>(size, 0.0F));
}

class ScheduleContract : public PluginContract {};

TEST_P(ScheduleContract, BeginsAtOneAndStaysAboveZero) {
    const auto schedule = core::Registry<std::unique_ptr<clients::Schedule>>::make(section_of(GetParam()));
    for (const std::int64_t steps : {1, 2, 7, 40}) {
        for (const std::int64_t rounds : {1, 2, 9}) {
            EXPECT_EQ(schedule->factor({0, steps, 1, rounds}), 1.0);
            for (std::int64_t round = 1; round <= rounds; ++round) {
                for (std::int64_t step = 0; step < steps; ++step) {
                    const double factor = schedule->factor({step, steps, round, rounds});
                    EXPECT_GT(factor, 0.0) << "step " << step << " of " << steps << ", round " << round;
                    EXPECT_LE(factor, 1.0) << "step " << step << " of " << steps << ", round " << round;
                }
            }
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Registered, AlgorithmContract, ::testing::ValuesIn(cases_of("algorithm")),
                         plugin_case_name);
INSTANTIATE_TEST_SUITE_P(Registered, ObjectiveContract, ::testing::ValuesIn(cases_of("objective")),
                         plugin_case_name);
INSTANTIATE_TEST_SUITE_P(Registered, ScheduleContract, ::testing::ValuesIn(cases_of("schedule")),
                         plugin_case_name);

}  // namespace
}  // namespace thalweg::testing::clients_test
