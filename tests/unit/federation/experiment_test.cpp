#include "thalweg/federation/experiment.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "thalweg/core/error.hpp"

namespace thalweg::federation::experiment_test {
namespace {

using ::testing::HasSubstr;

const char* const minimal = R"(
data:
  dataset: {kind: gaussian_mixture, classes: 3, dimension: 6, train: 300, test: 90}
  partition: {scheme: iid, clients: 6}
model: {kind: linear}
clients: {batch_size: 10}
server: {rounds: 2}
)";

Experiment make(const std::string& text, const std::vector<std::string>& overrides = {}) {
    return make_experiment(core::parse_yaml(text, "test.yaml"), overrides);
}

std::string fault(const std::vector<std::string>& overrides, const std::string& text = minimal) {
    try {
        make(text, overrides);
    } catch (const core::UsageError& error) {
        return error.what();
    }
    return "no error";
}

TEST(Experiment, FillsEveryDefaultIn) {
    const auto experiment = make(minimal);
    EXPECT_EQ(experiment.name, "run");
    EXPECT_EQ(experiment.seed, 1u);
    EXPECT_EQ(experiment.rounds, 2);
    EXPECT_EQ(experiment.plan.batch_size, 10);
    EXPECT_FALSE(experiment.independent_initialisation);
    EXPECT_EQ(experiment.config["server"]["fusion"].items().size(), 1u);
    EXPECT_EQ(experiment.config["server"]["fusion"].items()[0]["kind"].as_text(), "mean");
    EXPECT_EQ(experiment.config["server"]["sampler"]["kind"].as_text(), "all");
}

TEST(Experiment, ResolvedConfigurationReadsBackAsItself) {
    const auto experiment =
        make(minimal, {"clients.init=independent", "analysis.measures=[ladder, {barrier: {pairs: 2}}]"});
    const auto again = make(core::to_yaml(experiment.config));
    EXPECT_THAT(core::differences(experiment.config, again.config), ::testing::IsEmpty());
    EXPECT_EQ(experiment.config, again.config);
    EXPECT_TRUE(again.independent_initialisation);
}

TEST(Experiment, OverridesReplaceWhatTheFileSays) {
    const auto experiment = make(minimal, {"server.rounds=7", "seed=12", "model={kind: mlp, hidden: [4]}"});
    EXPECT_EQ(experiment.rounds, 7);
    EXPECT_EQ(experiment.seed, 12u);
    EXPECT_EQ(experiment.config["model"]["kind"].as_text(), "mlp");
}

TEST(Experiment, SaysWhatIsWrongAndWhere) {
    EXPECT_THAT(fault({"server.round=3"}), HasSubstr("did you mean 'rounds'"));
    EXPECT_THAT(fault({"server.rounds=0"}), HasSubstr("server.rounds"));
    EXPECT_THAT(fault({"name=a/b"}), HasSubstr("name"));
    EXPECT_THAT(fault({"server.fusion=[activation_matching, mean]"}), HasSubstr("data.holdout"));
    EXPECT_THAT(fault({"server.fusion=[mean, mean]"}), HasSubstr("server.fusion[1]"));
    EXPECT_THAT(fault({"analysis.measures=[barier]"}), HasSubstr("did you mean 'barrier'"));
    EXPECT_THAT(fault({"analysis.measures=[barrier, {barrier: {pairs: 2}}]"}),
                HasSubstr("recorded as 'barrier'"));
    EXPECT_THAT(fault({"analysis.measures=[barrier, {barrier: {as: barrier_2}}]"}), "no error");
    EXPECT_THAT(fault({"analysis.measures=[{barrier: {as: test}}]"}), HasSubstr("every round's record has"));
    EXPECT_THAT(fault({"analysis.rounds=[1, 3]"}), HasSubstr("round 3 never comes"));
    EXPECT_THAT(fault({"analysis.measures=[{ladder: {rounds: [0]}}]"}),
                HasSubstr("analysis.measures[0].rounds"));
    EXPECT_THAT(fault({"analysis.pairs=[0-9]"}), HasSubstr("there is no client 9"));
    EXPECT_THAT(fault({"analysis.pairs=[0-1, 1-0]"}), HasSubstr("the pair '1-0' stands in the list before"));
    for (const char* pair : {"1", "1-1", "1-x", "1-2-3", "-1-2"})
        EXPECT_THAT(fault({std::string("analysis.pairs=['") + pair + "']"}),
                    HasSubstr("is no pair of clients"))
            << pair;
}

TEST(Experiment, MeasuresOfTheGlobalModelGoWithClientsOfSeveralWidths) {
    const auto with = [](const std::string& measure) {
        return fault({"model={kind: mlp, hidden: [8]}",
                      "clients.models=[{kind: mlp, hidden: [8]}, {kind: mlp, hidden: [6]}]",
                      "clients.init=independent", "server.rounds=1",
                      "server.fusion=[optimal_transport, mean]", "analysis.measures=[" + measure + "]"});
    };
    for (const auto* measure : {"ladder", "valley", "surface", "hessian", "flatness", "support"})
        EXPECT_EQ(with(measure), "no error") << measure;
    for (const auto* measure : {"barrier", "layer_barriers", "sign_consistency", "variance_ratio", "cka"})
        EXPECT_THAT(with(measure), HasSubstr("coordinate by coordinate")) << measure;
}

TEST(Experiment, MeasuresThatMendNeedSamplesOfTheServers) {
    EXPECT_THAT(fault({"analysis.measures=[{layer_barriers: {reset_batch_norm: true}}]"}),
                HasSubstr("data.holdout"));
    EXPECT_EQ(fault({"analysis.measures=[{layer_barriers: {reset_batch_norm: true}}]", "data.holdout=50"}),
              "no error");
}

TEST(Experiment, TheLivePagesTokenIsKeptOutOfTheConfiguration) {
    EXPECT_EQ(make(minimal).serve, "");
    const auto experiment =
        make(minimal, {"record.serve=0.0.0.0:8080", "record.token=correct-horse-battery"});
    EXPECT_EQ(experiment.serve, "0.0.0.0:8080");
    EXPECT_EQ(experiment.token, "correct-horse-battery");
    EXPECT_EQ(core::to_yaml(experiment.config).find("horse"), std::string::npos);
    EXPECT_TRUE(make(core::to_yaml(experiment.config)).token.empty());
    EXPECT_EQ(make(minimal, {"record.serve=8080"}).serve, "8080");
    EXPECT_THAT(fault({"record.serve=example.org:80"}), HasSubstr("record.serve"));
    EXPECT_THAT(fault({"record.token=short-secret"}), HasSubstr("record.token"));
    EXPECT_EQ(fault({"record.token=short-secret"}).find("short-secret"), std::string::npos);
}

TEST(Experiment, InitialModelsAreDifferentAndRepeat) {
    core::SelfCommunicator self;
    const auto experiment = make(minimal);
    const auto setting = open_setting(experiment, self);
    const auto first = initial_model(setting.graph, 1, 0);
    EXPECT_TRUE(first.values.equal(initial_model(setting.graph, 1, 0).values));
    EXPECT_FALSE(first.values.equal(initial_model(setting.graph, 1, 1).values));
    EXPECT_FALSE(first.values.equal(initial_model(setting.graph, 1, -1).values));
    EXPECT_FALSE(first.values.equal(initial_model(setting.graph, 2, 0).values));
}

}  // namespace
}  // namespace thalweg::federation::experiment_test
