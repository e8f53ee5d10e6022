#include "thalweg/federation/plan.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "thalweg/core/error.hpp"
#include "thalweg/federation/measure.hpp"

namespace thalweg::federation::plan_test {
namespace {

struct Fixture {
    explicit Fixture(const std::string& sampler,
                     const std::string& partition = "{scheme: quantity, clients: 20}") {
        const std::string text =
            "data:\n  dataset: {kind: gaussian_mixture, train: 4000, test: 10}\n  partition: " + partition +
            "\nmodel: {kind: linear}\nclients: {}\nserver: {sampler: " + sampler + "}\n";
        experiment = make_experiment(core::parse_yaml(text, "test.yaml"), {});
        core::SelfCommunicator self;
        const auto dataset = data::open_dataset(experiment.config["data"]["dataset"], {self, 1});
        federated =
            std::make_unique<data::FederatedData>(dataset, experiment.config["data"]["partition"], 0, 1);
    }
    std::vector<std::int64_t> cohort(std::int64_t round, int ranks = 1) const {
        std::vector<std::int64_t> ids;
        for (const auto& member : plan_round(experiment, *federated, round, ranks))
            ids.push_back(member.client);
        return ids;
    }
    Experiment experiment;
    std::unique_ptr<data::FederatedData> federated;
};

TEST(Plan, AllTakesEveryClientInOrder) {
    const Fixture fixture("all");
    const auto cohort = fixture.cohort(1);
    EXPECT_EQ(cohort.size(), 20u);
    EXPECT_TRUE(std::is_sorted(cohort.begin(), cohort.end()));
}

TEST(Plan, CohortDependsOnTheRoundAndNotOnTheRanks) {
    const Fixture fixture("{kind: uniform, count: 6}");
    EXPECT_EQ(fixture.cohort(3, 1), fixture.cohort(3, 7));
    EXPECT_NE(fixture.cohort(3), fixture.cohort(4));
    const auto cohort = fixture.cohort(3);
    EXPECT_EQ(std::set<std::int64_t>(cohort.begin(), cohort.end()).size(), 6u);
    EXPECT_TRUE(std::is_sorted(cohort.begin(), cohort.end()));
}

TEST(Plan, FractionIsRoundedAndNeverNobody) {
    EXPECT_EQ(Fixture("{kind: uniform, fraction: 0.26}").cohort(1).size(), 5u);
    EXPECT_EQ(Fixture("{kind: uniform, fraction: 0.001}").cohort(1).size(), 1u);
}

TEST(Plan, UniformReachesEveryClientEquallyOften) {
    const Fixture fixture("{kind: uniform, count: 5}");
    std::map<std::int64_t, int> seen;
    for (int round = 1; round <= 400; ++round) {
        for (const auto client : fixture.cohort(round)) ++seen[client];
    }
    ASSERT_EQ(seen.size(), 20u);
    for (const auto& [client, count] : seen) EXPECT_NEAR(count, 100, 45) << client;  // five deviations
}

TEST(Plan, WeightedPrefersLargeClients) {
    const Fixture fixture("{kind: weighted, count: 1}");
    std::map<std::int64_t, double> seen;
    const int rounds = 3000;
    for (int round = 1; round <= rounds; ++round) seen[fixture.cohort(round).front()] += 1.0 / rounds;
    for (std::int64_t client = 0; client < 20; ++client) {
        const double share = static_cast<double>(fixture.federated->samples(client)) / 4000;
        EXPECT_NEAR(seen[client], share, 0.03) << client;
    }
}

TEST(Plan, AskingForTooManyNamesTheOption) {
    const Fixture fixture("{kind: uniform, count: 21}");
    try {
        fixture.cohort(1);
        FAIL();
    } catch (const core::UsageError& error) {
        EXPECT_THAT(error.what(), ::testing::HasSubstr("server.sampler.count"));
        EXPECT_THAT(error.what(), ::testing::HasSubstr("20"));
    }
}

TEST(Plan, WorkIsSpreadOverTheRanks) {
    const Fixture fixture("all");
    std::map<int, std::int64_t> load;
    std::int64_t largest = 0;
    for (const auto& member : plan_round(fixture.experiment, *fixture.federated, 1, 3)) {
        load[member.owner] += member.samples;
        largest = std::max(largest, member.samples);
    }
    ASSERT_EQ(load.size(), 3u);
    for (const auto& [rank, samples] : load) EXPECT_LT(samples, 4000 / 3 + largest + 32 * 20) << rank;
}

TEST(Pairs, AreDifferentAndComplete) {
    core::SelfCommunicator self;
    const model::ModelGraph graph;
    const symmetry::Symmetries symmetries;
    aggregator::FusionContext context{
        .graph = graph, .symmetries = symmetries, .communicator = self, .members = {}};
    for (std::int64_t client = 0; client < 6; ++client)
        context.members.push_back({.client = client, .samples = 1});
    const auto all = sample_pairs(context, 100);
    EXPECT_EQ(all.size(), 15u);
    std::set<std::pair<std::size_t, std::size_t>> different(all.begin(), all.end());
    EXPECT_EQ(different.size(), 15u);
    for (const auto& [a, b] : all) {
        EXPECT_LT(a, b);
        EXPECT_LT(b, 6u);
    }
    EXPECT_EQ(sample_pairs(context, 4).size(), 4u);
    context.members.resize(1);
    EXPECT_TRUE(sample_pairs(context, 4).empty());
}

}  // namespace
}  // namespace thalweg::federation::plan_test
