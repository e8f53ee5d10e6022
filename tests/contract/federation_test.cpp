#include <ATen/Parallel.h>

#include <cstdlib>
#include <filesystem>
#include <set>

#include "contract/plugins.hpp"
#include "thalweg/federation/federation.hpp"
#include "thalweg/federation/plan.hpp"
#include "unit/support/thread_communicator.hpp"

/// What every registered sampler and measure must do.
namespace thalweg::testing::federation_test {
namespace {

namespace fs = std::filesystem;
using record::Json;

class SamplerContract : public PluginContract {
  protected:
    static data::FederatedData federate(int clients) {
        core::SelfCommunicator self;
        const auto dataset = core::resolve_plugin(
            "dataset", "kind",
            core::parse_yaml("{kind: gaussian_mixture, dimension: 3, train: 300, test: 10}", "test"), "data");
        const auto partition = core::resolve_plugin(
            "partitioner", "scheme",
            core::parse_yaml("{scheme: quantity, clients: " + std::to_string(clients) + "}", "test"), "data");
        return {data::open_dataset(dataset, {self, 1}), partition, 0, 1};
    }
    std::vector<std::int64_t> draw(const data::FederatedData& data, std::int64_t round) const {
        core::Random random(1, "cohort", round);
        return with_advice(GetParam(), [&] { return sampler_->sample(data, random); });
    }
    std::unique_ptr<federation::Sampler> sampler_ = make_plugin<federation::Sampler>(GetParam());
};

TEST_P(SamplerContract, ChoosesSomeClientsInOrderFromTheStreamAlone) {
    const auto data = federate(9);
    std::set<std::vector<std::int64_t>> cohorts;
    std::vector<std::vector<std::int64_t>> by_round;
    bool everybody = true;
    for (std::int64_t round = 1; round <= 30; ++round) {
        const auto cohort = draw(data, round);
        ASSERT_FALSE(cohort.empty());
        EXPECT_GE(cohort.front(), 0);
        EXPECT_LT(cohort.back(), 9);
        for (std::size_t i = 1; i < cohort.size(); ++i) EXPECT_LT(cohort[i - 1], cohort[i]);
        everybody = everybody && cohort.size() == 9;
        cohorts.insert(cohort);
        by_round.push_back(cohort);
    }
    EXPECT_EQ(cohorts.size() > 1, !everybody) << "the same clients in every round";
    // Backwards and with a new sampler: nothing is kept between rounds.
    sampler_ = make_plugin<federation::Sampler>(GetParam());
    for (std::int64_t round = 30; round >= 1; --round) {
        EXPECT_EQ(draw(data, round), by_round[static_cast<std::size_t>(round - 1)]) << "round " << round;
    }
}

TEST_P(SamplerContract, FindsTheOnlyClient) {
    if (section_of(GetParam()).has("count")) GTEST_SKIP() << "asks for more";
    EXPECT_EQ(draw(federate(1), 1), std::vector<std::int64_t>{0});
}

class MeasureContract : public PluginContract {
  protected:
    void SetUp() override {
        std::string name = (fs::temp_directory_path() / "thalweg-contract-XXXXXX").string();
        ASSERT_NE(mkdtemp(name.data()), nullptr);
        folder_ = name;
    }
    void TearDown() override { fs::remove_all(folder_); }

    /// What the rounds' records hold under the measure's name, as text (in which NaN would be null).
    std::vector<std::string> measured(int ranks, const std::string& override_with) {
        const auto section = section_of(GetParam());
        std::vector<std::string> overrides{override_with,
                                           "analysis.measures=[" + core::to_flow(section) + "]"};
        // What mends models does so on the server's samples.
        if (section.has("finish") || section.has("reset_batch_norm")) overrides.push_back("data.holdout=40");
        const auto experiment = with_advice(GetParam(), [&] {
            return federation::make_experiment(core::parse_yaml(R"(
data:
  dataset: {kind: gaussian_mixture, classes: 3, dimension: 6, train: 200, test: 60, separation: 3}
  partition: {scheme: quantity, clients: 5, sigma: 0.5}
model: {kind: mlp, hidden: [7, 6], norm: batch}
clients: {algorithm: {kind: sgd, lr: 0.05}, batch_size: 10, init: independent}
server: {rounds: 2, fusion: [weight_matching, mean, {repair: {statistics: clients}}]}
)",
                                                                "test.yaml"),
                                               overrides);
        });
        const auto folder = folder_ / std::to_string(++runs_);
        run_ranks(ranks, [&](core::Communicator& communicator) {
            at::set_num_threads(1);
            federation::Federation federation(experiment, communicator);
            federation.run({.folder = folder, .resume = false, .progress = false, .manifest = {}});
        });
        std::vector<std::string> result;
        for (const auto& line : record::RunFolder::open(folder).read_analysis()) {
            EXPECT_TRUE(line.contains(GetParam().name)) << line.dump();
            if (line.contains(GetParam().name)) result.push_back(line[GetParam().name].dump());
        }
        EXPECT_EQ(result.size(), 2U);
        return result;
    }

    fs::path folder_;
    int runs_ = 0;
};

TEST_P(MeasureContract, SaysTheSameOnAnyNumberOfRanks) {
    for (const std::string variant : {"data.holdout=40", "server.fusion=[mean]"}) {
        const auto alone = measured(1, variant);
        EXPECT_EQ(alone, measured(3, variant)) << variant;
        for (const auto& text : alone) {
            EXPECT_EQ(text.find("null"), std::string::npos) << "a number that is not finite: " << text;
        }
    }
}

TEST_P(MeasureContract, WorksWithOneClient) {
    const std::string one = "data.partition.clients=1";
    EXPECT_EQ(measured(1, one), measured(3, one));
}

INSTANTIATE_TEST_SUITE_P(Registered, SamplerContract, ::testing::ValuesIn(cases_of("sampler")),
                         plugin_case_name);
INSTANTIATE_TEST_SUITE_P(Registered, MeasureContract, ::testing::ValuesIn(cases_of("measure")),
                         plugin_case_name);

}  // namespace
}  // namespace thalweg::testing::federation_test
