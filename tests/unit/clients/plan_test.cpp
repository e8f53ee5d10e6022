#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "helpers.hpp"

namespace thalweg::clients::plan_test {
namespace {

using ::testing::HasSubstr;

double factor(const std::string& yaml, std::int64_t step, std::int64_t steps, std::int64_t round = 1,
              std::int64_t rounds = 1) {
    const auto schedule = core::Registry<std::unique_ptr<Schedule>>::make(test::plugin("schedule", yaml));
    return schedule->factor({step, steps, round, rounds});
}

TEST(Schedules, Constant) {
    EXPECT_EQ(factor("constant", 7, 10, 3, 5), 1.0);
}

TEST(Schedules, CosineOverSteps) {
    EXPECT_DOUBLE_EQ(factor("cosine", 0, 10), 1.0);
    EXPECT_NEAR(factor("cosine", 5, 10), 0.5, 1e-15);
    // torch.optim.lr_scheduler.CosineAnnealingLR(T_max=10): after 9 steps, of a learning rate of 1
    EXPECT_NEAR(factor("cosine", 9, 10), 0.024471741852423234, 1e-12);
    EXPECT_NEAR(factor("{kind: cosine, min: 0.2}", 5, 10), 0.6, 1e-15);
    // Every local training begins anew, whatever the round.
    EXPECT_EQ(factor("cosine", 3, 10, 1, 4), factor("cosine", 3, 10, 4, 4));
}

TEST(Schedules, CosineOverRounds) {
    EXPECT_DOUBLE_EQ(factor("{kind: cosine, over: rounds}", 9, 10, 1, 4), 1.0);
    EXPECT_NEAR(factor("{kind: cosine, over: rounds}", 0, 10, 3, 4), 0.5, 1e-15);
}

TEST(Schedules, Step) {
    const std::string yaml = "{kind: step, every: 3, factor: 0.5}";
    EXPECT_EQ(factor(yaml, 2, 100), 1.0);
    EXPECT_EQ(factor(yaml, 3, 100), 0.5);
    EXPECT_EQ(factor(yaml, 8, 100), 0.25);
    EXPECT_EQ(factor("{kind: step, every: 2, factor: 0.1, over: rounds}", 50, 100, 2, 9), 1.0);
    EXPECT_EQ(factor("{kind: step, every: 2, factor: 0.1, over: rounds}", 0, 100, 3, 9), 0.1);
}

TEST(TrainingPlan, Defaults) {
    const auto section = test::resolve_clients("{}");
    EXPECT_EQ(section["init"].as_text(), "shared");
    EXPECT_EQ(section["on_failure"].as_text(), "fail");
    EXPECT_EQ(section["algorithm"]["kind"].as_text(), "sgd");
    EXPECT_EQ(section["objective"]["kind"].as_text(), "none");
    EXPECT_EQ(section["schedule"]["kind"].as_text(), "constant");
    const auto plan = TrainingPlan::from(section, 4);
    EXPECT_EQ(plan.epochs, 1);
    EXPECT_EQ(plan.batch_size, 32);
    EXPECT_FALSE(plan.steps);
    EXPECT_FALSE(plan.clip);
    EXPECT_EQ(plan.rounds, 4);
}

TEST(TrainingPlan, ReadsWhatIsGiven) {
    const auto plan =
        test::plan("{algorithm: {kind: adam, lr: 0.1}, steps: 7, clip: 0.5, batch_size: 8, epochs: 3}");
    EXPECT_EQ(plan.steps, 7);
    EXPECT_EQ(plan.clip, 0.5);
    EXPECT_EQ(plan.batch_size, 8);
    EXPECT_EQ(plan.epochs, 3);
    EXPECT_EQ(plan.algorithm["lr"].as_number(), 0.1);
}

TEST(TrainingPlan, RefusesImpossibleValues) {
    const auto words = [](const char* yaml) {
        return test::message_of<core::UsageError>([&] { test::resolve_clients(yaml); });
    };
    EXPECT_THAT(words("{epochs: 0}"), HasSubstr("clients.epochs"));
    EXPECT_THAT(words("{steps: 0}"), HasSubstr("clients.steps"));
    EXPECT_THAT(words("{batch_size: 0}"), HasSubstr("clients.batch_size"));
    EXPECT_THAT(words("{clip: 0}"), HasSubstr("clients.clip"));
    EXPECT_THAT(words("{init: same}"), HasSubstr("independent"));
    EXPECT_THAT(words("{algorithm: sdg}"), HasSubstr("sgd"));
    EXPECT_THAT(words("{schedule: {kind: step}}"), HasSubstr("every"));
}

TEST(BatchOrder, EveryEpochHasEverySampleOnce) {
    BatchOrder order(1, 2, 3, 10, 4);
    EXPECT_EQ(order.batches_per_epoch(), 3);
    std::vector<std::vector<std::int64_t>> epochs;
    for (int epoch = 0; epoch < 4; ++epoch) {
        std::vector<std::int64_t> seen;
        for (const std::size_t expected : {4U, 4U, 2U}) {
            const auto batch = order.next();
            EXPECT_EQ(batch.size(), expected);
            seen.insert(seen.end(), batch.begin(), batch.end());
        }
        epochs.push_back(seen);
        std::ranges::sort(seen);
        for (std::int64_t i = 0; i < 10; ++i) EXPECT_EQ(seen[static_cast<std::size_t>(i)], i);
    }
    EXPECT_NE(epochs[0], epochs[1]);
    EXPECT_NE(epochs[1], epochs[2]);
}

TEST(BatchOrder, DependsOnSeedRoundAndClientOnly) {
    const auto first = [](std::uint64_t seed, std::int64_t round, std::int64_t client) {
        BatchOrder order(seed, round, client, 100, 100);
        const auto batch = order.next();
        return std::vector<std::int64_t>(batch.begin(), batch.end());
    };
    EXPECT_EQ(first(1, 2, 3), first(1, 2, 3));
    const std::set<std::vector<std::int64_t>> different{first(1, 2, 3), first(2, 2, 3), first(1, 3, 3),
                                                        first(1, 2, 4), first(1, 3, 2)};
    EXPECT_EQ(different.size(), 5U);
}

TEST(BatchOrder, BatchSizeDoesNotChangeTheOrder) {
    BatchOrder large(1, 1, 1, 7, 7), small(1, 1, 1, 7, 2), huge(1, 1, 1, 7, 1000);
    const auto whole = large.next();
    EXPECT_TRUE(std::ranges::equal(whole, huge.next()));
    std::vector<std::int64_t> pieces;
    for (int i = 0; i < 4; ++i) {
        const auto batch = small.next();
        pieces.insert(pieces.end(), batch.begin(), batch.end());
    }
    EXPECT_TRUE(std::ranges::equal(whole, pieces));
}

}  // namespace
}  // namespace thalweg::clients::plan_test
