#include <algorithm>
#include <set>
#include <stdexcept>

#include "unit/data/support.hpp"
#include "unit/support/thread_communicator.hpp"

namespace thalweg::data::testing::federated_data_test {
namespace {

const char* const mixture = "{kind: gaussian_mixture, dimension: 4, train: 1000, test: 50, classes: 5}";

FederatedData federate(const std::string& dataset, const std::string& partition, std::int64_t holdout = 0,
                       std::uint64_t seed = 1) {
    return {open(dataset, seed), partition_options(partition), holdout, seed};
}

TEST(FederatedData, HoldoutAndClientsShareTheTrainingSetOut) {
    const auto data = federate(mixture, "{scheme: dirichlet, clients: 7, alpha: 0.5}", 100);
    ASSERT_EQ(data.clients(), 7);
    ASSERT_EQ(data.holdout()->size(), 100);
    EXPECT_EQ(data.test()->size(), 50);
    const Everything train = everything(*data.dataset().train());
    std::set<std::uint32_t> seen(data.holdout_indices().begin(), data.holdout_indices().end());
    ASSERT_EQ(seen.size(), 100U);
    EXPECT_TRUE(std::is_sorted(data.holdout_indices().begin(), data.holdout_indices().end()));
    for (std::int64_t c = 0; c < 7; ++c) {
        const auto indices = data.indices(c);
        ASSERT_EQ(data.samples(c), std::ssize(indices));
        const Everything mine = everything(*data.client(c));
        std::vector<std::int64_t> histogram(5);
        for (std::size_t i = 0; i < indices.size(); ++i) {
            ASSERT_TRUE(seen.insert(indices[i]).second);
            ASSERT_EQ(mine.y[i], train.y[indices[i]]);
            ++histogram[static_cast<std::size_t>(mine.y[i])];
            for (std::size_t j = 0; j < 4; ++j) ASSERT_EQ(mine.x[4 * i + j], train.x[4 * indices[i] + j]);
        }
        EXPECT_EQ(data.label_histogram(c), histogram);
    }
    EXPECT_EQ(seen.size(), 1000U);
    const Everything held = everything(*data.holdout());
    for (std::size_t i = 0; i < 100; ++i) ASSERT_EQ(held.y[i], train.y[data.holdout_indices()[i]]);
}

TEST(FederatedData, IsTheSameOnEveryRankAndForEverySeedAnother) {
    const auto indices = [](const FederatedData& data) {
        std::vector<std::uint32_t> all(data.holdout_indices().begin(), data.holdout_indices().end());
        for (std::int64_t c = 0; c < data.clients(); ++c) {
            all.insert(all.end(), data.indices(c).begin(), data.indices(c).end());
        }
        return all;
    };
    const std::string partition = "{scheme: dirichlet, clients: 7}";
    const auto reference = indices(federate(mixture, partition, 10));
    EXPECT_NE(indices(federate(mixture, partition, 10, 2)), reference);
    thalweg::testing::run_ranks(3, [&](core::Communicator& ranks) {
        const FederatedData data(open(mixture, ranks), partition_options(partition), 10, 1);
        EXPECT_EQ(indices(data), reference);
    });
}

TEST(FederatedData, ClientsOutliveIt) {
    std::shared_ptr<const SampleSet> client;
    Everything before;
    {
        const auto data = federate(mixture, "{scheme: iid, clients: 3}");
        EXPECT_EQ(data.holdout(), nullptr);
        client = data.client(1);
        before = everything(*client);
    }
    EXPECT_EQ(everything(*client), before);
}

TEST(FederatedData, HoldoutMustLeaveSomething) {
    const std::string partition = "{scheme: iid, clients: 3}";
    for (const std::int64_t holdout : {1000, 1001, -1}) {
        EXPECT_CONTAINS(error_of<core::UsageError>([&] { federate(mixture, partition, holdout); }),
                        "data.holdout");
    }
    EXPECT_CONTAINS(error_of<core::UsageError>([&] { federate(mixture, partition, 998); }),
                    "data.partition.clients");
    EXPECT_EQ(federate(mixture, partition, 997).samples(2), 1);
}

TEST(FederatedData, NaturalClientsComeFromTheDataSet) {
    const auto data = federate("synthetic", "{scheme: natural, clients: 1000000}", 30);
    ASSERT_EQ(data.clients(), 1000000);
    EXPECT_EQ(data.holdout()->size(), 30);
    EXPECT_EQ(data.test()->size(), 20000);
    EXPECT_TRUE(data.holdout_indices().empty());
    for (const std::int64_t c : {0, 123456, 999999}) {
        EXPECT_TRUE(data.indices(c).empty());
        EXPECT_EQ(data.client(c)->size(), data.samples(c));
        const auto histogram = data.label_histogram(c);
        EXPECT_EQ(histogram.size(), 10U);
        EXPECT_EQ(std::accumulate(histogram.begin(), histogram.end(), std::int64_t{0}), data.samples(c));
        EXPECT_EQ(everything(*data.client(c)), everything(*data.dataset().natural_client(c)));
    }
}

TEST(FederatedData, SchemeAndDataSetMustGoTogether) {
    const std::string natural =
        error_of<core::UsageError>([] { federate(mixture, "{scheme: natural, clients: 3}"); });
    EXPECT_CONTAINS(natural, "data.partition.scheme");
    EXPECT_CONTAINS(natural, "synthetic");
    const std::string iid =
        error_of<core::UsageError>([] { federate("synthetic", "{scheme: iid, clients: 3}"); });
    EXPECT_CONTAINS(iid, "data.partition.scheme");
    EXPECT_CONTAINS(iid, "natural");
    EXPECT_THROW(open(mixture)->natural_size(0), std::logic_error);
}

TEST(FederatedData, ClientsThatAreNotThereAreAMistakeOfTheProgram) {
    const auto split = federate(mixture, "{scheme: iid, clients: 3}");
    const auto natural = federate("synthetic", "{scheme: natural, clients: 3}");
    for (const auto* data : {&split, &natural}) {
        for (const std::int64_t client : {-1, 3}) {
            EXPECT_THROW(data->samples(client), std::out_of_range);
            EXPECT_THROW(data->client(client), std::out_of_range);
            EXPECT_THROW(data->indices(client), std::out_of_range);
        }
    }
}

}  // namespace
}  // namespace thalweg::data::testing::federated_data_test
