#include <algorithm>
#include <cmath>

#include "thalweg/core/random.hpp"
#include "unit/data/support.hpp"
#include "unit/support/thread_communicator.hpp"

namespace thalweg::data::testing::generated_test {
namespace {

/// Accuracy on the test set of the rule "the class whose training mean is nearest".
double nearest_mean_accuracy(const Dataset& set) {
    const Everything train = everything(*set.train());
    const Everything test = everything(*set.test());
    const auto width = static_cast<std::size_t>(set.train()->width());
    const auto classes = static_cast<std::size_t>(set.classes());
    std::vector<double> mean(classes * width, 0.0);
    std::vector<double> count(classes, 0.0);
    for (std::size_t i = 0; i < train.y.size(); ++i) {
        const auto c = static_cast<std::size_t>(train.y[i]);
        count[c] += 1.0;
        for (std::size_t j = 0; j < width; ++j) mean[c * width + j] += train.x[i * width + j];
    }
    for (std::size_t c = 0; c < classes; ++c) {
        for (std::size_t j = 0; j < width; ++j) mean[c * width + j] /= count[c];
    }
    double right = 0.0;
    for (std::size_t i = 0; i < test.y.size(); ++i) {
        std::size_t best = 0;
        double closest = INFINITY;
        for (std::size_t c = 0; c < classes; ++c) {
            double distance = 0.0;
            for (std::size_t j = 0; j < width; ++j)
                distance += std::pow(test.x[i * width + j] - mean[c * width + j], 2);
            if (distance < closest) closest = distance, best = c;
        }
        right += static_cast<std::size_t>(test.y[i]) == best ? 1.0 : 0.0;
    }
    return right / static_cast<double>(test.y.size());
}

TEST(GaussianMixture, HasBalancedClassesAndTheShapeAskedFor) {
    const auto set =
        open("{kind: gaussian_mixture, classes: 7, dimension: 12, shape: [3, 2, 2], train: 2100, test: 70}");
    EXPECT_EQ(set->sample_shape(), (std::vector<std::int64_t>{3, 2, 2}));
    EXPECT_EQ(set->classes(), 7);
    EXPECT_EQ(set->train()->width(), 12);
    std::vector<int> train(7);
    std::vector<int> test(7);
    for (const auto label : everything(*set->train()).y) ++train[static_cast<std::size_t>(label)];
    for (const auto label : everything(*set->test()).y) ++test[static_cast<std::size_t>(label)];
    EXPECT_EQ(train, std::vector<int>(7, 300));
    EXPECT_EQ(test, std::vector<int>(7, 10));
    EXPECT_EQ(open("{kind: gaussian_mixture, dimension: 5}")->sample_shape(), (std::vector<std::int64_t>{5}));
    for (const char* shape : {"[3, 2]", "[3, 2, 3]", "[0, 2, 2]", "[-3, -2, 2]", "[12, 12, 12]"}) {
        error_of<core::UsageError>(
            [&] { open("{kind: gaussian_mixture, dimension: 12, shape: " + std::string(shape) + "}"); });
    }
}

TEST(GaussianMixture, HasUnitNoiseAroundMeansOfTheLengthAskedFor) {
    const auto set =
        open("{kind: gaussian_mixture, classes: 4, dimension: 6, train: 40000, test: 4, separation: 2.5}");
    const Everything all = everything(*set->train());
    for (std::size_t c = 0; c < 4; ++c) {
        double length = 0.0;
        for (std::size_t j = 0; j < 6; ++j) {
            double mean = 0.0;
            double squares = 0.0;
            for (std::size_t i = c; i < all.y.size(); i += 4) {
                ASSERT_EQ(all.y[i], static_cast<std::int64_t>(c));
                mean += all.x[6 * i + j] / 1e4;
                squares += std::pow(all.x[6 * i + j], 2) / 1e4;
            }
            EXPECT_NEAR(squares - mean * mean, 1.0, 0.06);
            length += mean * mean;
        }
        EXPECT_NEAR(std::sqrt(length), 2.5, 0.05);
    }
}

TEST(GaussianMixture, IsEasierTheFartherItsMeansAreApart) {
    double last = 0.0;
    for (const char* separation : {"0", "1", "2", "4", "8"}) {
        const auto set = open(
            "{kind: gaussian_mixture, train: 5000, test: 2000, separation: " + std::string(separation) + "}");
        const double accuracy = nearest_mean_accuracy(*set);
        if (separation == std::string("0")) {
            EXPECT_NEAR(accuracy, 0.1, 0.03);
        } else {
            EXPECT_GT(accuracy, last);
        }
        last = accuracy;
    }
    EXPECT_GT(last, 0.999);
}

TEST(GaussianMixture, DependsOnTheSeedAndOnNothingElse) {
    const std::string yaml = "{kind: gaussian_mixture, train: 3000, test: 100}";
    const Everything train = everything(*open(yaml, 5)->train());
    EXPECT_EQ(everything(*open(yaml, 5)->train()), train);
    EXPECT_NE(everything(*open(yaml, 6)->train()), train);
    // A block can be made without those before it, and the number of samples changes none of them.
    const Everything longer = everything(*open("{kind: gaussian_mixture, train: 5000, test: 7}", 5)->train());
    EXPECT_TRUE(std::equal(train.x.begin(), train.x.end(), longer.x.begin()));
    // Training and test samples are different draws.
    const Everything test = everything(*open(yaml, 5)->test());
    EXPECT_FALSE(std::equal(test.x.begin(), test.x.end(), train.x.begin()));
    thalweg::testing::run_ranks(
        3, [&](core::Communicator& ranks) { EXPECT_EQ(everything(*open(yaml, ranks, 5)->train()), train); });
}

TEST(GaussianMixture, RefusesWhatNoMemoryHolds) {
    const std::string text = error_of<core::UsageError>(
        [] { open("{kind: gaussian_mixture, train: 100000000, dimension: 1000000}"); });
    EXPECT_NE(text.find("data.dataset.train"), std::string::npos) << text;
}

TEST(Synthetic, SizesAreKnownWithoutTheSamples) {
    const auto set = open("synthetic");
    ASSERT_TRUE(set->has_natural_clients());
    EXPECT_EQ(set->train(), nullptr);
    EXPECT_EQ(set->sample_shape(), (std::vector<std::int64_t>{60}));
    EXPECT_EQ(set->classes(), 10);
    for (const std::int64_t client : {0, 1, 17, 99999, 999999}) {
        const auto samples = set->natural_client(client);
        EXPECT_EQ(samples->size(), set->natural_size(client));
        EXPECT_EQ(samples->width(), 60);
        for (const auto label : everything(*samples).y) ASSERT_TRUE(label >= 0 && label < 10);
    }
}

TEST(Synthetic, SizesAreLogNormalPlusFiftyUpToTheLimit) {
    const auto set = open("{kind: synthetic, max_samples: 10000000}");
    const auto limited = open("{kind: synthetic, max_samples: 400}");
    constexpr int clients = 20000;
    int below_median = 0;
    double logarithms = 0.0;
    double squares = 0.0;
    for (int k = 0; k < clients; ++k) {
        const auto size = set->natural_size(k);
        ASSERT_GE(size, 50);
        ASSERT_EQ(limited->natural_size(k), std::min<std::int64_t>(size, 400));
        below_median += size - 50 < std::exp(4.0) ? 1 : 0;
        const double logarithm =
            std::log(static_cast<double>(size) - 50.0 + 0.5);  // the middle of what was cut off
        logarithms += logarithm / clients;
        squares += logarithm * logarithm / clients;
    }
    EXPECT_NEAR(below_median / static_cast<double>(clients), 0.5, 0.02);
    EXPECT_NEAR(logarithms, 4.0, 0.06);
    EXPECT_NEAR(std::sqrt(squares - logarithms * logarithms), 2.0, 0.08);
}

TEST(Synthetic, ClientsAreTheSameWhoeverAsksAndWhenever) {
    const auto set = open("synthetic", 3);
    const Everything seven = everything(*set->natural_client(7));
    set->natural_client(3);
    EXPECT_EQ(everything(*set->natural_client(7)), seven);
    EXPECT_NE(everything(*set->natural_client(8)), seven);
    EXPECT_NE(everything(*open("synthetic", 4)->natural_client(7)), seven);
    const Everything test = everything(*set->test());
    thalweg::testing::run_ranks(2, [&](core::Communicator& ranks) {
        const auto here = open("synthetic", ranks, 3);
        EXPECT_EQ(everything(*here->natural_client(7)), seven);
        EXPECT_EQ(everything(*here->test()), test);
    });
}

/// The spread over clients of the mean of feature j over a client's samples, and the spread within a client.
struct Spread {
    double between;
    double within;
};
Spread spread_of_feature(const Dataset& set, std::size_t j) {
    constexpr int clients = 1500;
    double mean = 0.0;
    double squares = 0.0;
    double within = 0.0;
    for (int k = 0; k < clients; ++k) {
        const auto samples = set.natural_client(k);
        const Everything all = everything(*samples);
        const auto width = static_cast<std::size_t>(samples->width());
        const auto n = static_cast<double>(all.y.size());
        double m = 0.0;
        double s = 0.0;
        for (std::size_t i = 0; i < all.y.size(); ++i) m += all.x[i * width + j] / n;
        for (std::size_t i = 0; i < all.y.size(); ++i) s += std::pow(all.x[i * width + j] - m, 2) / (n - 1);
        mean += m / clients;
        squares += m * m / clients;
        within += s / clients;
    }
    return {std::sqrt(squares - mean * mean), std::sqrt(within)};
}

TEST(Synthetic, FollowsItsDefinition) {
    // Feature j of client k: N(v_kj, (j+1)^-1.2) with v_kj ~ N(B_k, 1), B_k ~ N(0, beta).
    for (const double beta : {0.0, 2.0}) {
        const auto set =
            open("{kind: synthetic, dimension: 5, max_samples: 60, beta: " + std::to_string(beta) + "}");
        for (const std::size_t j : {0, 4}) {
            const Spread spread = spread_of_feature(*set, j);
            EXPECT_NEAR(spread.within, std::pow(static_cast<double>(j + 1), -0.6), 0.02);
            EXPECT_NEAR(spread.between, std::sqrt(1.0 + beta * beta), 0.12);
        }
    }
}

/// Mean over clients of the share of their most frequent label.
double concentration(const Dataset& set) {
    double sum = 0.0;
    for (int k = 0; k < 200; ++k) {
        std::vector<double> counts(10);
        const Everything all = everything(*set.natural_client(k));
        for (const auto label : all.y) counts[static_cast<std::size_t>(label)] += 1.0;
        sum += *std::max_element(counts.begin(), counts.end()) / static_cast<double>(all.y.size());
    }
    return sum / 200;
}

TEST(Synthetic, ClientsHoldFewLabelsAndDifferFromOneAnother) {
    const auto set = open("{kind: synthetic, alpha: 0, beta: 0}");
    EXPECT_GT(concentration(*set), 0.4);  // a uniform label would give about 0.13
    std::vector<int> counts(10);
    for (const auto label : everything(*set->test()).y) ++counts[static_cast<std::size_t>(label)];
    for (const int count : counts) EXPECT_NEAR(count, 2000, 400);  // over 1,000 clients no label stands out
}

TEST(Synthetic, TestAndHoldoutAreOfFurtherClients) {
    const auto set = open("synthetic");
    const Everything test = everything(*set->test());
    ASSERT_EQ(test.y.size(), 20000U);
    const auto holdout = set->natural_holdout(50);
    ASSERT_EQ(holdout->size(), 50);
    const Everything held = everything(*holdout);
    const auto firsts = [](const Everything& all) {
        // Two numbers of each sample: one alone may meet another by chance.
        std::vector<std::pair<float, float>> values;
        for (std::size_t i = 0; i < all.y.size(); ++i) values.emplace_back(all.x[60 * i], all.x[60 * i + 1]);
        return values;
    };
    const auto in_test = firsts(test);
    for (const auto& value : firsts(held)) EXPECT_EQ(std::count(in_test.begin(), in_test.end(), value), 0);
    for (const auto& value : firsts(everything(*set->natural_client(0)))) {
        EXPECT_EQ(std::count(in_test.begin(), in_test.end(), value), 0);
    }
    // A larger hold-out begins with the smaller one.
    const Everything larger = everything(*set->natural_holdout(75));
    EXPECT_TRUE(std::equal(held.x.begin(), held.x.end(), larger.x.begin()));
}

}  // namespace
}  // namespace thalweg::data::testing::generated_test
