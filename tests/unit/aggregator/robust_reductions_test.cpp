#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "thalweg/core/error.hpp"
#include "unit/aggregator/fusion_fixture.hpp"

namespace thalweg::testing::robust_reductions_test {
namespace {

/// All models as rows, in double: [clients, layout.size()].
at::Tensor stacked(const Round& round) {
    std::vector<at::Tensor> rows;
    for (const auto& update : round.updates) rows.push_back(update.parameters.values.to(at::kDouble));
    return at::stack(rows);
}

/// Clients that agree up to noise of deviation 0.02; the last `corrupted` of them send something else.
Round honest_round(int clients, int corrupted, const std::string& how) {
    Round round = make_round("mlp", clients);
    const at::Tensor truth = round.updates[0].parameters.values.clone();
    core::Random random(3, "clients");
    for (int k = 0; k < clients; ++k) {
        auto& update = round.updates[static_cast<std::size_t>(k)];
        update.parameters = update.parameters.clone();
        for (std::int64_t i = 0; i < truth.numel(); ++i)
            update.parameters.values[i] = truth[i].item<double>() + random.normal(0, 0.02);
        if (k < clients - corrupted) continue;
        if (how == "sign_flip") update.parameters.values.neg_();
        if (how == "noise") {
            for (std::int64_t i = 0; i < truth.numel(); ++i)
                update.parameters.values[i] = random.normal(0, 5);
        }
        if (how == "huge") update.parameters.values.fill_(1e6);
    }
    return round;
}

double distance_to_honest_mean(const Round& round, int corrupted, const model::Parameters& merged) {
    const auto honest = static_cast<std::int64_t>(round.updates.size()) - corrupted;
    const at::Tensor mean = stacked(round).narrow(0, 0, honest).mean(0);
    return (merged.values.to(at::kDouble) - mean).abs().max().item<double>();
}

TEST(Median, IsTheMiddleOfEveryCoordinate) {
    for (const int clients : {1, 2, 5, 6}) {
        const Round round = make_round("cnn_batch_norm", clients);
        const at::Tensor sorted = std::get<0>(stacked(round).sort(0));
        const at::Tensor expected = (sorted[(clients - 1) / 2] + sorted[clients / 2]) / 2;
        for (const int ranks : {1, 3}) {
            const auto merged = fuse(round, "median", ranks).merged;
            EXPECT_TRUE(at::equal(merged.values, expected.to(at::kFloat))) << clients << " clients";
        }
    }
}

TEST(Median, WeighsBySamplesWhenAsked) {
    Round round = make_round("mlp", 3);
    round.updates[0].samples = 10;
    round.updates[1].samples = 10;
    round.updates[2].samples = 25;  // more than half
    EXPECT_TRUE(
        at::equal(fuse(round, "median(weights=samples)").merged.values, round.updates[2].parameters.values));
    round.updates[2].samples = 20;  // exactly half: between it and its neighbour
    const at::Tensor rows = stacked(round);
    const auto merged = fuse(round, "median(weights=samples)").merged;
    for (std::int64_t i = 0; i < 20; ++i) {
        const double own = rows[2][i].item<double>();
        const double a = rows[0][i].item<double>(), b = rows[1][i].item<double>();
        const double expected = own < std::min(a, b)   ? (own + std::min(a, b)) / 2
                                : own > std::max(a, b) ? (own + std::max(a, b)) / 2
                                                       : own;
        EXPECT_FLOAT_EQ(merged.values[i].item<float>(), static_cast<float>(expected)) << i;
    }
}

TEST(TrimmedMean, LeavesTheExtremesOut) {
    const Round round = make_round("cnn_batch_norm", 10);
    const at::Tensor sorted = std::get<0>(stacked(round).sort(0));
    for (const auto& [trim, cut] :
         std::vector<std::pair<std::string, int>>{{"0", 0}, {"0.1", 1}, {"0.3", 3}, {"0.49", 4}}) {
        const auto fused = fuse(round, "trimmed_mean(trim=" + trim + ")", 2);
        EXPECT_EQ(note(fused, "trimmed"), cut);
        const at::Tensor expected = sorted.narrow(0, cut, 10 - 2 * cut).mean(0);
        EXPECT_LT(largest_difference(fused.merged.values, expected), 1e-6) << trim;
    }
}

TEST(Krum, AveragesTheClientsWhoseNeighboursAreNearest) {
    const Round round = make_round("mlp", 7);
    const at::Tensor rows = stacked(round).narrow(1, 0, round.graph.layout->trainable_size());
    const std::size_t corrupted = 2, near = 7 - corrupted - 2;
    std::vector<std::pair<double, std::size_t>> scores;
    for (std::int64_t k = 0; k < 7; ++k) {
        std::vector<double> distances;
        for (std::int64_t j = 0; j < 7; ++j) {
            if (j != k) distances.push_back((rows[k] - rows[j]).square().sum().item<double>());
        }
        std::sort(distances.begin(), distances.end());
        scores.emplace_back(std::accumulate(distances.begin(), distances.begin() + near, 0.0), k);
    }
    std::sort(scores.begin(), scores.end());
    for (const int select : {1, 3}) {
        at::Tensor expected = at::zeros({round.graph.layout->size()}, at::kDouble);
        for (int i = 0; i < select; ++i)
            expected +=
                stacked(round)[static_cast<std::int64_t>(scores[static_cast<std::size_t>(i)].second)] /
                select;
        const auto fused = fuse(round, "krum(corrupted=2, select=" + std::to_string(select) + ")", 3);
        EXPECT_LT(largest_difference(fused.merged.values, expected), 1e-6) << select;
    }
}

TEST(Krum, SaysHowManyItBearsAndRefusesMore) {
    EXPECT_EQ(note(fuse(make_round("mlp", 10), "krum"), "corrupted_borne"), 3);
    EXPECT_EQ(note(fuse(make_round("mlp", 10), "krum"), "selected"), 7);
    EXPECT_EQ(note(fuse(make_round("mlp", 4), "krum"), "corrupted_borne"), 0);
    EXPECT_THROW(fuse(make_round("mlp", 10), "krum(corrupted=4)"), core::UsageError);
    EXPECT_THROW(fuse(make_round("mlp", 3), "krum(select=4)"), core::UsageError);
}

TEST(GeometricMedian, MinimisesTheSumOfDistances) {
    const Round round = make_round("mlp", 6);
    const std::int64_t trainable = round.graph.layout->trainable_size();
    const at::Tensor rows = stacked(round).narrow(1, 0, trainable);
    at::Tensor z = rows.mean(0);  // Weiszfeld on the vectors themselves
    for (int i = 0; i < 3000; ++i) {
        const at::Tensor weight = (rows - z).square().sum(1).sqrt().reciprocal();
        z = (rows * weight.unsqueeze(1)).sum(0) / weight.sum();
    }
    const auto merged = fuse(round, "geometric_median", 2).merged;
    EXPECT_LT(largest_difference(merged.trainable(), z), 1e-5);
}

TEST(RobustReductions, BearTheCorruptedClientsThatTheirDocsSay) {
    // Of 10 clients 3 corrupted: within what the trimmed mean (3 cut at each end) and krum (2f + 2 < K) bear; 4: within
    // what the median and the geometric median do (fewer than half). The mean does not bear one.
    const std::vector<std::string> half{"median", "geometric_median"};
    const std::vector<std::string> third{"median", "trimmed_mean(trim=0.3)", "krum", "krum(select=1)",
                                         "geometric_median"};
    for (const int corrupted : {3, 4}) {
        for (const std::string how : {"sign_flip", "noise", "huge"}) {
            const Round round = honest_round(10, corrupted, how);
            for (const std::string& reduction : corrupted == 3 ? third : half) {
                // The geometric median is pulled towards the corrupted ones, by no more than the honest ones' spread.
                const double borne = reduction == "geometric_median" ? 0.3 : 0.1;
                EXPECT_LT(distance_to_honest_mean(round, corrupted, fuse(round, reduction, 2).merged), borne)
                    << reduction << " under " << how << " by " << corrupted;
            }
            for (const std::string reduction : {"mean(weights=uniform)", "trimmed_mean(trim=0.1)"}) {
                EXPECT_GT(distance_to_honest_mean(round, corrupted, fuse(round, reduction, 2).merged),
                          reduction.starts_with("mean") ? 0.15 : 0.1)
                    << reduction << " under " << how << " by " << corrupted;
            }
        }
    }
}

TEST(Attack, CorruptsWhomItNamesAndNobodyElse) {
    const Round round = make_round("mlp", 4);
    const std::int64_t trainable = round.graph.layout->trainable_size();
    const auto attacked = [&](const std::string& how) {
        return fuse(round, "attack(clients=[3, 9], how=" + how + ", scale=2)+mean", 2).updates;
    };
    for (const std::string how : {"sign_flip", "update_flip", "noise"}) {
        const auto updates = attacked(how);
        for (const std::size_t k : {0U, 2U})
            EXPECT_TRUE(same_bits(updates[k].parameters, round.updates[k].parameters)) << how;
    }
    const at::Tensor before = round.updates[1].parameters.trainable(), base = round.global.trainable();
    EXPECT_TRUE(at::equal(attacked("sign_flip")[1].parameters.trainable(), before * -2));
    EXPECT_LT(
        largest_difference(attacked("update_flip")[1].parameters.trainable(), base - (before - base) * 2),
        1e-5);
    const at::Tensor noise = attacked("noise")[1].parameters.trainable() - before;
    const double ratio = (noise.square().mean().sqrt() / before.square().mean().sqrt()).item<double>();
    EXPECT_NEAR(ratio, 2, 0.3) << trainable;
}

}  // namespace
}  // namespace thalweg::testing::robust_reductions_test
