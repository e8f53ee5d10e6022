#include "thalweg/federation/instability.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "thalweg/analysis/evaluate.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/random.hpp"
#include "unit/support/thread_communicator.hpp"

namespace thalweg::federation::instability_test {
namespace {

using ::testing::HasSubstr;
using thalweg::testing::run_ranks;

Experiment small(const std::vector<std::string>& overrides = {}) {
    return make_experiment(core::parse_yaml(R"(
seed: 5
data:
  dataset: {kind: gaussian_mixture, classes: 4, dimension: 8, train: 400, test: 200, separation: 2}
  partition: {scheme: iid, clients: 2}
model: {kind: mlp, hidden: [10]}
clients: {algorithm: {kind: sgd, lr: 0.5}, epochs: 3, batch_size: 20}
server: {}
)",
                                            "test.yaml"),
                           overrides);
}

InstabilityResult measure(const std::vector<std::int64_t>& steps, const InstabilityOptions& options = {},
                          const std::vector<std::string>& overrides = {}) {
    const auto experiment = small(overrides);
    core::SelfCommunicator alone;
    return instability(experiment, open_setting(experiment, alone), steps, options, alone);
}

TEST(Instability, NothingWhereTheCopiesPartAtTheEnd) {
    const auto result = measure({0, 30, 60}, {.points = 5});
    EXPECT_EQ(result.last, 60);
    ASSERT_EQ(result.steps.size(), 3u);
    EXPECT_EQ(result.steps[2].step, 60);
    EXPECT_EQ(result.steps[2].test_barrier, 0);
    EXPECT_EQ(result.steps[2].train_barrier, 0);
    EXPECT_EQ(result.steps[2].loss_barrier, 0);
    EXPECT_TRUE(result.steps[2].stable);
    const auto& same = result.steps[2].curves[0].splits[1].second;
    for (const double loss : same.loss) EXPECT_EQ(loss, same.loss.front());
    const auto& other = result.steps[0].curves[0].splits[1].second;
    EXPECT_NE(other.loss.front(), other.loss.back());
    EXPECT_EQ(other.loss.front(), same.loss.front());  // the training as configured
}

TEST(Instability, AFinishMendsThePointsBetweenTheCopies) {
    const auto experiment = small({"model={kind: mlp, hidden: [10], norm: batch}"});
    core::SelfCommunicator alone;
    const auto setting = open_setting(experiment, alone);
    const auto with = [&](const std::string& finish, std::shared_ptr<const data::SampleSet> calibration) {
        const auto result =
            instability(experiment, setting, {0},
                        {.points = 3, .finish = finish, .calibration = std::move(calibration)}, alone);
        return result.steps.front().curves.front().splits[1].second.loss;
    };
    const auto plain = with("none", nullptr), fresh = with("reset_batch_norm", setting.dataset->train());
    EXPECT_EQ(plain.front(), fresh.front());
    EXPECT_NE(plain[1], fresh[1]);
    EXPECT_EQ(plain.back(), fresh.back());
    EXPECT_THROW(with("reset_batch_norm", nullptr), core::UsageError);
}

TEST(Instability, AForkAtTheStartIsTwoTrainings) {
    const auto experiment = small();
    core::SelfCommunicator alone;
    const auto setting = open_setting(experiment, alone);
    const auto train = [&](std::uint64_t order) {
        auto parameters = initial_model(setting.graph, experiment.seed, -1);
        clients::LocalTrainer(setting.graph, experiment.plan, order)
            .train(parameters, *setting.dataset->train(), 0, 1);
        return analysis::evaluate_alone(setting.graph, parameters, *setting.dataset->test());
    };
    const auto result = instability(experiment, setting, {0}, {.points = 3, .repeats = 2}, alone);
    const auto first = train(experiment.seed);
    for (std::int64_t repeat = 0; repeat < 2; ++repeat) {
        const auto second = train(core::Random(experiment.seed, "instability", repeat).next());
        const auto& curve = result.steps[0].curves[static_cast<std::size_t>(repeat)].splits[1];
        EXPECT_EQ(curve.first, "test");
        EXPECT_EQ(curve.second.loss.front(), first.loss);
        EXPECT_EQ(curve.second.loss.back(), second.loss);
        EXPECT_EQ(curve.second.accuracy.back(), second.accuracy);
    }
}

TEST(Instability, IsTheMeanOverRepeatsAndHasAThreshold) {
    const auto result = measure({0}, {.points = 5, .repeats = 3, .stable_below = 0});
    const auto& step = result.steps[0];
    ASSERT_EQ(step.curves.size(), 3u);
    double barrier = 0;
    for (const auto& curve : step.curves) barrier += curve.splits[1].second.error_barrier / 3;
    EXPECT_DOUBLE_EQ(step.test_barrier, barrier);
    EXPECT_FALSE(step.stable);
}

TEST(Instability, IsTheSameOnAnyNumberOfRanks) {
    std::vector<std::vector<double>> first;
    for (const int ranks : {1, 3}) {
        std::vector<std::vector<double>> numbers;
        run_ranks(ranks, [&](core::Communicator& communicator) {
            const auto experiment = small();
            const auto setting = open_setting(experiment, communicator);
            double last = -1;
            const auto result =
                instability(experiment, setting, {0, 20}, {.points = 3}, communicator, [&](double fraction) {
                    EXPECT_GE(fraction, last);
                    EXPECT_LE(fraction, 1);
                    last = fraction;
                });
            if (communicator.rank() != 0) return;
            for (const auto& step : result.steps) {
                for (const auto& curve : step.curves) {
                    numbers.push_back(curve.splits[0].second.loss);
                    numbers.push_back(curve.splits[1].second.loss);
                }
            }
        });
        if (first.empty()) first = numbers;
        EXPECT_EQ(numbers, first);
        EXPECT_EQ(numbers.size(), 4u);
    }
}

TEST(Instability, SaysWhatIsWrong) {
    const auto fault = [](const std::vector<std::int64_t>& steps, const InstabilityOptions& options,
                          const std::vector<std::string>& overrides = {}) -> std::string {
        try {
            measure(steps, options, overrides);
        } catch (const core::UsageError& error) {
            return error.what();
        }
        return "no error";
    };
    EXPECT_THAT(fault({61}, {}), HasSubstr("the training has 60 steps"));
    EXPECT_THAT(fault({-1}, {}), HasSubstr("a step from 0 to 60"));
    EXPECT_THAT(fault({}, {}), HasSubstr("from which step"));
    EXPECT_THAT(fault({0}, {.points = 2}), HasSubstr("at least 3 points"));
    EXPECT_THAT(fault({0}, {.repeats = 0}), HasSubstr("at least 1 other order"));
    EXPECT_THAT(
        fault({0}, {}, {"data.dataset={kind: synthetic}", "data.partition={scheme: natural, clients: 2}"}),
        HasSubstr("no training set as a whole"));
}

}  // namespace
}  // namespace thalweg::federation::instability_test
