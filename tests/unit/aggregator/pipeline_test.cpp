#include <gmock/gmock.h>

#include <limits>

#include "thalweg/core/error.hpp"
#include "unit/aggregator/fusion_fixture.hpp"

namespace thalweg::testing::pipeline_test {
namespace {

using aggregator::Pipeline;
using aggregator::StageKind;
using ::testing::AllOf;
using ::testing::HasSubstr;

/// A reduction that knows no masks.
class FirstModel final : public aggregator::Stage {
  public:
    aggregator::StageTraits traits() const override { return {.kind = StageKind::reduction}; }
    aggregator::StageNotes apply(aggregator::FusionState& state,
                                 const aggregator::FusionContext& context) const override {
        state.merged = aggregator::resolve_anchor("first", state, context);
        return {};
    }
};
const aggregator::StageRegistration first_model{
    {.kind = "stage", .name = "test_first", .help = "the first model", .citation = "", .options = {}},
    [](const core::Value&) { return std::make_unique<FirstModel>(); }};

/// Pulls every model half way to the anchor; fails at client 3 when told to.
class HalfWay final : public aggregator::PerUpdateStage {
  public:
    explicit HalfWay(const core::Value& options)
        : anchor_(options["anchor"].as_text()), fails_(options["fails"].as_bool()) {}
    aggregator::StageTraits traits() const override {
        return {.kind = StageKind::per_update, .needs_anchor = true};
    }

  protected:
    void treat(aggregator::Update& update, const model::Parameters& anchor,
               const aggregator::FusionContext&) const override {
        if (fails_ && update.client == 3) throw core::RunError("client 3 cannot be treated");
        auto moved = update.parameters.clone();
        moved.values = (moved.values + anchor.values) / 2;
        update.parameters = moved;
    }
    std::string anchor() const override { return anchor_; }

  private:
    std::string anchor_;
    bool fails_;
};
const aggregator::StageRegistration half_way{
    {.kind = "stage",
     .name = "test_half_way",
     .help = "half way to the anchor",
     .citation = "",
     .options = {core::choice("anchor", {"global", "first", "largest"}, "whom").by_default("global"),
                 core::boolean("fails", "at client 3").by_default(false)}},
    [](const core::Value& options) { return std::make_unique<HalfWay>(options); }};

std::string refusal(const std::string& text) {
    try {
        Pipeline::parse(text);
    } catch (const core::UsageError& error) {
        EXPECT_THAT(error.what(), HasSubstr("'" + text + "'"));
        return error.what();
    }
    ADD_FAILURE() << text << " was accepted";
    return {};
}

TEST(Pipeline, ReadsTheShortForm) {
    const auto pipeline = Pipeline::parse(
        " sign_alignment( mode=attenuate ,rho=0.25 ) + mean(weights=uniform)+repair() +reset_batch_norm");
    ASSERT_EQ(pipeline.items().size(), 4U);
    EXPECT_EQ(pipeline.items()[0].name, "sign_alignment");
    EXPECT_EQ(pipeline.items()[0].options["mode"].as_text(), "attenuate");
    EXPECT_EQ(pipeline.items()[0].options["rho"].as_number(), 0.25);
    EXPECT_EQ(pipeline.items()[0].options["vote"].as_text(), "majority");
    EXPECT_EQ(pipeline.items()[1].options["weights"].as_text(), "uniform");
    EXPECT_EQ(pipeline.reduction(), 1U);
    EXPECT_TRUE(pipeline.needs_holdout());
    EXPECT_FALSE(pipeline.needs_clients());
    EXPECT_FALSE(pipeline.changes_frame());
    // The resolved options make the same pipeline again.
    EXPECT_EQ(core::to_flow(Pipeline(pipeline.options()).options()), core::to_flow(pipeline.options()));
    EXPECT_TRUE(Pipeline::parse("mean+repair(statistics=clients)").needs_clients());
}

TEST(Pipeline, SaysWhatIsWrongWithTheShortForm) {
    EXPECT_THAT(refusal("mean+"), HasSubstr("no name"));
    EXPECT_THAT(refusal(""), HasSubstr("no name"));
    EXPECT_THAT(refusal("mean(weights=uniform"), HasSubstr("not closed"));
    EXPECT_THAT(refusal("mean)"), HasSubstr("closing bracket"));
    EXPECT_THAT(refusal("mean(uniform)"), HasSubstr("key=value"));
    EXPECT_THAT(refusal("mean(weights=uniform, weights=samples)"), HasSubstr("twice"));
    EXPECT_THAT(refusal("mean(weights=uniform)x"), HasSubstr("closing parenthesis"));
    EXPECT_THAT(refusal("maen"), HasSubstr("did you mean 'mean'"));
    EXPECT_THAT(refusal("mean(wieghts=uniform)"), HasSubstr("weights"));
    EXPECT_THAT(refusal("sign_alignment(rho=2)+mean"), HasSubstr("rho"));
    EXPECT_THAT(refusal("mean(weights=equal)"), HasSubstr("uniform"));
}

TEST(Pipeline, RefusesAnOrderThatMakesNoSense) {
    EXPECT_THAT(refusal("sign_alignment"), HasSubstr("no reduction"));
    EXPECT_THAT(refusal("mean+mean"), AllOf(HasSubstr("pipeline[1]"), HasSubstr("second reduction")));
    EXPECT_THAT(refusal("mean+sign_alignment"), AllOf(HasSubstr("pipeline[1]"), HasSubstr("before mean")));
    EXPECT_THAT(refusal("repair+mean"), AllOf(HasSubstr("pipeline[0]"), HasSubstr("finisher")));
    EXPECT_THAT(refusal("sign_alignment+test_first"), AllOf(HasSubstr("pipeline[1]"), HasSubstr("mask")));
    EXPECT_THAT(refusal("sign_alignment+test_half_way+mean"),
                AllOf(HasSubstr("pipeline[1]"), HasSubstr("mask")));
    EXPECT_NO_THROW(Pipeline::parse("sign_alignment(mode=measure)+test_first"));
    EXPECT_NO_THROW(Pipeline::parse("test_half_way+sign_alignment+sign_alignment(vote=sum)+mean"));
    EXPECT_THROW(Pipeline(core::Value::list()), core::UsageError);
}

TEST(Pipeline, SaysWhichStageLacksData) {
    const auto server = Pipeline::parse("mean+repair");
    const auto clients = Pipeline::parse("mean+reset_batch_norm(statistics=clients)");
    EXPECT_NO_THROW(server.require_sources(true, false));
    EXPECT_NO_THROW(clients.require_sources(false, true));
    for (const auto& [pipeline, word] :
         {std::pair{&server, "repair"}, std::pair{&clients, "reset_batch_norm"}}) {
        try {
            pipeline->require_sources(false, false);
            FAIL();
        } catch (const core::UsageError& error) {
            EXPECT_THAT(error.what(), AllOf(HasSubstr("pipeline[1]"), HasSubstr(word)));
        }
    }
}

TEST(Pipeline, RefusesAModelThatIsNotFiniteBeforeAnyStage) {
    for (const int ranks : {1, 3}) {
        Round round = make_round("mlp", 4);
        round.updates[1].parameters.view("layers.2.bias")[1] = std::numeric_limits<float>::infinity();
        try {
            fuse(round, "test_half_way(fails=true)+mean", ranks);
            FAIL();
        } catch (const core::RunError& error) {
            EXPECT_THAT(error.what(), AllOf(HasSubstr("client 3"), HasSubstr("layers.2.bias")));
        }
    }
}

TEST(Pipeline, ObservesEveryStageAndReportsIt) {
    const Round round = make_round("mlp", 3);
    on_ranks(round, 2, [&](aggregator::FusionState& state, const aggregator::FusionContext& context) {
        std::vector<std::pair<std::size_t, bool>> seen;
        const auto reports = Pipeline::parse("sign_alignment+mean+repair")
                                 .run(state, context, [&](std::size_t i, const aggregator::FusionState& now) {
                                     seen.emplace_back(i, now.merged.defined());
                                 });
        EXPECT_EQ(seen, (std::vector<std::pair<std::size_t, bool>>{{0, false}, {1, true}, {2, true}}));
        ASSERT_EQ(reports.size(), 3U);
        EXPECT_EQ(reports[2].name, "repair");
        EXPECT_EQ(reports[0].notes.front().first, "disagreeing");
    });
}

TEST(PerUpdateStage, TreatsEveryUpdateAgainstTheAnchor) {
    Round round = make_round("mlp", 5);
    for (const int ranks : {1, 2, 3}) {
        const auto fused = fuse(round, "test_half_way(anchor=largest)+test_first", ranks);
        // Client 3 has the most samples: 40 + 30·4.
        ASSERT_EQ(round.updates[1].samples, 160);
        for (std::size_t k = 0; k < 5; ++k) {
            const auto expected =
                (round.updates[k].parameters.values + round.updates[1].parameters.values) / 2;
            EXPECT_TRUE(at::equal(fused.updates[k].parameters.values, expected)) << k;
            EXPECT_EQ(fused.updates[k].client, round.updates[k].client);
            EXPECT_EQ(fused.updates[k].samples, round.updates[k].samples);
            EXPECT_FALSE(fused.updates[k].mask.defined());
        }
    }
    const auto to_global = fuse(round, "test_half_way+test_first", 2).merged;
    EXPECT_TRUE(at::equal(to_global.values, (round.updates[0].parameters.values + round.global.values) / 2));
    round.global = {};  // round 1: the first one stands in
    EXPECT_TRUE(same_bits(fuse(round, "test_half_way+test_first", 3).merged, round.updates[0].parameters));
}

TEST(PerUpdateStage, FailsOnAllRanksAlike) {
    const Round round = make_round("mlp", 3);
    int failures = 0;
    std::mutex mutex;
    on_ranks(round, 3, [&](aggregator::FusionState& state, const aggregator::FusionContext& context) {
        try {
            Pipeline::parse("test_half_way(fails=true)+mean").run(state, context);
        } catch (const core::RunError& error) {
            const std::lock_guard lock(mutex);
            EXPECT_THAT(error.what(), HasSubstr("client 3 cannot be treated"));
            ++failures;
        }
    });
    EXPECT_EQ(failures, 3);
}

TEST(ResolveAnchor, TakesTheLowestIdAmongEqualsAndKeepsDoubles) {
    Round round = make_round("mlp_batch_norm", 4);
    for (auto& update : round.updates) {
        update.samples = update.client == 0 ? 1 : 50;
        update.parameters = update.parameters.to_double();
    }
    for (const int ranks : {1, 2, 5}) {
        on_ranks(round, ranks, [&](aggregator::FusionState& state, const aggregator::FusionContext& context) {
            EXPECT_TRUE(same_bits(aggregator::resolve_anchor("largest", state, context),
                                  round.updates[1].parameters));
            EXPECT_TRUE(
                same_bits(aggregator::resolve_anchor("first", state, context), round.updates[0].parameters));
        });
    }
}

TEST(GatherUpdates, BringsModelsAndMasksToEveryRank) {
    Round round = make_round("cnn_batch_norm", 4);
    round.updates[2].mask = at::zeros({round.graph.layout->trainable_size()}, at::kBool);
    round.updates[2].mask[3] = true;
    for (const int ranks : {1, 2, 3, 7}) {
        on_ranks(round, ranks, [&](aggregator::FusionState& state, const aggregator::FusionContext& context) {
            const auto all = aggregator::gather_updates(state, context);
            ASSERT_EQ(all.size(), 4U);
            for (std::size_t k = 0; k < 4; ++k) {
                EXPECT_EQ(all[k].client, round.updates[k].client);
                EXPECT_TRUE(same_bits(all[k].parameters, round.updates[k].parameters));
                ASSERT_EQ(all[k].mask.defined(), k == 2);
            }
            EXPECT_TRUE(at::equal(all[2].mask, round.updates[2].mask));
        });
    }
}

TEST(CheckUpdates, FindsWhatDoesNotFit) {
    const Round round = make_round("mlp", 3);
    const auto expect_refused = [&](const std::function<void(aggregator::FusionState&)>& spoil) {
        on_ranks(round, 1, [&](aggregator::FusionState& state, const aggregator::FusionContext& context) {
            spoil(state);
            EXPECT_THROW(aggregator::check_updates(state.updates, context), std::logic_error);
        });
    };
    expect_refused([](auto& state) { state.updates.pop_back(); });
    expect_refused([](auto& state) { std::swap(state.updates[0], state.updates[1]); });
    expect_refused([](auto& state) { state.updates.push_back(state.updates.back()); });
    expect_refused([](auto& state) { state.updates[0].mask = at::ones({3}, at::kBool); });
    expect_refused([](auto& state) { state.updates[0].parameters.values = at::zeros({3}); });
}

}  // namespace
}  // namespace thalweg::testing::pipeline_test
