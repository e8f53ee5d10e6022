#include <gmock/gmock.h>

#include <limits>
#include <map>

#include "thalweg/core/error.hpp"
#include "unit/aggregator/fusion_fixture.hpp"

/// What every registered stage must do, with its default options, with every value of every choice and every switch. A
/// new stage is tested here without a line about it.
namespace thalweg::testing::stages_test {
namespace {

struct Case {
    std::string stage;  ///< with an option in parentheses or none, as pipelines are written
    std::string architecture;
};

void PrintTo(const Case& tested, std::ostream* out) {
    *out << tested.stage << " on " << tested.architecture;
}

/// What a stage is given beside one option, so that it can be made at all and a test does not take minutes.
std::string settings_for(const std::string& stage, const std::string& architecture) {
    static const std::map<std::string, std::string> settings{
        {"attack", "clients=[3]"},        {"simulated_annealing", "steps=5"},
        {"sinkhorn_rebasin", "steps=10"}, {"straight_through", "epochs=1"},
        {"fine_tune", "epochs=1"},        {"fisher_mean", "samples=10"},
        {"c2m3", "max_iterations=20"},
    };
    if (stage == "layerwise_mean") {
        return "layers=[" +
               std::string(architecture == "mlp"         ? "layers.1"
                           : architecture == "attention" ? "mlp"
                                                         : "conv") +
               "]";
    }
    const auto found = settings.find(stage);
    return found == settings.end() ? "" : found->second;
}

/// Stages that say they cannot treat a model, and why.
std::string refusal_of(const std::string& stage, const std::string& architecture) {
    const bool scales = architecture != "cnn_layer_norm_tanh";
    if ((stage.starts_with("toroid") || stage.starts_with("geodesic_mean")) && !scales)
        return "positively homogeneous|none that";
    if ((stage.starts_with("matched_averaging") || stage.starts_with("optimal_transport")) &&
        architecture == "attention")
        return "blocks";
    return "";
}

/// A stage with one more setting than `settings_for` gives.
std::string with_setting(const std::string& stage, const std::string& setting,
                         const std::string& architecture) {
    std::string all = setting;
    const std::string own = settings_for(stage, architecture);
    if (!own.empty()) all += (all.empty() ? "" : ", ") + own;
    return all.empty() ? stage : stage + "(" + all + ")";
}

/// Settings of numbers, and of several options at once, that make a stage another one.
const std::vector<std::string>& further_settings() {
    static const std::vector<std::string> stages{
        "optimal_transport(regularisation=0.05)", "repair(noise=0.1, statistics=clients)",
        "weight_matching(restarts=3)", "weight_matching(bias_weight=2)",
        "c2m3(restarts=2, max_iterations=20)"};
    return stages;
}

std::vector<Case> all_cases() {
    std::vector<Case> cases;
    const auto add = [&](const std::string& stage, const std::string& setting,
                         const std::vector<std::string>& on) {
        for (const auto& architecture : on)
            cases.push_back({with_setting(stage, setting, architecture), architecture});
    };
    // With its defaults on every kind of network, with another choice on the simplest and the most entangled.
    for (const auto& plugin : core::plugins_of("stage")) {
        add(plugin.name, "",
            {"mlp", "cnn_batch_norm", "cnn_layer_norm_tanh", "residual_batch_norm", "attention"});
        for (const auto& option : plugin.options.options()) {
            // The stages that grow a model must be able to write its configuration anew.
            const std::string smallest = option.name == "grow" ? "mlp_configured" : "mlp";
            if (option.type == core::Option::Type::boolean)
                add(plugin.name, option.name + (option.fallback == "true" ? "=false" : "=true"), {smallest});
            if (option.type != core::Option::Type::choice) continue;
            for (const auto& choice : option.choices) {
                if (choice != option.fallback)
                    add(plugin.name, option.name + "=" + choice, {"mlp", "residual_batch_norm"});
            }
        }
    }
    for (const auto& stage : further_settings()) cases.push_back({stage, "mlp"});
    return cases;
}

/// Those on the two networks that whatever takes longer is tested on.
std::vector<Case> cases_on_two() {
    std::vector<Case> cases;
    for (auto& tested : all_cases()) {
        if (tested.architecture.starts_with("mlp") || tested.architecture == "residual_batch_norm")
            cases.push_back(std::move(tested));
    }
    return cases;
}

aggregator::StageTraits traits_of(const std::string& stage) {
    return core::Registry<std::unique_ptr<aggregator::Stage>>::make(aggregator::parse_stage(stage))->traits();
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

/// A model as a function: of the round's graph, or of another.
struct Function {
    const model::ModelGraph& graph;
    const model::Parameters& parameters;
    Function(const Round& round, const model::Parameters& model) : graph(round.graph), parameters(model) {}
    Function(const Round& round, const Fused& fused)
        : graph(fused.architecture ? fused.architecture->graph : round.graph), parameters(fused.merged) {}
    at::Tensor at(const at::Tensor& x) const { return logits_of(graph, parameters, x); }
};

/// Largest difference of the logits of two models, relative to the largest logit.
double function_difference(const Round& round, const Function& a, const Function& b) {
    const at::Tensor x = inputs_of(round.graph, *round.holdout).narrow(0, 0, 200);
    const at::Tensor expected = b.at(x);
    return largest_difference(a.at(x), expected) / expected.abs().max().item<double>();
}
double function_difference(const Round& round, const model::Parameters& a, const model::Parameters& b) {
    return function_difference(round, Function(round, a), Function(round, b));
}

/// Three clients' round. Drawing it costs more than most tests: that is done once, and every test gets copies of its models.
Round fresh_round(const std::string& architecture) {
    static std::map<std::string, Round> drawn;
    const auto found = drawn.find(architecture);
    Round round = found != drawn.end()
                      ? found->second
                      : drawn.emplace(architecture, make_round(architecture, 3)).first->second;
    round.global = round.global.clone();
    for (auto& update : round.updates) {
        update.parameters = update.parameters.clone();
        update.start = update.start.clone();
    }
    return round;
}

class StageContract : public ::testing::TestWithParam<Case> {
  protected:
    void SetUp() override {
        const std::string reason = refusal_of(GetParam().stage, GetParam().architecture);
        if (reason.empty()) return;
        try {
            fuse(round_, pipeline_, 2);
            FAIL() << "was not refused";
        } catch (const core::RunError& error) {
            EXPECT_THAT(error.what(), ::testing::ContainsRegex(reason));
        }
        GTEST_SKIP() << "says that it cannot treat this model";
    }
    aggregator::StageTraits traits_ = traits_of(GetParam().stage);
    Round round_ = fresh_round(GetParam().architecture);
    std::string pipeline_ = pipeline_with(GetParam().stage);
};

TEST_P(StageContract, StatesItsContract) {
    const auto* info = core::find_plugin("stage", GetParam().stage.substr(0, GetParam().stage.find('(')));
    ASSERT_NE(info, nullptr);
    ASSERT_FALSE(info->cost.empty()) << "says nothing of its complexity";
    const auto lines = aggregator::contract_of(*info, aggregator::parse_stage(GetParam().stage));
    ASSERT_GE(lines.size(), 4U);
    const std::map<aggregator::StageKind, std::string> kinds{
        {aggregator::StageKind::per_update, "every update by itself"},
        {aggregator::StageKind::cross_update, "all updates at once"},
        {aggregator::StageKind::reduction, "reduction"},
        {aggregator::StageKind::finisher, "finisher"}};
    EXPECT_THAT(lines[0], ::testing::HasSubstr(traits_.plays_clients ? "plays what happens at the clients"
                                                                     : kinds.at(traits_.kind)));
    EXPECT_THAT(lines, ::testing::Contains("costs " + info->cost));
    // Named when it is declared, and only then.
    const std::vector<std::pair<bool, std::string>> needs{
        {traits_.needs_anchor, "anchor"},
        {traits_.needs_base, "base"},
        {traits_.needs_holdout, "samples of the server's"},
        {traits_.needs_holdout && traits_.min_holdout > 1, std::to_string(traits_.min_holdout) + " samples"},
        {traits_.needs_clients, "from the clients"},
        {traits_.needs_start, "trainings started from"},
        {traits_.needs_homogeneous, "homogeneous"},
        {traits_.needs_linear, "weighted mean"},
        {traits_.needs_global_frame, "previous global model's frame"}};
    bool any = false;
    ASSERT_TRUE(lines[1].starts_with("needs ")) << lines[1];
    for (const auto& [declared, words] : needs) {
        any = any || declared;
        EXPECT_EQ(lines[1].find(words) != std::string::npos, declared) << words << ": " << lines[1];
    }
    EXPECT_EQ(lines[1] == "needs nothing beside the models", !any) << lines[1];
    const auto says = [&](const std::string& words) {
        return std::any_of(lines.begin(), lines.end(),
                           [&](const auto& line) { return line.find(words) != std::string::npos; });
    };
    EXPECT_EQ(says("sets masks"), traits_.sets_mask);
    EXPECT_EQ(says("models of other widths"), traits_.takes_any_width);
    EXPECT_EQ(says("more channels than the round's"), traits_.grows);
    EXPECT_EQ(says("an upper mark"), traits_.upper_mark);
    EXPECT_EQ(says("folds batch norms away"), traits_.folds_norms);
    const bool aligns = traits_.kind == aggregator::StageKind::per_update ||
                        traits_.kind == aggregator::StageKind::cross_update;
    if (aligns) {
        EXPECT_EQ(says("keeps every model's function"), traits_.keeps_function);
        EXPECT_EQ(says("may leave the previous global model's frame"), traits_.changes_frame);
    } else {
        EXPECT_EQ(says("identical models come out as they were"), traits_.fixed_point);
    }
}

TEST_P(StageContract, IdenticalModelsAreAFixedPoint) {
    if (!traits_.fixed_point) GTEST_SKIP() << "makes no such promise";
    const auto needs_clients = traits_of(GetParam().stage).needs_clients;
    for (auto& samples : round_.client_samples) samples = round_.holdout;
    for (auto& update : round_.updates) update.parameters = round_.global;
    // Running statistics that fit the data, which a finisher would otherwise rightly correct.
    const auto fitted = fuse(
        round_, std::string("mean+reset_batch_norm(statistics=") + (needs_clients ? "clients)" : "server)"));
    round_.global = fitted.merged;
    for (auto& update : round_.updates) update.parameters = update.start = fitted.merged;
    EXPECT_LT(function_difference(round_, {round_, fuse(round_, pipeline_)}, {round_, fitted.merged}), 1e-5);
}

TEST_P(StageContract, KeepsFunctionsThatItSaysItKeeps) {
    if (!traits_.keeps_function) GTEST_SKIP() << "makes no such promise";
    const auto fused = fuse(round_, pipeline_);
    for (std::size_t k = 0; k < round_.updates.size(); ++k) {
        EXPECT_LT(function_difference(round_, fused.updates[k].parameters, round_.updates[k].parameters),
                  1e-5);
    }
    for (auto& update : round_.updates) {
        update.parameters = update.parameters.to_double();
        update.start = update.start.to_double();
    }
    round_.global = round_.global.to_double();
    const auto exact = fuse(round_, pipeline_);
    for (std::size_t k = 0; k < round_.updates.size(); ++k) {
        EXPECT_LT(function_difference(round_, exact.updates[k].parameters, round_.updates[k].parameters),
                  1e-9);
    }
}

TEST_P(StageContract, KeepsDecisionsThatItSaysItKeeps) {
    if (!traits_.keeps_decision) GTEST_SKIP() << "makes no such promise";
    const auto fused = fuse(round_, pipeline_);
    const at::Tensor x = inputs_of(round_.graph, *round_.holdout).narrow(0, 0, 200);
    for (std::size_t k = 0; k < round_.updates.size(); ++k) {
        const at::Tensor before = logits_of(round_.graph, round_.updates[k].parameters, x);
        const at::Tensor after = logits_of(round_.graph, fused.updates[k].parameters, x);
        // One positive factor for all logits: more than the arg-max alone.
        const double factor = (after.norm() / before.norm()).item<double>();
        EXPECT_LT(largest_difference(after, before * factor), 1e-4 * after.abs().max().item<double>());
        EXPECT_TRUE(at::equal(after.argmax(1), before.argmax(1)));
    }
}

TEST_P(StageContract, GivesTheSameBitsOnAnyNumberOfRanksAndEveryTime) {
    const auto once = fuse(round_, pipeline_, 1);
    EXPECT_FALSE(once.merged.first_non_finite().has_value());
    for (const int ranks : {1, 2, 5}) {
        const auto again = fuse(round_, pipeline_, ranks);
        EXPECT_TRUE(same_bits(once.merged, again.merged)) << ranks << " ranks";
        ASSERT_EQ(once.reports.size(), again.reports.size());
        for (std::size_t i = 0; i < once.reports.size(); ++i) {
            EXPECT_EQ(once.reports[i].notes, again.reports[i].notes) << ranks << " ranks";
        }
    }
}

TEST_P(StageContract, WorksInARoundWithoutAGlobalModelOrSaysThatItCannot) {
    round_.global = {};
    if (traits_.needs_base) {
        EXPECT_THROW(fuse(round_, pipeline_, 3), core::UsageError);
        return;
    }
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
    if (!traits_.frame_free) GTEST_SKIP() << "makes no such promise";
    const auto plain = fuse(round_, pipeline_);
    core::Random random(11, "frame");
    const auto frame = symmetry::random_permutations(round_.symmetries, random);
    for (auto& update : round_.updates) {
        update.parameters = symmetry::permute(update.parameters, round_.symmetries, frame);
        update.start = symmetry::permute(update.start, round_.symmetries, frame);
    }
    round_.global = symmetry::permute(round_.global, round_.symmetries, frame);
    EXPECT_LT(function_difference(round_, {round_, fuse(round_, pipeline_)}, {round_, plain}), 2e-5);
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
    const auto global = round_.global.clone();
    std::vector<model::Parameters> ends, starts;
    for (const auto& update : round_.updates) {
        ends.push_back(update.parameters.clone());
        starts.push_back(update.start.clone());
    }
    fuse(round_, pipeline_, 2);
    EXPECT_TRUE(same_bits(global, round_.global));
    for (std::size_t k = 0; k < round_.updates.size(); ++k) {
        EXPECT_TRUE(same_bits(ends[k], round_.updates[k].parameters)) << k;
        EXPECT_TRUE(same_bits(starts[k], round_.updates[k].start)) << k;
    }
}

/// What a stage does with a NaN that nobody has looked for before it.
class StageOnItsOwn : public StageContract {
  protected:
    /// The stage alone on models of which client 3's holds a NaN at that element: refused, or the result has none. What an
    /// alignment makes is judged by the mean of it, and by the other clients' models.
    void expect_no_nan(std::int64_t element) {
        Round round = round_;
        round.updates[1].parameters = round.updates[1].parameters.clone();
        round.updates[1].parameters.values[element] = std::numeric_limits<float>::quiet_NaN();
        const auto stage = aggregator::parse_stage(GetParam().stage);
        for (const int ranks : {1, 3}) {
            try {
                on_ranks(round, ranks,
                         [&](aggregator::FusionState& state, const aggregator::FusionContext& context) {
                             make(stage)->apply(state, context);
                             if (traits_.kind == aggregator::StageKind::cross_update) {
                                 for (const auto& update : state.updates) {
                                     if (update.client == 3) continue;
                                     const auto fault = update.parameters.first_non_finite();
                                     EXPECT_FALSE(fault.has_value())
                                         << "client " << update.client << "'s model: " << fault.value_or("");
                                 }
                                 if (!state.architecture)
                                     make(aggregator::parse_stage("mean"))->apply(state, context);
                             }
                             if (!state.merged.defined()) return;
                             const auto fault = state.merged.first_non_finite();
                             EXPECT_FALSE(fault.has_value()) << "the merged model: " << fault.value_or("");
                         });
            } catch (const core::Error& error) {
                EXPECT_STRNE(error.what(), "");
            }
        }
    }

  private:
    static std::unique_ptr<aggregator::Stage> make(const core::Value& options) {
        return core::Registry<std::unique_ptr<aggregator::Stage>>::make(options);
    }
};

TEST_P(StageOnItsOwn, MakesNoNaNOfOneInAWeight) {
    if (traits_.kind == aggregator::StageKind::finisher) GTEST_SKIP() << "sees the merged model";
    if (traits_.kind == aggregator::StageKind::per_update) GTEST_SKIP() << "sees one model";
    expect_no_nan(3);
}

TEST_P(StageOnItsOwn, MakesNoNaNOfOneInARunningStatistic) {
    if (traits_.kind == aggregator::StageKind::finisher) GTEST_SKIP() << "sees the merged model";
    if (traits_.kind == aggregator::StageKind::per_update) GTEST_SKIP() << "sees one model";
    const auto& layout = *round_.graph.layout;
    if (layout.size() == layout.trainable_size()) GTEST_SKIP() << "there are none";
    expect_no_nan(layout.trainable_size() + 2);
}

/// Everything that a stage does not declare to need is taken away.
class StageNeeds : public StageContract {
  protected:
    void SetUp() override {
        StageContract::SetUp();
        // Few, so that what is tested here costs little.
        round_.holdout = few_samples(60);
        if (!traits_.needs_holdout) round_.holdout = nullptr;
        if (!traits_.needs_clients) round_.client_samples.clear();
        if (!traits_.needs_base) round_.global = {};
        if (traits_.needs_start) return;
        for (auto& update : round_.updates) update.start = {};
    }
    std::shared_ptr<const data::SampleSet> few_samples(std::int64_t count) const {
        return random_samples(count, c10::multiply_integers(round_.graph.input_shape()), 4, 99);
    }
    void expect_refusal(const Round& round, const std::string& without) const {
        for (const int ranks : {1, 2}) {
            try {
                fuse(round, pipeline_, ranks);
                ADD_FAILURE() << "declares that it needs " << without << " and works without";
            } catch (const core::Error& error) {  // of use, or of the run
                EXPECT_THAT(error.what(),
                            ::testing::HasSubstr(GetParam().stage.substr(0, GetParam().stage.find('('))))
                    << without;
            }
        }
    }
};

TEST_P(StageNeeds, AreDeclared) {
    EXPECT_FALSE(fuse(round_, pipeline_, 2).merged.first_non_finite().has_value());
    if (!traits_.needs_holdout) return;
    round_.holdout = few_samples(traits_.min_holdout);
    EXPECT_FALSE(fuse(round_, pipeline_, 2).merged.first_non_finite().has_value()) << "fewest samples";
}

TEST_P(StageNeeds, AreRefusedWhereTheyAreMissing) {
    Round without = round_;
    if (traits_.needs_holdout) {
        without.holdout = nullptr;
        expect_refusal(without, "the server's samples");
        if (traits_.min_holdout > 1) {
            without.holdout = random_samples(traits_.min_holdout - 1,
                                             c10::multiply_integers(round_.graph.input_shape()), 4, 99);
            EXPECT_THROW(fuse(without, pipeline_, 2), core::Error) << "too few samples";
        }
    }
    if (traits_.needs_clients) {
        without = round_;
        without.client_samples.clear();
        expect_refusal(without, "the clients' statistics");
    }
    if (traits_.needs_base) {
        without = round_;
        without.global = {};
        expect_refusal(without, "a base");
    }
    if (traits_.needs_start) {
        without = round_;
        without.updates[1].start = {};  // one is enough
        expect_refusal(without, "the trainings' starts");
    }
    if (!traits_.needs_holdout && !traits_.needs_clients && !traits_.needs_base && !traits_.needs_start)
        GTEST_SKIP() << "needs nothing of that kind";
}

std::string case_name(const ::testing::TestParamInfo<Case>& info) {
    std::string name = info.param.stage + "_" + info.param.architecture;
    std::replace_if(
        name.begin(), name.end(), [](char c) { return std::isalnum(static_cast<unsigned char>(c)) == 0; },
        '_');
    return name;
}

INSTANTIATE_TEST_SUITE_P(Registered, StageContract, ::testing::ValuesIn(all_cases()), case_name);
INSTANTIATE_TEST_SUITE_P(Registered, StageOnItsOwn, ::testing::ValuesIn(cases_on_two()), case_name);
INSTANTIATE_TEST_SUITE_P(Registered, StageNeeds, ::testing::ValuesIn(cases_on_two()), case_name);

}  // namespace
}  // namespace thalweg::testing::stages_test
