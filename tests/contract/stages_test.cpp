#include <gmock/gmock.h>

#include <limits>

#include "thalweg/core/error.hpp"
#include "unit/aggregator/fusion_fixture.hpp"

/// What every registered stage must do, with its default options and with every value of every choice. A new stage is
/// tested here without a line about it.
namespace thalweg::testing {
namespace {

struct Case {
    std::string stage;  ///< with an option in parentheses or none, as pipelines are written
    std::string architecture;
};

void PrintTo(const Case& tested, std::ostream* out) {
    *out << tested.stage << " on " << tested.architecture;
}

std::vector<Case> all_cases() {
    std::vector<std::string> stages;
    for (const auto& plugin : core::plugins_of("stage")) {
        stages.push_back(plugin.name);
        for (const auto& option : plugin.options.options()) {
            if (option.type != core::Option::Type::choice) continue;
            for (const auto& choice : option.choices) {
                if (choice != option.fallback)
                    stages.push_back(plugin.name + "(" + option.name + "=" + choice + ")");
            }
        }
    }
    std::vector<Case> cases;
    for (const auto& stage : stages) {
        for (const std::string architecture :
             {"mlp", "cnn_batch_norm", "cnn_layer_norm_tanh", "residual_batch_norm", "attention"})
            cases.push_back({stage, architecture});
    }
    return cases;
}

aggregator::StageTraits traits_of(const std::string& stage) {
    const auto name = stage.substr(0, stage.find('('));
    core::Value options = core::Value::map({{"kind", core::Value::of(name)}});
    if (const auto equals = stage.find('='); equals != std::string::npos) {
        const auto open = name.size() + 1;
        options.set(stage.substr(open, equals - open),
                    core::Value::of(stage.substr(equals + 1, stage.size() - equals - 2)));
    }
    const auto resolved = core::resolve_plugin("stage", "kind", options, "stage");
    return core::Registry<std::unique_ptr<aggregator::Stage>>::make(resolved)->traits();
}

/// The shortest pipeline with that stage in it.
std::string pipeline_with(const std::string& stage) {
    switch (traits_of(stage).kind) {
        case aggregator::StageKind::reduction:
            return stage;
        case aggregator::StageKind::finisher:
            return "mean+" + stage;
        default:
            return stage + "+mean";
    }
}

/// Largest difference of the logits of two models, relative to the largest logit.
double function_difference(const Round& round, const model::Parameters& a, const model::Parameters& b) {
    const at::Tensor x = inputs_of(round.graph, *round.holdout).narrow(0, 0, 200);
    const at::Tensor expected = logits_of(round.graph, b, x);
    return largest_difference(logits_of(round.graph, a, x), expected) / expected.abs().max().item<double>();
}

class StageContract : public ::testing::TestWithParam<Case> {
  protected:
    Round round_ = make_round(GetParam().architecture, 3);
    std::string pipeline_ = pipeline_with(GetParam().stage);
};

TEST_P(StageContract, IdenticalModelsAreAFixedPoint) {
    const auto needs_clients = traits_of(GetParam().stage).needs_clients;
    for (auto& samples : round_.client_samples) samples = round_.holdout;
    for (auto& update : round_.updates) update.parameters = round_.global;
    // Running statistics that fit the data, which a finisher would otherwise rightly correct.
    const auto fitted = fuse(
        round_, std::string("mean+reset_batch_norm(statistics=") + (needs_clients ? "clients)" : "server)"));
    round_.global = fitted.merged;
    for (auto& update : round_.updates) update.parameters = fitted.merged;
    EXPECT_LT(function_difference(round_, fuse(round_, pipeline_).merged, fitted.merged), 1e-5);
}

TEST_P(StageContract, KeepsFunctionsThatItSaysItKeeps) {
    if (!traits_of(GetParam().stage).keeps_function) GTEST_SKIP() << "makes no such promise";
    const auto fused = fuse(round_, pipeline_);
    for (std::size_t k = 0; k < round_.updates.size(); ++k) {
        EXPECT_LT(function_difference(round_, fused.updates[k].parameters, round_.updates[k].parameters),
                  1e-5);
    }
}

TEST_P(StageContract, GivesTheSameBitsOnAnyNumberOfRanksAndEveryTime) {
    const auto once = fuse(round_, pipeline_, 1);
    EXPECT_FALSE(once.merged.first_non_finite().has_value());
    for (const int ranks : {1, 2, 3, 5}) {
        const auto again = fuse(round_, pipeline_, ranks);
        EXPECT_TRUE(same_bits(once.merged, again.merged)) << ranks << " ranks";
        ASSERT_EQ(once.reports.size(), again.reports.size());
        for (std::size_t i = 0; i < once.reports.size(); ++i) {
            EXPECT_EQ(once.reports[i].notes, again.reports[i].notes) << ranks << " ranks";
        }
    }
}

TEST_P(StageContract, WorksInARoundWithoutAGlobalModel) {
    round_.global = {};
    const auto once = fuse(round_, pipeline_, 1);
    EXPECT_FALSE(once.merged.first_non_finite().has_value());
    EXPECT_TRUE(same_bits(once.merged, fuse(round_, pipeline_, 3).merged));
}

TEST_P(StageContract, WorksWithOneClient) {
    round_.updates.resize(1);
    const auto once = fuse(round_, pipeline_, 1);
    EXPECT_FALSE(once.merged.first_non_finite().has_value());
    EXPECT_TRUE(same_bits(once.merged, fuse(round_, pipeline_, 2).merged));
}

TEST_P(StageContract, AFramePermutedForAllPermutesTheResult) {
    const auto plain = fuse(round_, pipeline_).merged;
    core::Random random(11, "frame");
    const auto frame = symmetry::random_permutations(round_.symmetries, random);
    for (auto& update : round_.updates) {
        update.parameters = symmetry::permute(update.parameters, round_.symmetries, frame);
    }
    round_.global = symmetry::permute(round_.global, round_.symmetries, frame);
    EXPECT_LT(function_difference(round_, fuse(round_, pipeline_).merged, plain), 2e-5);
}

TEST_P(StageContract, RefusesNaN) {
    round_.updates[1].parameters.trainable()[3] = std::numeric_limits<float>::quiet_NaN();
    for (const int ranks : {1, 3}) {
        try {
            fuse(round_, pipeline_, ranks);
            FAIL() << "fused a NaN";
        } catch (const core::RunError& error) {
            EXPECT_THAT(error.what(), ::testing::HasSubstr("client 3"));
        }
    }
}

TEST_P(StageContract, DoesNotWriteIntoTheModelsItIsGiven) {
    std::vector<model::Parameters> before{round_.global.clone()};
    for (const auto& update : round_.updates) before.push_back(update.parameters.clone());
    fuse(round_, pipeline_, 2);
    EXPECT_TRUE(same_bits(before[0], round_.global));
    for (std::size_t k = 0; k < round_.updates.size(); ++k) {
        EXPECT_TRUE(same_bits(before[k + 1], round_.updates[k].parameters)) << k;
    }
}

std::string case_name(const ::testing::TestParamInfo<Case>& info) {
    std::string name = info.param.stage + "_" + info.param.architecture;
    std::replace_if(
        name.begin(), name.end(), [](char c) { return std::isalnum(static_cast<unsigned char>(c)) == 0; },
        '_');
    return name;
}

INSTANTIATE_TEST_SUITE_P(Registered, StageContract, ::testing::ValuesIn(all_cases()), case_name);

}  // namespace
}  // namespace thalweg::testing
