#include "thalweg/federation/compare.hpp"

#include <ATen/Parallel.h>
#include <gmock/gmock.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <mutex>

#include "thalweg/core/error.hpp"
#include "thalweg/federation/federation.hpp"
#include "unit/support/thread_communicator.hpp"

namespace thalweg::federation::compare_test {
namespace {

Experiment small(const std::vector<std::string>& overrides = {}) {
    return make_experiment(core::parse_yaml(R"(
data:
  dataset: {kind: gaussian_mixture, classes: 3, dimension: 6, train: 300, test: 90, separation: 2}
  partition: {scheme: dirichlet, clients: 4, alpha: 0.5}
  holdout: 30
model: {kind: mlp, hidden: [8, 6]}
clients: {algorithm: {kind: adam, lr: 0.01}, batch_size: 10, init: independent}
server: {rounds: 2}
)",
                                            "test.yaml"),
                           overrides);
}

const std::vector<std::string> pipelines{"mean", "weight_matching+mean", "merge_many+mean+repair"};

Comparison alone(const Experiment& experiment, CompareOptions options) {
    core::SelfCommunicator self;
    options.progress = false;
    return compare(experiment, options, self);
}

void expect_same(const Comparison& a, const Comparison& b, const std::string& what) {
    ASSERT_EQ(a.rows.size(), b.rows.size()) << what;
    const auto same = [](double x, double y) { return x == y || (std::isnan(x) && std::isnan(y)); };
    for (std::size_t i = 0; i < a.rows.size(); ++i) {
        EXPECT_EQ(a.rows[i].pipeline, b.rows[i].pipeline) << what;
        EXPECT_EQ(a.rows[i].seed, b.rows[i].seed) << what;
        for (const auto number :
             {&CompareRow::accuracy, &CompareRow::loss, &CompareRow::barrier, &CompareRow::variance_ratio})
            EXPECT_TRUE(same(a.rows[i].*number, b.rows[i].*number)) << what << ", row " << i;
    }
    for (std::size_t i = 0; i < a.marks.size(); ++i) {
        EXPECT_EQ(a.marks[i].clients, b.marks[i].clients) << what;
        EXPECT_EQ(a.marks[i].ensemble.accuracy, b.marks[i].ensemble.accuracy) << what;
    }
}

TEST(Compare, GivesTheSameNumbersOnAnyNumberOfRanks) {
    for (const std::int64_t follow : {0, 2, -1}) {
        CompareOptions options{.pipelines = pipelines, .seeds = 2, .follow = follow, .progress = false};
        const auto once = alone(small(), options);
        EXPECT_EQ(once.rows.size(), 2U * 2U * 3U);
        // Of all pipelines in round 1, of each in round 2 where each goes its own way.
        EXPECT_EQ(once.marks.size(), follow < 0 ? 2U * (1U + 3U) : 2U * 2U);
        for (const int ranks : {2, 3, 5}) {
            std::mutex mutex;
            testing::run_ranks(ranks, [&](core::Communicator& communicator) {
                at::set_num_threads(1);
                const auto again = compare(small(), options, communicator);
                const std::lock_guard lock(mutex);
                expect_same(once, again, std::to_string(ranks) + " ranks, follow " + std::to_string(follow));
            });
        }
    }
}

/// The test accuracy of every round of a run.
std::vector<double> accuracies(const Experiment& experiment) {
    std::string name = (std::filesystem::temp_directory_path() / "thalweg-compare-XXXXXX").string();
    EXPECT_NE(mkdtemp(name.data()), nullptr);
    core::SelfCommunicator self;
    Federation federation(experiment, self);
    std::vector<double> result;
    for (const auto& line :
         federation.run({.folder = std::filesystem::path(name) / "run", .progress = false}))
        result.push_back(line["test"]["accuracy"].get<double>());
    std::filesystem::remove_all(name);
    return result;
}

TEST(Compare, EachTrajectoryIsTheRunOfItsPipeline) {
    const std::vector<std::string> fusion{"[mean]", "[weight_matching, mean]", "[merge_many, mean, repair]"};
    for (const std::string optimizer : {"none", "{kind: fedadam, lr: 0.05}"}) {
        const std::vector<std::string> words{"server.optimizer=" + optimizer, "server.rounds=3"};
        const auto comparison = alone(small(words), {.pipelines = pipelines, .follow = -1});
        for (std::size_t p = 0; p < fusion.size(); ++p) {
            auto of_run = words;
            of_run.push_back("server.fusion=" + fusion[p]);
            const auto expected = accuracies(small(of_run));
            for (const auto& row : comparison.rows) {
                if (row.pipeline != static_cast<std::int64_t>(p)) continue;
                EXPECT_EQ(row.accuracy, expected[static_cast<std::size_t>(row.round - 1)])
                    << fusion[p] << ", round " << row.round << ", optimizer " << optimizer;
            }
        }
    }
}

TEST(Compare, PipelinesSeeTheSameModelsWhateverComesBeforeThem) {
    const auto first = alone(small(), {.pipelines = pipelines, .follow = 0});
    const auto other =
        alone(small(), {.pipelines = {pipelines.rbegin(), pipelines.rend()}, .follow = 2});  // the same one
    for (std::size_t i = 0; i < first.rows.size(); ++i) {
        const std::size_t mirrored = i / 3 * 3 + 2 - i % 3;
        EXPECT_EQ(first.rows[i].loss, other.rows[mirrored].loss) << i;
        EXPECT_EQ(first.rows[i].variance_ratio, other.rows[mirrored].variance_ratio) << i;
    }
}

TEST(Compare, TheNextRoundStartsFromWhatIsFollowed) {
    // The first round's updates do not depend on what is followed, so its rows are the same.
    const auto first = alone(small(), {.pipelines = pipelines, .follow = 0});
    const auto other = alone(small(), {.pipelines = pipelines, .follow = 2});
    for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(first.rows[i].accuracy, other.rows[i].accuracy);
    EXPECT_NE(first.rows[3].loss, other.rows[3].loss);
}

TEST(Compare, SaysAfterEverySeedWhatIsKnown) {
    std::vector<std::size_t> rows;
    CompareOptions options{.pipelines = {"mean", "median"}, .seeds = 3};
    options.after_seed = [&](const Comparison& comparison) { rows.push_back(comparison.rows.size()); };
    alone(small({"server.rounds=1"}), options);
    EXPECT_EQ(rows, (std::vector<std::size_t>{2, 4, 6}));
}

TEST(Compare, RefusesWhatCannotBeCompared) {
    const auto refusal = [](const Experiment& experiment, const CompareOptions& options) {
        try {
            alone(experiment, options);
        } catch (const core::UsageError& error) {
            return std::string(error.what());
        }
        return std::string("was accepted");
    };
    EXPECT_THAT(refusal(small(), {}), ::testing::HasSubstr("--pipelines"));
    EXPECT_THAT(refusal(small(), {.pipelines = {"mean", "meen"}}), ::testing::HasSubstr("meen"));
    EXPECT_THAT(refusal(small(), {.pipelines = {"ties"}}), ::testing::HasSubstr("clients.init: shared"));
    EXPECT_THAT(refusal(small({"data.holdout=0"}), {.pipelines = {"activation_matching+mean"}}),
                ::testing::HasSubstr("data.holdout"));
    EXPECT_THAT(refusal(small(), {.pipelines = {"mean", "attack(clients=[17])+mean"}}),
                ::testing::HasSubstr("client 17"));
    EXPECT_THROW(small({"compare.pipelines=[mean, median]", "compare.follow=meen"}), core::UsageError);
    EXPECT_THROW(small({"compare.pipelines=[mean, meen]"}), core::UsageError);
    EXPECT_THAT(refusal(small(), {.pipelines = {"matched_averaging(grow=true)+mean"}}),
                ::testing::HasSubstr("grow: false"));
}

TEST(Compare, APipelineThatFailsOnTheseModelsIsARowThatSaysSo) {
    const std::vector<std::string> failing_first{"toroid+geodesic_mean", "mean"};
    const auto tanh = small({"model.activation=tanh", "server.rounds=1"});
    const auto check = [](const Comparison& comparison, std::size_t rows) {
        ASSERT_EQ(comparison.rows.size(), rows);
        for (const auto& row : comparison.rows) {
            if (row.pipeline == 1) {
                EXPECT_EQ(row.error, "");
                EXPECT_GT(row.accuracy, 0);
            } else {
                EXPECT_NE(row.error, "");
                for (const auto number : {row.accuracy, row.barrier, row.seconds})
                    EXPECT_TRUE(std::isnan(number));
            }
        }
        EXPECT_THAT(comparison.rows.front().error, ::testing::HasSubstr("positively homogeneous"));
    };
    // Nothing goes on from it, or it alone ends.
    check(alone(tanh, {.pipelines = failing_first}), 2);
    check(alone(small({"model.activation=tanh"}), {.pipelines = failing_first, .follow = -1}), 4);
    try {
        alone(small({"model.activation=tanh"}), {.pipelines = failing_first});
        FAIL() << "went on from a model that does not exist";
    } catch (const core::RunError& error) {
        EXPECT_THAT(error.what(), ::testing::HasSubstr("follow another pipeline"));
    }
}

TEST(Compare, FusesClientsOfSeveralWidths) {
    const auto experiment =
        small({"server.rounds=1", "clients.epochs=10", "server.fusion=[optimal_transport, mean]",
               "clients.models=[{kind: mlp, hidden: [5, 4]}, {kind: mlp, hidden: [8, 6]}]"});
    const auto comparison =
        alone(experiment, {.pipelines = {"optimal_transport+mean", "matched_averaging+mean",
                                         "matched_averaging(grow=true)+mean"}});
    for (const auto& row : comparison.rows) {
        EXPECT_EQ(row.error, "");
        EXPECT_GT(row.accuracy, 0.5);  // of three classes
    }
    EXPECT_EQ(comparison.marks[0].clients.size(), 4U);
}

TEST(Spread, IsMeanAndStandardError) {
    const auto spread = spread_of({1, 2, 3, 6});
    EXPECT_DOUBLE_EQ(spread.mean, 3);
    EXPECT_NEAR(spread.error, std::sqrt((4 + 1 + 0 + 9) / 3.0 / 4.0), 1e-12);
    EXPECT_TRUE(std::isnan(spread_of({5}).error));
    EXPECT_TRUE(std::isnan(spread_of({}).mean));
    // What could not be run is left out.
    EXPECT_DOUBLE_EQ(spread_of({1, std::nan(""), 3}).mean, 2);
    EXPECT_EQ(spread_of({1, std::nan(""), 3}).count, 2);
    EXPECT_DOUBLE_EQ(paired_difference({1, std::nan(""), 3}, {0, 0, 1}).mean, 1.5);
}

TEST(PairedDifference, HasStudentsInterval) {
    const auto difference = paired_difference({2, 4, 9}, {1, 2, 6});  // 1, 2, 3: deviation 1
    EXPECT_DOUBLE_EQ(difference.mean, 2);
    EXPECT_NEAR(difference.high - difference.mean, 4.302652729911 / std::sqrt(3.0), 1e-9);
    EXPECT_NEAR(difference.mean - difference.low, 4.302652729911 / std::sqrt(3.0), 1e-9);
    EXPECT_TRUE(std::isnan(paired_difference({2}, {1}).low));
    EXPECT_DOUBLE_EQ(paired_difference({2}, {1}).mean, 1);
}

}  // namespace
}  // namespace thalweg::federation::compare_test
