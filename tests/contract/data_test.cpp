#include <cmath>
#include <filesystem>
#include <numeric>
#include <set>

#include "contract/plugins.hpp"
#include "thalweg/core/communicator.hpp"
#include "thalweg/data/partition.hpp"

/// What every registered data set and partitioner must do.
namespace thalweg::testing::data_test {
namespace {

using SampleSetPtr = std::shared_ptr<const data::SampleSet>;

std::shared_ptr<const data::Dataset> open(const PluginCase& tested, std::uint64_t seed) {
    core::SelfCommunicator self;
    const auto section = section_of(tested);
    return with_advice(tested, [&] { return data::open_dataset(section, {self, seed}); });
}

struct Gathered {
    std::vector<float> x;
    std::vector<std::int64_t> y;
    bool operator==(const Gathered&) const = default;
};

/// Not in order, and at most so many that a large set does not take long.
Gathered gather(const data::SampleSet& samples) {
    std::vector<std::int64_t> indices;
    const std::int64_t count = std::min<std::int64_t>(samples.size(), 500);
    for (std::int64_t i = 0; i < count; ++i) {
        indices.push_back(i % 2 == 0 ? i : samples.size() - 1 - i);
    }
    Gathered result{std::vector<float>(indices.size() * static_cast<std::size_t>(samples.width()), NAN),
                    std::vector<std::int64_t>(indices.size(), -1)};
    samples.gather(indices, result.x.data(), result.y.data());
    for (std::size_t i = 0; i < indices.size(); ++i) {
        EXPECT_EQ(result.y[i], samples.label(indices[i])) << "sample " << indices[i];
    }
    return result;
}

class DatasetContract : public PluginContract {
  protected:
    void SetUp() override {
        const auto section = section_of(GetParam());
        reads_files_ = section.has("path");
        if (reads_files_ && !std::filesystem::exists(section["path"].as_text()))
            GTEST_SKIP() << section["path"].as_text() << " is not there";
    }
    /// Everything the set hands out.
    static std::vector<SampleSetPtr> parts(const data::Dataset& dataset) {
        std::vector<SampleSetPtr> parts{dataset.test()};
        if (dataset.train()) parts.push_back(dataset.train());
        if (!dataset.has_natural_clients() || dataset.train()) return parts;
        parts.push_back(dataset.natural_holdout(20));
        for (const std::int64_t client : {0, 1, 2, 100'000}) parts.push_back(dataset.natural_client(client));
        return parts;
    }
    bool reads_files_ = false;
};

TEST_P(DatasetContract, HandsOutWhatItSays) {
    const auto dataset = open(GetParam(), 1);
    EXPECT_EQ(dataset->name(), GetParam().name);
    EXPECT_NE(dataset->source().empty(), reads_files_);
    EXPECT_TRUE(dataset->train() != nullptr || dataset->has_natural_clients());
    const auto shape = dataset->sample_shape();
    EXPECT_TRUE(shape.size() >= 1 && shape.size() <= 3);
    const auto width = std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies{});
    for (const auto& part : parts(*dataset)) {
        ASSERT_NE(part, nullptr);
        EXPECT_GT(part->size(), 0);
        ASSERT_EQ(part->width(), width);
        const auto gathered = gather(*part);
        EXPECT_TRUE(
            std::all_of(gathered.x.begin(), gathered.x.end(), [](float x) { return std::isfinite(x); }));
        for (std::int64_t i = 0; i < part->size(); ++i) {
            ASSERT_GE(part->label(i), 0) << "sample " << i;
            ASSERT_LT(part->label(i), dataset->classes()) << "sample " << i;
        }
    }
    if (!dataset->has_natural_clients() || dataset->train()) return;
    EXPECT_EQ(dataset->natural_holdout(20)->size(), 20);
    for (std::int64_t client = 0; client < 10; ++client) {
        EXPECT_EQ(dataset->natural_client(client)->size(), dataset->natural_size(client)) << client;
    }
}

TEST_P(DatasetContract, IsTheSameEveryTime) {
    const auto once = parts(*open(GetParam(), 1)), again = parts(*open(GetParam(), 1));
    ASSERT_EQ(once.size(), again.size());
    for (std::size_t i = 0; i < once.size(); ++i) {
        ASSERT_EQ(once[i]->size(), again[i]->size());
        EXPECT_EQ(gather(*once[i]), gather(*again[i]));
        EXPECT_EQ(gather(*once[i]), gather(*once[i]));
    }
}

TEST_P(DatasetContract, GeneratedDataFollowTheSeed) {
    const bool has_its_own = section_of(GetParam()).has("seed");
    const auto one = parts(*open(GetParam(), 1)), other = parts(*open(GetParam(), 2));
    for (std::size_t i = 0; i < one.size(); ++i) {
        EXPECT_EQ(gather(*one[i]) == gather(*other[i]), reads_files_ || has_its_own) << "part " << i;
    }
}

class PartitionerContract : public PluginContract {
  protected:
    static constexpr std::int64_t classes = 4;

    bool natural() const { return GetParam().name == "natural"; }
    /// What is partitioned: a set that says itself who holds what, or one that does not.
    std::shared_ptr<const data::Dataset> dataset() const {
        if (natural()) return open({"dataset", "synthetic", "{max_samples: 80}"}, 3);
        return open({"dataset", "gaussian_mixture", "{classes: 4, dimension: 5, train: 700, test: 20}"}, 3);
    }
    data::FederatedData federate(std::int64_t holdout, std::uint64_t seed) const {
        const auto set = dataset();
        const auto section = section_of(GetParam(), "scheme");
        return with_advice(GetParam(), [&] { return data::FederatedData(set, section, holdout, seed); });
    }
};

TEST_P(PartitionerContract, GivesEverybodySomethingAndNothingTwice) {
    if (natural()) GTEST_SKIP() << "splits nothing";
    // A pool with gaps, as a hold-out leaves one.
    std::vector<std::uint32_t> pool;
    std::vector<std::uint8_t> labels;
    core::Random draw(8, "contract");
    for (std::uint32_t i = 5; i < 1000; ++i) {
        if (i % 3 == 0) continue;
        pool.push_back(i);
        labels.push_back(static_cast<std::uint8_t>(draw.below(classes)));
    }
    const auto partitioner = make_plugin<data::Partitioner>(GetParam(), "scheme");
    const auto split = [&](std::uint64_t seed) {
        core::Random random(seed, "partition");
        return with_advice(GetParam(), [&] { return partitioner->split(pool, labels, classes, random); });
    };
    for (const std::uint64_t seed : {1, 2, 3, 4, 5}) {
        const auto assignment = split(seed);
        ASSERT_EQ(static_cast<std::int64_t>(assignment.offsets.size()), partitioner->clients() + 1);
        EXPECT_EQ(assignment.offsets.front(), 0U);
        EXPECT_EQ(assignment.offsets.back(), assignment.indices.size());
        for (std::size_t c = 1; c < assignment.offsets.size(); ++c) {
            EXPECT_LT(assignment.offsets[c - 1], assignment.offsets[c]) << "client " << c - 1;
        }
        const std::set<std::uint32_t> held(assignment.indices.begin(), assignment.indices.end());
        EXPECT_EQ(held.size(), assignment.indices.size()) << "a sample is held twice";
        EXPECT_TRUE(std::includes(pool.begin(), pool.end(), held.begin(), held.end()));
        const auto again = split(seed);
        EXPECT_EQ(assignment.indices, again.indices);
        EXPECT_EQ(assignment.offsets, again.offsets);
        const auto other = split(seed + 100);
        EXPECT_FALSE(assignment.indices == other.indices && assignment.offsets == other.offsets)
            << "does not follow the seed";
    }
}

TEST_P(PartitionerContract, WorksThroughFederatedData) {
    for (const std::int64_t holdout : {0, 50}) {
        const auto data = federate(holdout, 1), again = federate(holdout, 1);
        ASSERT_GT(data.clients(), 0);
        const auto spare = data.holdout_indices();
        std::set<std::uint32_t> taken(spare.begin(), spare.end());
        EXPECT_EQ(data.holdout() == nullptr, holdout == 0);
        if (data.holdout()) {
            EXPECT_EQ(data.holdout()->size(), holdout);
        }
        for (std::int64_t client = 0; client < data.clients(); ++client) {
            const auto samples = data.client(client);
            ASSERT_GT(samples->size(), 0) << "client " << client;
            EXPECT_EQ(samples->size(), data.samples(client)) << "client " << client;
            EXPECT_EQ(gather(*samples), gather(*again.client(client))) << "client " << client;
            const auto histogram = data.label_histogram(client);
            EXPECT_EQ(std::accumulate(histogram.begin(), histogram.end(), std::int64_t{0}), samples->size());
            for (const auto index : data.indices(client)) {
                EXPECT_TRUE(taken.insert(index).second) << "sample " << index << " is held twice";
            }
            if (!natural()) {
                EXPECT_EQ(static_cast<std::int64_t>(data.indices(client).size()), samples->size());
            }
        }
    }
}

TEST_P(PartitionerContract, FollowsTheSeed) {
    const auto one = federate(0, 1), other = federate(0, 2);
    bool same = true;
    for (std::int64_t client = 0; client < one.clients(); ++client) {
        same = same && gather(*one.client(client)) == gather(*other.client(client));
    }
    EXPECT_EQ(same, natural());  // whose data have been opened with one seed
}

INSTANTIATE_TEST_SUITE_P(Registered, DatasetContract, ::testing::ValuesIn(cases_of("dataset")),
                         plugin_case_name);
INSTANTIATE_TEST_SUITE_P(Registered, PartitionerContract, ::testing::ValuesIn(cases_of("partitioner")),
                         plugin_case_name);

}  // namespace
}  // namespace thalweg::testing::data_test
