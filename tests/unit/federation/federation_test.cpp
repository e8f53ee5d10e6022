#include "thalweg/federation/federation.hpp"

#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include "thalweg/aggregator/stage.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/interrupt.hpp"
#include "thalweg/symmetry/symmetry.hpp"
#include "unit/support/thread_communicator.hpp"

namespace thalweg::federation::federation_test {
namespace {

namespace fs = std::filesystem;

class FederationTest : public ::testing::Test {
  protected:
    void SetUp() override {
        std::string name = (fs::temp_directory_path() / "thalweg-federation-XXXXXX").string();
        ASSERT_NE(mkdtemp(name.data()), nullptr);
        folder_ = name;
    }
    void TearDown() override { fs::remove_all(folder_); }

    static Experiment experiment(const std::vector<std::string>& overrides = {}) {
        return make_experiment(core::parse_yaml(R"(
data:
  dataset: {kind: gaussian_mixture, classes: 3, dimension: 6, train: 300, test: 90, separation: 4}
  partition: {scheme: quantity, clients: 5}
  holdout: 30
model: {kind: mlp, hidden: [8]}
clients: {algorithm: {kind: sgd, lr: 0.05, momentum: 0.9}, batch_size: 10}
server: {rounds: 3}
)",
                                                "test.yaml"),
                               overrides);
    }

    at::Tensor run(const std::string& name, const std::vector<std::string>& overrides,
                   core::Communicator& communicator, bool resume = false) {
        Federation federation(experiment(overrides), communicator);
        lines_ = federation.run({.folder = folder_ / name,
                                 .resume = resume,
                                 .progress = false,
                                 .manifest = record::Json::object()});
        return federation.global().values.clone();
    }

    fs::path folder_;
    std::vector<record::Json> lines_;
};

/// FedAvg written out: train every client from the global model, average by samples in double.
TEST_F(FederationTest, FedAvgIsWhatTheBookSays) {
    core::SelfCommunicator self;
    const auto ours = run("fedavg", {}, self);

    const auto setup = experiment();
    const auto setting = open_setting(setup, self);
    const data::FederatedData data(setting.dataset, setup.config["data"]["partition"], 30, setup.seed);
    clients::LocalTrainer trainer(setting.graph, setup.plan, setup.seed);
    auto global = initial_model(setting.graph, setup.seed, -1);
    for (int round = 1; round <= 3; ++round) {
        at::Tensor sum = at::zeros({global.values.numel()}, at::kDouble);
        double total = 0;
        for (std::int64_t client = 0; client < 5; ++client) {
            auto local = global.clone();
            trainer.train(local, *data.client(client), client, round);
            const auto samples = static_cast<double>(data.samples(client));
            sum += samples * local.values.to(at::kDouble);
            total += samples;
        }
        global.values.copy_(sum / total);
    }
    EXPECT_TRUE(at::allclose(ours, global.values, 1e-6, 1e-7));
    EXPECT_GT(lines_.back()["test"]["accuracy"].get<double>(), 0.8);
}

TEST_F(FederationTest, AnyNumberOfRanksGivesTheSameBits) {
    const std::vector<std::string> words{
        "clients.init=independent",
        "server.fusion=[merge_many, {sign_alignment: {mode: elect}}, mean, {repair: "
        "{statistics: clients}}]",
        "server.sampler={kind: uniform, count: 4}"};
    core::SelfCommunicator self;
    const auto alone = run("alone", words, self);
    for (const int ranks : {2, 3}) {
        std::vector<at::Tensor> results(static_cast<std::size_t>(ranks));
        thalweg::testing::run_ranks(ranks, [&](core::Communicator& communicator) {
            at::set_num_threads(1);
            Federation federation(experiment(words), communicator);
            federation.run({.folder = folder_ / std::to_string(ranks),
                            .resume = false,
                            .progress = false,
                            .manifest = record::Json::object()});
            results[static_cast<std::size_t>(communicator.rank())] = federation.global().values.clone();
        });
        for (const auto& result : results) EXPECT_TRUE(result.equal(alone)) << ranks;
    }
}

TEST_F(FederationTest, ResumeRepeatsTheBits) {
    core::SelfCommunicator self;
    const std::vector<std::string> words{"clients.init=independent", "server.fusion=[weight_matching, mean]"};
    const auto whole = run("whole", words, self);
    run("cut", words, self);
    // As if the program had been killed in round 3 while it wrote: no final model, a damaged checkpoint, half a line.
    fs::remove(folder_ / "cut" / "final.pt");
    std::ofstream(folder_ / "cut" / "checkpoints" / "round-00003.pt") << "half";
    std::ofstream(folder_ / "cut" / "rounds.jsonl", std::ios::app) << "{\"round\": 4, \"coh";
    const auto resumed = run("cut", words, self, true);
    EXPECT_TRUE(resumed.equal(whole));
    ASSERT_EQ(lines_.size(), 3u);
    EXPECT_EQ(lines_.back()["round"], 3);
    EXPECT_TRUE(fs::exists(folder_ / "cut" / "final.pt"));
}

TEST_F(FederationTest, ResumeOfAFinishedRunChangesNothing) {
    core::SelfCommunicator self;
    const auto whole = run("done", {"record.checkpoint_every=0"}, self);
    EXPECT_TRUE(run("done", {"record.checkpoint_every=0"}, self, true).equal(whole));
    EXPECT_EQ(lines_.size(), 3u);
    std::ofstream(folder_ / "done" / "rounds.jsonl") << "{\"round\": 1}\n";
    EXPECT_THROW(run("done", {"record.checkpoint_every=0"}, self, true), core::RunError);
}

TEST_F(FederationTest, ResumeRefusesAnotherConfiguration) {
    core::SelfCommunicator self;
    run("run", {}, self);
    try {
        run("run", {"clients.batch_size=11"}, self, true);
        FAIL();
    } catch (const core::UsageError& error) {
        EXPECT_THAT(error.what(), ::testing::HasSubstr("clients.batch_size: 10 → 11"));
    }
}

TEST_F(FederationTest, DivergedClientIsLeftOutOrFatal) {
    core::SelfCommunicator self;
    const std::vector<std::string> wild{"clients.algorithm={kind: sgd, lr: 1.0e+30}"};
    EXPECT_THROW(run("fatal", wild, self), clients::Diverged);
    auto lenient = wild;
    lenient.push_back("clients.on_failure=continue");
    EXPECT_THROW(run("lenient", lenient, self), core::RunError);  // nobody is left
    // Every batch of a client with one batch is its first, whose loss is finite; at this rate its model stays so, too.
    lenient.push_back("clients.batch_size=50");
    lenient.push_back("server.rounds=1");
    run("some", lenient, self);
    const auto& line = lines_.front();
    EXPECT_GE(line["failures"].size(), 1u);
    EXPECT_EQ(line["failures"].size() + line["cohort"].size(), 5u);
    EXPECT_EQ(line["clients"].size(), line["cohort"].size());
    for (const auto& failure : line["failures"]) {
        EXPECT_GT(failure["samples"].get<int>(), 50);
        EXPECT_THAT(failure["error"].get<std::string>(), ::testing::HasSubstr("step 2"));
    }
}

TEST_F(FederationTest, InterruptDropsTheRound) {
    core::SelfCommunicator self;
    Federation federation(experiment(), self);
    core::request_interrupt();
    EXPECT_THROW(federation.run({.folder = folder_ / "stopped",
                                 .resume = false,
                                 .progress = false,
                                 .manifest = record::Json::object()}),
                 core::Interrupted);
    core::clear_interrupt();
    EXPECT_FALSE(fs::exists(folder_ / "stopped" / "final.pt"));
}

/// Leaves all updates in another frame than the previous global model's, as merge_many may.
class TestShuffle final : public aggregator::Stage {
  public:
    aggregator::StageTraits traits() const override {
        return {.kind = aggregator::StageKind::cross_update, .keeps_function = true, .changes_frame = true};
    }
    aggregator::StageNotes apply(aggregator::FusionState& state,
                                 const aggregator::FusionContext& context) const override {
        core::Random random(context.seed, "shuffle", context.round);
        const auto permutations = symmetry::random_permutations(context.symmetries, random);
        for (auto& update : state.updates) {
            update.parameters = symmetry::permute(update.parameters, context.symmetries, permutations);
        }
        return {};
    }
};
const aggregator::StageRegistration shuffle{
    {.kind = "stage", .name = "test_shuffle", .help = "a common permutation", .citation = "", .options = {}},
    [](const core::Value&) { return std::make_unique<TestShuffle>(); }};

TEST_F(FederationTest, MergedModelGoesBackToTheFrameOfTheGlobalOne) {
    core::SelfCommunicator self;
    const std::string measures = "analysis.measures=[sign_consistency]";
    const auto straight = run("straight", {"server.fusion=[mean]", measures}, self);
    const auto expected = lines_;
    const auto shuffled = run("shuffled", {"server.fusion=[test_shuffle, mean]", measures}, self);
    EXPECT_TRUE(shuffled.equal(straight));
    for (std::size_t i = 0; i < lines_.size(); ++i) {  // clients and global model are compared in one frame
        EXPECT_EQ(lines_[i]["sign_consistency"]["client_global"],
                  expected[i]["sign_consistency"]["client_global"]);
    }
}

TEST_F(FederationTest, UniformMeanIsRepairedAndMeasuredWithItsOwnWeights) {
    core::SelfCommunicator self;
    run("uniform",
        {"clients.init=independent", "server.rounds=1", "analysis.measures=[variance_ratio]",
         "server.fusion=[merge_many, {mean: {weights: uniform}}, {repair: {average: variance}}]"},
        self);
    for (const auto& [layer, ratio] : lines_.front()["variance_ratio"]["after"].items()) {
        EXPECT_NEAR(ratio.get<double>(), 1.0, 0.02) << layer;
    }
}

/// Rounds of the lines that hold the measure.
std::vector<std::int64_t> rounds_with(const std::vector<record::Json>& lines, const std::string& measure) {
    std::vector<std::int64_t> rounds;
    for (const auto& line : lines) {
        if (line.contains(measure)) rounds.push_back(line["round"].get<std::int64_t>());
    }
    return rounds;
}

TEST_F(FederationTest, MeasuresAreMadeInTheRoundsTheyAreAskedFor) {
    core::SelfCommunicator self;
    using Rounds = std::vector<std::int64_t>;
    run("rounds",
        {"server.rounds=5", "analysis.every=2",
         "analysis.measures=[ladder, {sign_consistency: {rounds: [1, 4]}}, {barrier: {every: 3}}]"},
        self);
    const auto analysis = record::RunFolder::open(folder_ / "rounds").read_analysis();
    EXPECT_EQ(rounds_with(analysis, "ladder"), (Rounds{2, 4, 5}));
    EXPECT_EQ(rounds_with(analysis, "sign_consistency"), (Rounds{1, 4}));
    EXPECT_EQ(rounds_with(analysis, "barrier"), (Rounds{3, 5}));
    EXPECT_EQ(rounds_with(lines_, "ladder"), (Rounds{2, 4, 5}));  // brief ones stand in both records
    run("chosen-rounds", {"analysis.rounds=[3]", "analysis.measures=[ladder]"}, self);
    EXPECT_EQ(rounds_with(lines_, "ladder"), (Rounds{3}));
}

TEST_F(FederationTest, AMeasureMayBeMadeTwice) {
    core::SelfCommunicator self;
    run("twice",
        {"server.rounds=1",
         "analysis.measures=[{valley: {sign_ratio: 0, as: against}}, {valley: {sign_ratio: 1, as: along}}]"},
        self);
    const auto line = record::RunFolder::open(folder_ / "twice").read_analysis().front();
    EXPECT_NEAR(line["against"]["asymmetry"].get<double>(), -line["along"]["asymmetry"].get<double>(), 1e-9);
    EXPECT_THROW(run("nowhere", {"analysis.measures=[{valley: {part: nowhere}}]"}, self), core::UsageError);
    EXPECT_TRUE(lines_.size() == 1);  // nobody had trained
}

TEST_F(FederationTest, PairsCanBeChosen) {
    core::SelfCommunicator self;
    const std::string measures = "analysis.measures=[barrier, sign_consistency, layer_barriers, cka]";
    run("all", {"server.rounds=1", "analysis.pairs=[3-1, 0-4]", measures}, self);
    const auto both = lines_.front();
    EXPECT_EQ(both["barrier"]["pairs"], 2);
    EXPECT_EQ(record::RunFolder::open(folder_ / "all").read_analysis().front()["layer_barriers"]["pairs"], 2);
    const auto whole = record::RunFolder::open(folder_ / "all").read_analysis().front();
    for (const char* measure : {"barrier", "sign_consistency", "layer_barriers", "cka"}) {
        std::vector<std::string> names;
        for (const auto& item : whole[measure]["by_pair"].items()) names.push_back(item.key());
        EXPECT_EQ(names, (std::vector<std::string>{"1-3", "0-4"})) << measure;
        EXPECT_FALSE(both.contains(measure) && both[measure].contains("by_pair")) << measure;
    }
    EXPECT_NEAR(whole["barrier"]["before"]["loss"].get<double>(),
                0.5 * (whole["barrier"]["by_pair"]["1-3"]["before"]["loss"].get<double>() +
                       whole["barrier"]["by_pair"]["0-4"]["before"]["loss"].get<double>()),
                1e-12);
    EXPECT_EQ(whole["barrier"]["by_pair"]["0-4"]["before"]["curve"]["error"].size(), 5U);
    run("first", {"server.rounds=1", "analysis.pairs=[1-3]", measures}, self);
    const auto first = lines_.front();
    EXPECT_EQ(first["barrier"]["before"]["loss"], whole["barrier"]["by_pair"]["1-3"]["before"]["loss"]);
    EXPECT_EQ(first["sign_consistency"]["client_client"],
              whole["sign_consistency"]["by_pair"]["1-3"]["after"]);
    run("second", {"server.rounds=1", "analysis.pairs=[0-4]", measures}, self);
    const auto second = lines_.front();
    for (const char* measure : {"barrier", "sign_consistency"}) {
        const auto of = [&](const record::Json& line) {
            return std::string(measure) == "barrier"
                       ? line["barrier"]["before"]["loss"].get<double>()
                       : line["sign_consistency"]["client_client"].get<double>();
        };
        EXPECT_NEAR(of(both), 0.5 * (of(first) + of(second)), 1e-12) << measure;
    }
    // Where one of the two does not take part there is nothing to say.
    run("none",
        {"server.rounds=1", "server.sampler={kind: uniform, count: 1}", "analysis.pairs=[0-4]", measures},
        self);
    EXPECT_TRUE(lines_.front()["barrier"].is_null());
    EXPECT_TRUE(lines_.front()["sign_consistency"]["client_client"].is_null());
}

TEST_F(FederationTest, LossThatIsNotFiniteIsShownAsSuch) {
    record::Json line = {{"round", 1},
                         {"cohort", {0}},
                         {"train", {{"loss", nullptr}}},
                         {"test", {{"loss", nullptr}, {"accuracy", 0.1}}},
                         {"seconds", {{"total", 1.0}}}};
    EXPECT_THAT(summary({line}), ::testing::HasSubstr("not finite"));
}

TEST_F(FederationTest, ARecordThatWasEditedIsShownAsFarAsItGoes) {
    record::Json line = {{"round", 1}, {"cohort", {0}}, {"train", {{"loss", 0.5}}}, {"seconds", 3}};
    for (const record::Json& test :
         {record::Json::object(), record::Json(3), record::Json{{"accuracy", "high"}}}) {
        line["test"] = test;
        EXPECT_THAT(summary({line}), ::testing::HasSubstr("0.5"));
    }
    line["ladder"] = record::Json::object();
    EXPECT_NE(summary({line}), "");
}

TEST_F(FederationTest, ResumeWithARoundWithoutAccuracyGoesOn) {
    core::SelfCommunicator self;
    const auto whole = run("run", {}, self);
    fs::remove(folder_ / "run" / "final.pt");
    std::ofstream record(folder_ / "run" / "rounds.jsonl");
    for (auto& line : lines_) {
        line["test"] = record::Json::object();
        record << line.dump() << "\n";
    }
    record.close();
    EXPECT_TRUE(run("run", {}, self, true).equal(whole));
}

TEST_F(FederationTest, LadderShowsEveryStep) {
    core::SelfCommunicator self;
    run("ladder",
        {"clients.init=independent", "server.rounds=1", "server.fusion=[merge_many, mean, repair]",
         "analysis.measures=[ladder, barrier, variance_ratio]"},
        self);
    const auto& ladder = lines_.front()["ladder"];
    ASSERT_EQ(ladder["steps"].size(), 3u);
    EXPECT_EQ(ladder["steps"][0]["name"], "mean");
    EXPECT_EQ(ladder["steps"][2]["name"], "merge_many+mean+repair");
    EXPECT_EQ(ladder["clients"].size(), 5u);
    EXPECT_EQ(ladder["steps"][2]["accuracy"], lines_.front()["test"]["accuracy"]);
    EXPECT_THAT(summary(lines_), ::testing::HasSubstr("merge_many+mean+repair"));
    EXPECT_LE(lines_.front()["barrier"]["after"]["loss"], lines_.front()["barrier"]["before"]["loss"]);
}

}  // namespace
}  // namespace thalweg::federation::federation_test
