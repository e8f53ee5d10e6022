#include <gmock/gmock.h>

#include <limits>

#include "thalweg/core/error.hpp"
#include "unit/aggregator/fusion_fixture.hpp"

namespace thalweg::testing::mean_test {
namespace {

using ::testing::HasSubstr;

/// The definition, entry by entry: Σ w θ over the kept, ÷ Σ w over the kept; all of them when none is kept.
at::Tensor slow_mean(const Round& round, const std::vector<double>& weights) {
    const auto& layout = *round.graph.layout;
    std::vector<double> result;
    for (std::int64_t i = 0; i < layout.size(); ++i) {
        double sum = 0, weight = 0, plain = 0;
        bool all = true;
        for (std::size_t k = 0; k < round.updates.size(); ++k) {
            const auto& update = round.updates[k];
            const double value = update.parameters.values[i].item<double>();
            const bool kept =
                i >= layout.trainable_size() || !update.mask.defined() || update.mask[i].item<bool>();
            plain += weights[k] * value;
            if (kept) {
                sum += weights[k] * value;
                weight += weights[k];
            }
            all = all && kept;
        }
        result.push_back(all || weight == 0 ? plain : sum / weight);
    }
    return at::tensor(result, at::kDouble);
}

at::Tensor random_mask(std::int64_t size, std::uint64_t seed) {
    core::Random random(seed, "mask");
    const at::Tensor mask = at::empty({size}, at::kBool);
    for (std::int64_t i = 0; i < size; ++i) mask[i] = random.uniform() < 0.6;
    return mask;
}

model::Parameters mean_on(const Round& round, int ranks, aggregator::Weighting weighting) {
    model::Parameters result;
    std::mutex mutex;
    on_ranks(round, ranks, [&](aggregator::FusionState& state, const aggregator::FusionContext& context) {
        const auto merged =
            aggregator::mean(state.updates, context, aggregator::weights(context.members, weighting));
        const std::lock_guard lock(mutex);
        if (!result.defined()) result = merged;
        EXPECT_TRUE(same_bits(result, merged));
    });
    return result;
}

TEST(Mean, IsTheDefinitionOnAnyNumberOfRanks) {
    for (const std::string architecture : {"mlp", "cnn_batch_norm"}) {
        for (const bool masked : {false, true}) {
            Round round = make_round(architecture, 5);
            for (std::size_t k = 0; masked && k < 4; ++k) {  // the last one has none
                round.updates[k].mask = random_mask(round.graph.layout->trainable_size(), k);
            }
            for (const auto weighting : {aggregator::Weighting::samples, aggregator::Weighting::uniform}) {
                const auto expected = slow_mean(round, aggregator::weights(members_of(round, 1), weighting));
                const auto one = mean_on(round, 1, weighting);
                EXPECT_TRUE(at::equal(one.values, expected.to(at::kFloat))) << architecture << masked;
                for (const int ranks : {2, 3, 5, 7}) {
                    EXPECT_TRUE(same_bits(one, mean_on(round, ranks, weighting))) << architecture << ranks;
                }
            }
        }
    }
}

TEST(Mean, CrossesManyBlocks) {
    Round round;
    model::GraphBuilder builder({100});
    builder.linear("layers.0", 0, 97);
    round.graph = std::move(builder).build(core::Value::map());
    round.symmetries = symmetry::derive(round.graph);
    for (int k = 0; k < 3; ++k) {
        round.updates.push_back(
            {3 * k, 10 + k, random_model(round.graph, static_cast<std::uint64_t>(k)), at::Tensor()});
        round.updates.back().mask =
            random_mask(round.graph.layout->trainable_size(), static_cast<std::uint64_t>(k));
        round.client_samples.push_back(random_samples(3, 100, 4));
    }
    round.holdout = random_samples(3, 100, 4);
    const auto expected =
        slow_mean(round, aggregator::weights(members_of(round, 1), aggregator::Weighting::samples));
    for (const int ranks : {1, 3}) {
        const auto merged = mean_on(round, ranks, aggregator::Weighting::samples);
        EXPECT_TRUE(at::equal(merged.values, expected.to(at::kFloat)));
    }
}

TEST(Mean, AnEntryMaskedEverywhereTakesThePlainMean) {
    Round round = make_round("mlp", 3);
    const auto size = round.graph.layout->trainable_size();
    for (auto& update : round.updates) update.mask = at::ones({size}, at::kBool);
    for (auto& update : round.updates) update.mask[4] = false;
    round.updates[1].mask[7] = false;
    const auto merged = mean_on(round, 2, aggregator::Weighting::uniform);
    const auto value = [&](std::size_t k, std::int64_t i) {
        return round.updates[k].parameters.values[i].item<double>();
    };
    EXPECT_NEAR(merged.values[4].item<double>(), (value(0, 4) + value(1, 4) + value(2, 4)) / 3, 1e-7);
    EXPECT_NEAR(merged.values[7].item<double>(), (value(0, 7) + value(2, 7)) / 2, 1e-7);
}

TEST(Mean, CountersTakeTheMaximumAndDoubleStaysDouble) {
    Round round = make_round("mlp_batch_norm", 4);
    at::Tensor largest = round.updates[0].parameters.counters;
    for (const auto& update : round.updates) largest = at::maximum(largest, update.parameters.counters);
    const auto expected =
        slow_mean(round, aggregator::weights(members_of(round, 1), aggregator::Weighting::samples));
    for (auto& update : round.updates) update.parameters = update.parameters.to_double();
    for (const int ranks : {1, 3, 5}) {
        const auto merged = mean_on(round, ranks, aggregator::Weighting::samples);
        EXPECT_TRUE(merged.is_double());
        EXPECT_TRUE(at::equal(merged.values, expected));
        EXPECT_TRUE(at::equal(merged.counters, largest));
    }
}

TEST(Mean, OneModelStaysAsItIs) {
    Round round = make_round("cnn_batch_norm", 1);
    EXPECT_TRUE(same_bits(mean_on(round, 3, aggregator::Weighting::samples), round.updates[0].parameters));
}

TEST(Mean, RefusesNaNWithClientAndTensor) {
    for (const int ranks : {1, 3}) {
        Round round = make_round("mlp", 4);
        const auto fault =
            round.graph.layout->entries()[*round.graph.layout->find("layers.1.weight")].offset + 5;
        round.updates[2].parameters.values[fault] = std::numeric_limits<float>::quiet_NaN();
        // Even where a mask would leave it out.
        round.updates[2].mask = at::zeros({round.graph.layout->trainable_size()}, at::kBool);
        try {
            mean_on(round, ranks, aggregator::Weighting::samples);
            FAIL() << "averaged a NaN";
        } catch (const core::RunError& error) {
            EXPECT_THAT(error.what(), HasSubstr("client 6"));
            EXPECT_THAT(error.what(), HasSubstr("layers.1.weight"));
        }
    }
}

TEST(Mean, CanKeepTheGlobalModelsRunningStatistics) {
    Round round = make_round("mlp_batch_norm", 3);
    const auto from = round.graph.layout->trainable_size();
    const auto plain = fuse(round, "mean", 2).merged;
    const auto kept = fuse(round, "mean(batch_norm=keep)", 2).merged;
    EXPECT_TRUE(at::equal(kept.values.slice(0, from), round.global.values.slice(0, from)));
    EXPECT_TRUE(at::equal(kept.counters, round.global.counters));
    EXPECT_TRUE(at::equal(kept.trainable(), plain.trainable()));
    round.global = {};
    EXPECT_TRUE(same_bits(fuse(round, "mean(batch_norm=keep)", 2).merged, plain));
}

TEST(Weights, GoBySamplesOrAreAllAlike) {
    const std::vector<aggregator::Member> members{{0, 10, 0}, {4, 30, 1}, {5, 60, 0}};
    EXPECT_EQ(aggregator::weights(members, aggregator::Weighting::samples),
              (std::vector<double>{0.1, 0.3, 0.6}));
    EXPECT_EQ(aggregator::weights(members, aggregator::Weighting::uniform), std::vector<double>(3, 1.0 / 3));
    EXPECT_THROW(aggregator::weights({{0, 0, 0}}, aggregator::Weighting::samples), core::UsageError);
}

}  // namespace
}  // namespace thalweg::testing::mean_test
