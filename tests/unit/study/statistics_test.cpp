#include "thalweg/study/statistics.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace thalweg::study::statistics_test {
namespace {

TEST(Statistics, MeansHaveStudentsInterval) {
    const auto estimate = mean_of({1, 2, 3, 4, 5});
    EXPECT_DOUBLE_EQ(estimate.value, 3);
    // t(0.975, 4) = 2.7764451; s = √2.5
    EXPECT_NEAR(estimate.high - 3, 2.7764451 * std::sqrt(2.5 / 5), 1e-6);
    EXPECT_NEAR(3 - estimate.low, estimate.high - 3, 1e-12);
    EXPECT_TRUE(std::isnan(mean_of({1}).low));
    EXPECT_TRUE(std::isnan(mean_of({}).value));
}

TEST(Statistics, CorrelationsOfKnownCases) {
    EXPECT_NEAR(correlation({1, 2, 3}, {2, 4, 6}), 1, 1e-12);
    EXPECT_NEAR(correlation({1, 2, 3}, {3, 2, 1}), -1, 1e-12);
    EXPECT_NEAR(correlation({1, 2, 3, 4}, {1, 3, 2, 4}), 0.8, 1e-12);
    EXPECT_TRUE(std::isnan(correlation({1, 2, 3}, {0.1, 0.1, 0.1})));
    EXPECT_NEAR(rank_correlation({1, 2, 3, 4}, {1, 10, 100, 1000}), 1, 1e-12);
    EXPECT_NEAR(rank_correlation({1, 1, 2}, {1, 1, 5}), 1, 1e-12);
    EXPECT_TRUE(std::isnan(rank_correlation({1, 2, NAN}, {1, 2, 3})));
    EXPECT_TRUE(std::isnan(correlation({1, 2, NAN}, {1, 2, 3})));
    EXPECT_NEAR(slope({0, 1, 2}, {1, 3, 5}), 2, 1e-12);
    EXPECT_TRUE(std::isnan(slope({1, 1}, {1, 2})));
}

TEST(Statistics, PairsAreNumberedRowByRow) {
    std::size_t next = 0;
    for (std::int64_t i = 0; i < 6; ++i) {
        for (std::int64_t j = i + 1; j < 6; ++j) {
            EXPECT_EQ(pair_index(i, j, 6), next);
            EXPECT_EQ(pair_index(j, i, 6), next++);
        }
    }
    EXPECT_THROW(pair_index(2, 2, 6), std::logic_error);
}

TEST(Statistics, SignFlipsAreExact) {
    EXPECT_DOUBLE_EQ(sign_flip_p(std::vector<double>(8, 1.0)), 2.0 / 256);
    EXPECT_DOUBLE_EQ(sign_flip_p({1, -1}), 1);
    EXPECT_DOUBLE_EQ(sign_flip_p({1, 2, 3}), 2.0 / 8);
    EXPECT_DOUBLE_EQ(sign_flip_p({1, 2, -3}), 1);
    EXPECT_LT(sign_flip_p(std::vector<double>(24, 1.0)), 1e-4);  // by drawing
    EXPECT_TRUE(std::isnan(sign_flip_p({})));
    EXPECT_TRUE(std::isnan(sign_flip_p({1, NAN, 1})));  // not p = 0
}

/// x and y are distances of points on a line, with noise in y.
PairTable distances(std::int64_t models, double noise, std::uint64_t seed) {
    core::Random random(seed, "test");
    std::vector<double> place(static_cast<std::size_t>(models));
    for (double& p : place) p = random.normal();
    PairTable table{models, {}, {}};
    for (std::size_t i = 0; i < place.size(); ++i) {
        for (std::size_t j = i + 1; j < place.size(); ++j) {
            table.x.push_back(std::abs(place[i] - place[j]));
            table.y.push_back(std::abs(place[i] - place[j]) + noise * random.normal());
        }
    }
    return table;
}

TEST(PairCorrelation, MatchesAllPermutationsOfASmallCase) {
    const auto table = distances(5, 0.5, 3);
    std::vector<std::int64_t> order(5);
    std::iota(order.begin(), order.end(), 0);
    const double seen = correlation(table.x, table.y);
    double as_large = 0, all = 0;
    do {
        std::vector<double> y;
        for (std::size_t i = 0; i < 5; ++i) {
            for (std::size_t j = i + 1; j < 5; ++j) y.push_back(table.y[pair_index(order[i], order[j], 5)]);
        }
        as_large += std::abs(correlation(table.x, y)) >= std::abs(seen) - 1e-12;
        all += 1;
    } while (std::next_permutation(order.begin(), order.end()));
    core::Random random(1, "test");
    const auto result = pair_correlation({table}, random, 19999);
    EXPECT_NEAR(result.value, seen, 1e-12);
    EXPECT_NEAR(result.p, as_large / all, 0.012);
}

TEST(PairCorrelation, FindsWhatIsThere) {
    core::Random random(1, "test");
    const auto result = pair_correlation({distances(12, 0.3, 1), distances(12, 0.3, 2)}, random, 999);
    EXPECT_GT(result.value, 0.8);
    EXPECT_LE(result.p, 0.001);
    EXPECT_LT(result.low, result.value);
    EXPECT_GT(result.high, result.value);
    EXPECT_GT(result.low, 0.5);
}

/// Settings whose levels differ in both, with nothing inside them: pooling would see a correlation.
TEST(PairCorrelation, DifferencesBetweenSettingsCountNothing) {
    core::Random draws(5, "test");
    std::vector<PairTable> settings;
    std::vector<double> x, y;
    for (int s = 0; s < 4; ++s) {
        PairTable table{8, {}, {}};
        for (int pair = 0; pair < 28; ++pair) {
            table.x.push_back(10 * s + draws.normal());
            table.y.push_back(10 * s + draws.normal());
        }
        x.insert(x.end(), table.x.begin(), table.x.end());
        y.insert(y.end(), table.y.begin(), table.y.end());
        settings.push_back(std::move(table));
    }
    EXPECT_GT(correlation(x, y), 0.9);
    core::Random random(1, "test");
    EXPECT_LT(std::abs(pair_correlation(settings, random, 99).value), 0.25);
}

/// One odd model makes all of its pairs odd: with pairs as units that looks certain, with models it does not.
TEST(PairCorrelation, OneOddModelIsNoEvidence) {
    core::Random draws(7, "test");
    PairTable table{5, {}, {}};
    for (std::int64_t i = 0; i < 5; ++i) {
        for (std::int64_t j = i + 1; j < 5; ++j) {
            const double odd = i == 0 ? 10 : 0;
            table.x.push_back(odd);
            table.y.push_back(odd + 0.1 * draws.normal());
        }
    }
    core::Random random(1, "test");
    const auto result = pair_correlation({table}, random, 4999);
    EXPECT_GT(result.value, 0.99);
    EXPECT_NEAR(result.p, 0.2, 0.03);  // one of five names
}

TEST(PairCorrelation, HoldsItsLevel) {
    // Under the null hypothesis p is below 0.1 about one time in ten.
    int below = 0;
    for (std::uint64_t seed = 0; seed < 200; ++seed) {
        auto table = distances(7, 0, seed);
        table.y = distances(7, 0, seed + 1000).y;
        core::Random random(seed, "test");
        below += pair_correlation({table}, random, 199, 0).p <= 0.1;
    }
    EXPECT_GT(below, 6);
    EXPECT_LT(below, 36);
}

TEST(PairCorrelation, WithoutSpreadThereIsNoAnswer) {
    core::Random random(1, "test");
    EXPECT_TRUE(std::isnan(pair_correlation({{3, {1, 1, 1}, {1, 2, 3}}}, random, 9).value));
    EXPECT_TRUE(std::isnan(pair_correlation({{3, {1, 2, NAN}, {1, 2, 3}}}, random, 9).p));
    EXPECT_THROW(pair_correlation({{3, {1, 1}, {1, 2, 3}}}, random, 9), std::logic_error);
}

/// Ways of training that models follow in x and in y: both quantities of a pair come from its two ways, from how far they
/// are apart and from what models trained alike have in common, and a little from the models themselves.
struct Planted {
    PairTable table;
    std::vector<std::vector<std::int64_t>> blocks;
    std::vector<PairTable> cells;
};
/// `across`: of y's way effects that are x's; `inside`: of y's effects of models that are x's.
Planted planted(std::int64_t ways, std::int64_t each, double across, double inside, std::uint64_t seed) {
    core::Random random(seed, "planted");
    const auto effects = [&](std::int64_t count, double share) {
        std::pair<std::vector<double>, std::vector<double>> both;
        for (std::int64_t i = 0; i < count; ++i) {
            both.first.push_back(random.normal());
            both.second.push_back(share * both.first.back() + std::sqrt(1 - share * share) * random.normal());
        }
        return both;
    };
    const auto way = effects(ways, across);
    const auto model = effects(ways * each, inside);
    Planted all{{ways * each, {}, {}}, {}, {}};
    for (std::int64_t w = 0; w < ways; ++w) {
        all.blocks.emplace_back();
        for (std::int64_t i = 0; i < each; ++i) all.blocks.back().push_back(w * each + i);
        all.cells.push_back({each, {}, {}});
    }
    const auto value = [&](const auto& of_way, const auto& of_model, std::int64_t i, std::int64_t j) {
        const auto at = [](const auto& list, std::int64_t index) {
            return list[static_cast<std::size_t>(index)];
        };
        return at(of_way, i / each) + at(of_way, j / each) + 0.5 * (i / each == j / each) +
               0.4 * (at(of_model, i) + at(of_model, j)) + 0.1 * random.normal();
    };
    for (std::int64_t i = 0; i < all.table.models; ++i) {
        for (std::int64_t j = i + 1; j < all.table.models; ++j) {
            const double x = value(way.first, model.first, i, j), y = value(way.second, model.second, i, j);
            all.table.x.push_back(x);
            all.table.y.push_back(y);
            if (i / each != j / each) continue;
            auto& cell = all.cells[static_cast<std::size_t>(i / each)];
            cell.x.push_back(x);
            cell.y.push_back(y);
        }
    }
    return all;
}

/// Under no relation of the ways, models as units are taken in by them; blocks are not, and settle as often as p says.
TEST(BlockCorrelation, HoldsItsLevelWhereWaysAreAllThereIs) {
    int blocks = 0, settled = 0, models = 0;
    for (std::uint64_t seed = 0; seed < 200; ++seed) {
        const auto draw = planted(7, 3, 0, 0, seed);
        core::Random random(seed, "test");
        const auto result = block_correlation(draw.table, draw.blocks, random, 199, 200);
        blocks += result.p <= 0.1;
        settled += result.p <= 0.01 && (result.low > 0 || result.high < 0);
        models += pair_correlation({draw.table}, random, 99, 0).p <= 0.1;
    }
    EXPECT_GT(blocks, 6);
    EXPECT_LT(blocks, 36);
    EXPECT_LT(settled, 8);
    EXPECT_GT(models, 60);
}

TEST(BlockCorrelation, FindsARelationOfTheWays) {
    int found = 0;
    for (std::uint64_t seed = 0; seed < 20; ++seed) {
        const auto draw = planted(9, 3, 0.97, 0, seed);
        core::Random random(seed, "test");
        const auto result = block_correlation(draw.table, draw.blocks, random, 499, 200);
        EXPECT_NEAR(result.value, correlation(draw.table.x, draw.table.y), 1e-12);
        found += result.p < 0.01 && result.low > 0;
    }
    EXPECT_GE(found, 18);
}

TEST(BlockCorrelation, TakesAllOrdersWhereTheyAreFew) {
    const auto draw = planted(4, 2, 0.9, 0, 3);
    core::Random random(1, "test");
    const auto result = block_correlation(draw.table, draw.blocks, random, 999);
    EXPECT_EQ(result.permutations, 24);
    EXPECT_GE(result.p, 1.0 / 24);
    EXPECT_DOUBLE_EQ(result.p * 24, std::round(result.p * 24));
    // blocks of one model are models
    const auto table = distances(5, 0.5, 3);
    const auto alone = block_correlation(table, {{0}, {1}, {2}, {3}, {4}}, random, 999);
    EXPECT_NEAR(alone.p, pair_correlation({table}, random, 19999).p, 0.012);
}

TEST(BlockCorrelation, BlocksAreOfOneSizeAndHoldEveryModel) {
    core::Random random(1, "test");
    const auto table = distances(5, 0.5, 3);
    EXPECT_THROW(block_correlation(table, {{0, 1}, {2}}, random, 9), std::logic_error);
    EXPECT_THROW(block_correlation(table, {{0, 1}, {2, 3}}, random, 9), std::logic_error);
    EXPECT_TRUE(std::isnan(block_correlation({0, {}, {}}, {}, random, 9).value));
}

/// Cells of one way each: models are permuted and drawn inside their way, and what ways do to both counts nothing.
TEST(PairCorrelation, InsideWaysHoldsItsLevelAndFindsWhatModelsDo) {
    int below = 0, found = 0;
    for (std::uint64_t seed = 0; seed < 200; ++seed) {
        core::Random random(seed, "test");
        below += pair_correlation(planted(4, 5, 0.97, 0, seed).cells, random, 199, 0).p <= 0.1;
        if (seed >= 20) continue;
        const auto result = pair_correlation(planted(4, 5, 0, 0.99, seed).cells, random, 499, 200);
        found += result.p < 0.01 && result.low > 0;
    }
    EXPECT_GT(below, 6);
    EXPECT_LT(below, 36);
    EXPECT_GE(found, 18);
}

TEST(UnitCorrelation, FindsARisingOrderAndItsLeastP) {
    core::Random random(1, "test");
    const auto result = unit_correlation({1, 2, 3, 4, 5, 6}, {2, 3, 5, 7, 11, 13}, random, 19999);
    EXPECT_DOUBLE_EQ(result.value, 1);
    EXPECT_NEAR(result.p, 2.0 / 720, 0.0015);  // up and down, of 6! orders
    EXPECT_DOUBLE_EQ(result.high, 1);
    EXPECT_EQ(result.units, 6);
}

TEST(UnitCorrelation, HoldsItsLevelAndCoversNothing) {
    int below = 0, covered = 0;
    for (std::uint64_t seed = 0; seed < 200; ++seed) {
        core::Random draws(seed, "units");
        std::vector<double> x, y;
        for (int i = 0; i < 12; ++i) {
            x.push_back(draws.normal());
            y.push_back(draws.normal());
        }
        const auto result = unit_correlation(x, y, draws, 199, 200);
        below += result.p <= 0.1;
        covered += result.low <= 0 && result.high >= 0;
    }
    EXPECT_GT(below, 6);
    EXPECT_LT(below, 36);
    EXPECT_GT(covered, 170);
}

/// Groups whose levels differ in both: all units together look correlated, inside groups nothing is.
TEST(UnitCorrelation, InsideGroupsTheirLevelsCountNothing) {
    int below = 0, pooled = 0, found = 0;
    for (std::uint64_t seed = 0; seed < 200; ++seed) {
        core::Random draws(seed, "groups");
        std::vector<UnitTable> groups(3), related(3);
        UnitTable all;
        for (std::size_t g = 0; g < groups.size(); ++g) {
            const auto level = static_cast<double>(g);
            for (int i = 0; i < 8; ++i) {
                groups[g].x.push_back(level + draws.normal());
                groups[g].y.push_back(level + draws.normal());
                all.x.push_back(groups[g].x.back());
                all.y.push_back(groups[g].y.back());
                related[g].x.push_back(draws.normal());
                related[g].y.push_back(related[g].x.back() + 0.3 * draws.normal() - 5 * level);
            }
        }
        below += unit_correlation(groups, draws, 199, 0).p <= 0.1;
        pooled += unit_correlation(all.x, all.y, draws, 199, 0).p <= 0.1;
        if (seed >= 20) continue;
        const auto result = unit_correlation(related, draws, 499, 200);
        EXPECT_EQ(result.units, 24);
        found += result.p < 0.01 && result.low > 0;
    }
    EXPECT_GT(below, 6);
    EXPECT_LT(below, 36);
    EXPECT_GT(pooled, 60);
    EXPECT_EQ(found, 20);
}

TEST(UnitCorrelation, WithoutSpreadThereIsNoAnswer) {
    core::Random random(1, "test");
    EXPECT_TRUE(std::isnan(unit_correlation({1, 1, 1}, {1, 2, 3}, random, 9).value));
    EXPECT_TRUE(std::isnan(unit_correlation({1, 2}, {1, 2}, random, 9).value));
    const UnitTable flat{{1, 1, 1}, {1, 2, 3}}, rising{{1, 2, 3}, {1, 2, 3}};
    EXPECT_DOUBLE_EQ(unit_correlation({flat, rising}, random, 9).value, 1);
    EXPECT_TRUE(std::isnan(unit_correlation(std::vector<UnitTable>{flat}, random, 9).value));
}

}  // namespace
}  // namespace thalweg::study::statistics_test
