#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "thalweg/core/registry.hpp"
#include "unit/data/support.hpp"

namespace thalweg::data::testing::partition_test {
namespace {

using Labels = std::vector<std::uint8_t>;
using Lists = std::vector<std::vector<std::uint32_t>>;

/// 0 1 … classes-1 0 1 …
Labels in_turn(std::size_t count, std::size_t classes) {
    Labels labels(count);
    for (std::size_t i = 0; i < count; ++i) labels[i] = static_cast<std::uint8_t>(i % classes);
    return labels;
}

/// Splits the pool 5, 8, 11, … so that positions and indices cannot be taken for one another.
std::uint32_t index_at(std::size_t position) {
    return static_cast<std::uint32_t>(5 + 3 * position);
}
std::size_t position_of(std::uint32_t index) {
    return (index - 5) / 3;
}

Assignment split(const std::string& yaml, const Labels& labels, std::int64_t classes,
                 std::uint64_t seed = 1) {
    const auto options = partition_options(yaml);
    const auto partitioner = core::Registry<std::unique_ptr<Partitioner>>::make(options, "scheme");
    EXPECT_EQ(partitioner->clients(), options["clients"].as_int());
    std::vector<std::uint32_t> pool(labels.size());
    for (std::size_t i = 0; i < pool.size(); ++i) pool[i] = index_at(i);
    core::Random random(seed, "partition");
    return partitioner->split(pool, labels, classes, random);
}

Lists lists_of(const Assignment& assignment) {
    Lists lists;
    for (std::size_t c = 0; c + 1 < assignment.offsets.size(); ++c) {
        lists.emplace_back(
            assignment.indices.begin() + static_cast<std::ptrdiff_t>(assignment.offsets[c]),
            assignment.indices.begin() + static_cast<std::ptrdiff_t>(assignment.offsets[c + 1]));
    }
    return lists;
}

std::vector<std::size_t> sizes_of(const Assignment& assignment) {
    std::vector<std::size_t> sizes;
    for (const auto& list : lists_of(assignment)) sizes.push_back(list.size());
    return sizes;
}

std::vector<std::vector<std::size_t>> histograms_of(const Assignment& assignment, const Labels& labels,
                                                    std::size_t classes) {
    std::vector<std::vector<std::size_t>> histograms;
    for (const auto& list : lists_of(assignment)) {
        auto& histogram = histograms.emplace_back(classes);
        for (const auto index : list) ++histogram[labels[position_of(index)]];
    }
    return histograms;
}

/// What holds for every scheme: all samples at most once (exactly once when `all`), nobody empty-handed,
/// ascending.
void check(const Assignment& assignment, std::size_t clients, std::size_t samples, bool all = true) {
    ASSERT_EQ(assignment.offsets.size(), clients + 1);
    ASSERT_EQ(assignment.offsets.front(), 0U);
    ASSERT_EQ(assignment.offsets.back(), assignment.indices.size());
    std::set<std::uint32_t> seen;
    for (const auto& list : lists_of(assignment)) {
        ASSERT_FALSE(list.empty());
        ASSERT_TRUE(std::is_sorted(list.begin(), list.end()));
        for (const auto index : list) {
            ASSERT_EQ(index_at(position_of(index)), index);
            ASSERT_LT(position_of(index), samples);
            ASSERT_TRUE(seen.insert(index).second) << index << " twice";
        }
    }
    ASSERT_TRUE(!all || seen.size() == samples) << seen.size();
}

bool same(const Assignment& a, const Assignment& b) {
    return a.indices == b.indices && a.offsets == b.offsets;
}

struct Case {
    const char* yaml;
    std::size_t clients;
    bool all;
};

class Schemes : public ::testing::TestWithParam<Case> {};

TEST_P(Schemes, SplitWithoutOverlapAndDependOnTheSeedOnly) {
    const Labels labels = in_turn(1003, 10);
    const Case& c = GetParam();
    const Assignment assignment = split(c.yaml, labels, 10);
    check(assignment, c.clients, labels.size(), c.all);
    EXPECT_TRUE(same(split(c.yaml, labels, 10), assignment));
    EXPECT_FALSE(same(split(c.yaml, labels, 10, 2), assignment));
}

TEST_P(Schemes, GiveOneClientEverythingItCanHold) {
    const Labels labels = in_turn(40, 2);
    std::string yaml = GetParam().yaml;
    const auto at = yaml.find("clients: ");
    yaml.replace(at, yaml.find_first_of(",}", at) - at, "clients: 1");
    const auto more = yaml.find("labels: 3");
    if (more != std::string::npos) yaml.replace(more, 9, "labels: 2");
    EXPECT_EQ(split(yaml, labels, 2).indices.size(), 40U);
}

INSTANTIATE_TEST_SUITE_P(
    All, Schemes,
    ::testing::Values(Case{"{scheme: iid, clients: 13}", 13, true},
                      Case{"{scheme: dirichlet, clients: 9, alpha: 0.5, min_size: 5}", 9, true},
                      Case{"{scheme: dirichlet, clients: 9, alpha: 0.05, min_size: 1, balanced: false}", 9,
                           true},
                      Case{"{scheme: shards, clients: 10, shards_per_client: 3}", 10, true},
                      Case{"{scheme: labels_per_client, clients: 12, labels: 3}", 12, true},
                      Case{"{scheme: quantity, clients: 20, sigma: 1.5, min_size: 4}", 20, true}));

TEST(Iid, SharesDifferByOneSampleAtMost) {
    const auto sizes = sizes_of(split("{scheme: iid, clients: 13}", in_turn(1003, 10), 10));
    EXPECT_EQ(std::count(sizes.begin(), sizes.end(), 77U), 11);
    EXPECT_EQ(std::count(sizes.begin(), sizes.end(), 78U), 2);
}

TEST(Iid, EveryClientMeetsEveryLabelAboutEquallyOften) {
    const Labels labels = in_turn(20000, 10);
    for (const auto& histogram : histograms_of(split("{scheme: iid, clients: 10}", labels, 10), labels, 10)) {
        for (const auto count : histogram)
            EXPECT_NEAR(static_cast<double>(count), 200.0, 65.0);  // 5 deviations
    }
}

TEST(Iid, AsManyClientsAsSamplesGetOneEach) {
    check(split("{scheme: iid, clients: 50}", in_turn(50, 10), 10), 50, 50);
}

TEST(Iid, MoreClientsThanSamplesAreRefused) {
    for (const char* yaml :
         {"{scheme: iid, clients: 51}", "{scheme: shards, clients: 51}", "{scheme: quantity, clients: 51}",
          "{scheme: labels_per_client, clients: 51, labels: 1}", "{scheme: dirichlet, clients: 51}"}) {
        const std::string text = error_of<core::UsageError>([&] { split(yaml, in_turn(50, 10), 10); });
        EXPECT_CONTAINS(text, "data.partition.clients");
        EXPECT_CONTAINS(text, "51 clients are more than the 50 samples");
    }
}

/// Mean over clients of the total variation between a client's label distribution and the whole set's.
double skew(const Assignment& assignment, const Labels& labels, std::size_t classes) {
    double sum = 0.0;
    const auto histograms = histograms_of(assignment, labels, classes);
    for (const auto& histogram : histograms) {
        const double n =
            static_cast<double>(std::accumulate(histogram.begin(), histogram.end(), std::size_t{0}));
        for (const auto count : histogram) {
            sum += 0.5 * std::abs(static_cast<double>(count) / n - 1.0 / static_cast<double>(classes));
        }
    }
    return sum / static_cast<double>(histograms.size());
}

TEST(Dirichlet, SkewGrowsAsAlphaShrinks) {
    const Labels labels = in_turn(20000, 10);
    for (const char* balanced : {"true", "false"}) {
        double last = -1.0;
        for (const char* alpha : {"1e6", "10", "1", "0.3", "0.05"}) {
            const double now =
                skew(split("{scheme: dirichlet, clients: 10, min_size: 1, alpha: " + std::string(alpha) +
                               ", balanced: " + balanced + "}",
                           labels, 10),
                     labels, 10);
            EXPECT_GT(now, last);
            last = now;
        }
        EXPECT_GT(last, 0.6);
    }
}

TEST(Dirichlet, LargeAlphaSplitsEveryClassEqually) {
    const Labels labels = in_turn(1000, 4);
    for (const auto& histogram : histograms_of(
             split("{scheme: dirichlet, clients: 5, alpha: 1e9, balanced: false}", labels, 4), labels, 4)) {
        for (const auto count : histogram) EXPECT_NEAR(static_cast<double>(count), 50.0, 1.0);
    }
}

TEST(Dirichlet, ProportionsHaveTheMomentsOfTheDistribution) {
    // One class, three clients: the share of a client has mean 1/3 and variance (1/3)(2/3)/(3 alpha + 1).
    const Labels labels(3000, 0);
    for (const double alpha : {0.2, 1.0, 5.0}) {
        constexpr int draws = 3000;
        double mean = 0.0;
        double squares = 0.0;
        for (int seed = 0; seed < draws; ++seed) {
            const auto sizes =
                sizes_of(split("{scheme: dirichlet, clients: 3, min_size: 1, balanced: false, alpha: " +
                                   std::to_string(alpha) + "}",
                               labels, 1, static_cast<std::uint64_t>(seed)));
            const double share = static_cast<double>(sizes[0]) / 3000.0;
            mean += share / draws;
            squares += share * share / draws;
        }
        EXPECT_NEAR(mean, 1.0 / 3.0, 0.02);
        // Draws that leave somebody with nothing are drawn again, which takes some of the spread when alpha
        // is small.
        const double variance = 2.0 / 9.0 / (3.0 * alpha + 1.0);
        EXPECT_NEAR(squares - mean * mean, variance, variance * (alpha < 1.0 ? 0.35 : 0.1));
    }
}

TEST(Dirichlet, TinyAlphaGivesEachClassToOneClient) {
    const Labels labels = in_turn(1000, 10);
    const auto histograms = histograms_of(
        split("{scheme: dirichlet, clients: 3, alpha: 1e-9, min_size: 1, balanced: false}", labels, 10),
        labels, 10);
    for (std::size_t label = 0; label < 10; ++label) {
        int holders = 0;
        for (const auto& histogram : histograms) holders += histogram[label] > 0 ? 1 : 0;
        EXPECT_EQ(holders, 1);
    }
}

TEST(Dirichlet, BalancedGivesNothingMoreToWhoHasAnEqualShare) {
    // With one-hot proportions and as many classes as clients, every client ends with exactly one class.
    const Labels labels = in_turn(1000, 10);
    const auto sizes = sizes_of(split("{scheme: dirichlet, clients: 10, alpha: 1e-9}", labels, 10));
    EXPECT_EQ(sizes, std::vector<std::size_t>(10, 100));
}

TEST(Dirichlet, DrawsUntilEveryClientHasTheMinimum) {
    const Labels labels = in_turn(2000, 10);
    for (std::uint64_t seed = 0; seed < 20; ++seed) {
        const auto sizes =
            sizes_of(split("{scheme: dirichlet, clients: 10, alpha: 0.3, min_size: 60}", labels, 10, seed));
        EXPECT_GE(*std::min_element(sizes.begin(), sizes.end()), 60U);
    }
}

TEST(Dirichlet, GivesUpWithAClearErrorWhenTheMinimumCannotBeHad) {
    const Labels labels = in_turn(1000, 10);
    const std::string unlikely = error_of<core::UsageError>(
        [&] { split("{scheme: dirichlet, clients: 100, alpha: 0.1, min_size: 10}", labels, 10); });
    EXPECT_CONTAINS(unlikely, "data.partition.min_size");
    EXPECT_CONTAINS(unlikely, "draws the smallest client had");
    const std::string impossible = error_of<core::UsageError>(
        [&] { split("{scheme: dirichlet, clients: 100, alpha: 0.1, min_size: 11}", labels, 10); });
    EXPECT_CONTAINS(impossible, "need more than the 1000 there are");
    for (const char* alpha : {"0", "-1", "nan"}) {
        error_of<core::UsageError>(
            [&] { split("{scheme: dirichlet, clients: 2, alpha: " + std::string(alpha) + "}", labels, 10); });
    }
}

TEST(Dirichlet, AbsentClassesDoNoHarm) {
    const Labels labels(500, 3);
    check(split("{scheme: dirichlet, clients: 4, alpha: 1}", labels, 10), 4, 500);
}

TEST(Shards, ByHand) {
    // Sorted by label the positions are 0 3 | 6 1 | 4 7 | 2 5 (labels 0 0 | 0 1 | 1 1 | 2 2).
    const auto lists =
        lists_of(split("{scheme: shards, clients: 4, shards_per_client: 1}", in_turn(8, 3), 3));
    std::set<std::vector<std::uint32_t>> found(lists.begin(), lists.end());
    const auto shard = [](std::size_t a, std::size_t b) { return std::vector{index_at(a), index_at(b)}; };
    EXPECT_EQ(found,
              (std::set<std::vector<std::uint32_t>>{shard(0, 3), shard(1, 6), shard(4, 7), shard(2, 5)}));
}

TEST(Shards, AClientHoldsAboutAsManyLabelsAsShards) {
    const Labels labels = in_turn(6000, 10);
    const auto assignment = split("{scheme: shards, clients: 100}", labels, 10);
    EXPECT_EQ(sizes_of(assignment), std::vector<std::size_t>(100, 60));
    for (const auto& histogram : histograms_of(assignment, labels, 10)) {
        EXPECT_LE(std::count_if(histogram.begin(), histogram.end(), [](auto count) { return count > 0; }), 2);
    }
}

TEST(Shards, UnevenNumbersUseAllSamplesAndDifferByOne) {
    const auto assignment = split("{scheme: shards, clients: 7, shards_per_client: 1}", in_turn(100, 10), 10);
    check(assignment, 7, 100);
    for (const auto size : sizes_of(assignment)) EXPECT_TRUE(size == 14 || size == 15);
}

TEST(Shards, MoreShardsThanSamplesAreRefused) {
    const std::string text = error_of<core::UsageError>(
        [] { split("{scheme: shards, clients: 10, shards_per_client: 11}", in_turn(100, 10), 10); });
    EXPECT_CONTAINS(text, "data.partition.shards_per_client");
    EXPECT_CONTAINS(text, "more shards than there are samples");
}

TEST(LabelsPerClient, HoldersShareALabelEqually) {
    const Labels labels = in_turn(10000, 10);
    for (const std::size_t each : {1, 2, 3, 10}) {
        const auto histograms = histograms_of(
            split("{scheme: labels_per_client, clients: 25, labels: " + std::to_string(each) + "}", labels,
                  10),
            labels, 10);
        for (std::size_t label = 0; label < 10; ++label) {
            std::vector<std::size_t> shares;
            for (const auto& histogram : histograms) {
                if (histogram[label] > 0) shares.push_back(histogram[label]);
            }
            ASSERT_FALSE(shares.empty());  // every label is held
            EXPECT_EQ(std::accumulate(shares.begin(), shares.end(), std::size_t{0}), 1000U);
            const auto [low, high] = std::minmax_element(shares.begin(), shares.end());
            EXPECT_LE(*high - *low, 1U);
        }
        for (const auto& histogram : histograms) {
            EXPECT_EQ(std::count_if(histogram.begin(), histogram.end(), [](auto count) { return count > 0; }),
                      static_cast<std::ptrdiff_t>(each));
        }
    }
}

TEST(LabelsPerClient, FewClientsStillCoverEveryLabelWhenTheyCan) {
    const Labels labels = in_turn(1000, 10);
    for (std::uint64_t seed = 0; seed < 30; ++seed) {
        check(split("{scheme: labels_per_client, clients: 4, labels: 3}", labels, 10, seed), 4, 1000);
        check(split("{scheme: labels_per_client, clients: 5, labels: 2}", labels, 10, seed), 5, 1000);
        // Three clients with two labels cannot: four labels stay out.
        const auto assignment = split("{scheme: labels_per_client, clients: 3, labels: 2}", labels, 10, seed);
        check(assignment, 3, 1000, false);
        EXPECT_EQ(assignment.indices.size(), 600U);
    }
}

TEST(LabelsPerClient, ImpossibleNumbersAreRefused) {
    const std::string many = error_of<core::UsageError>(
        [] { split("{scheme: labels_per_client, clients: 5, labels: 11}", in_turn(1000, 10), 10); });
    EXPECT_CONTAINS(many, "data.partition.labels");
    EXPECT_CONTAINS(many, "11 labels a client are more than the 10 labels");
    error_of<core::UsageError>(
        [] { split("{scheme: labels_per_client, clients: 60, labels: 2}", in_turn(100, 10), 10); });
    Labels rare(200, 0);
    rare[17] = 1;  // one sample, half the clients
    const std::string text = error_of<core::UsageError>(
        [&] { split("{scheme: labels_per_client, clients: 6, labels: 1}", rare, 2); });
    EXPECT_CONTAINS(text, "more holders than samples");
}

TEST(Quantity, SizesAreLogNormal) {
    const auto sizes =
        sizes_of(split("{scheme: quantity, clients: 2000, sigma: 0.5}", in_turn(200000, 10), 10));
    double mean = 0.0;
    double squares = 0.0;
    for (const auto size : sizes) {
        const double logarithm = std::log(static_cast<double>(size));
        mean += logarithm / 2000.0;
        squares += logarithm * logarithm / 2000.0;
    }
    EXPECT_NEAR(std::sqrt(squares - mean * mean), 0.5, 0.04);
    EXPECT_NEAR(mean, std::log(100.0) - 0.125,
                0.05);  // the mean size is 100: the median exp(-sigma²/2) of it
}

TEST(Quantity, ZeroSigmaGivesEqualSizes) {
    for (const auto size :
         sizes_of(split("{scheme: quantity, clients: 7, sigma: 0}", in_turn(1000, 10), 10))) {
        EXPECT_TRUE(size == 142 || size == 143);
    }
}

TEST(Quantity, NobodyIsBelowTheMinimumHoweverSkewedTheSizes) {
    for (const char* sigma : {"0", "0.3", "3", "10"}) {
        for (const std::size_t least : {1, 5, 9, 10}) {
            const auto assignment = split("{scheme: quantity, clients: 100, sigma: " + std::string(sigma) +
                                              ", min_size: " + std::to_string(least) + "}",
                                          in_turn(1000, 10), 10);
            check(assignment, 100, 1000);
            const auto sizes = sizes_of(assignment);
            EXPECT_GE(*std::min_element(sizes.begin(), sizes.end()), least);
        }
    }
    const std::string text = error_of<core::UsageError>(
        [] { split("{scheme: quantity, clients: 100, min_size: 11}", in_turn(1000, 10), 10); });
    EXPECT_CONTAINS(text, "data.partition.min_size");
}

TEST(Scale, AMillionClientsTakeSecondsAtMost) {
    const Labels labels = in_turn(2000000, 10);
    for (const char* yaml : {"{scheme: iid, clients: 1000000}", "{scheme: shards, clients: 1000000}",
                             "{scheme: quantity, clients: 1000000, sigma: 0.5}"}) {
        const Assignment assignment = split(yaml, labels, 10);
        ASSERT_EQ(assignment.offsets.size(), 1000001U);
        ASSERT_EQ(assignment.indices.size(), labels.size());
        for (std::size_t c = 0; c < 1000000; ++c) ASSERT_LT(assignment.offsets[c], assignment.offsets[c + 1]);
    }
    error_of<core::UsageError>([&] { split("{scheme: iid, clients: 1000001}", labels, 10); });
}

}  // namespace
}  // namespace thalweg::data::testing::partition_test
