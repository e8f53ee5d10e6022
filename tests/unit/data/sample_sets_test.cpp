#include "thalweg/data/sample_sets.hpp"

#include <cmath>

#include "thalweg/core/random.hpp"
#include "unit/data/support.hpp"

namespace thalweg::data::testing::sample_sets_test {
namespace {

TEST(ByteImages, NormalisesEachChannelByItsOwnStatistics) {
    // Two images of two channels with three pixels.
    const Raw images{0, 1, 2, 10, 20, 30, 255, 254, 253, 100, 128, 200};
    const Raw labels{7, 3};
    const Normalisation normalisation{{0.25, 0.5}, {0.5, 0.125}};
    const ByteImages set(nullptr, images, labels, normalisation);
    ASSERT_EQ(set.size(), 2);
    ASSERT_EQ(set.width(), 6);
    EXPECT_EQ(set.label(0), 7);
    EXPECT_EQ(set.label(1), 3);
    std::vector<float> x(18, -99.0F);
    std::vector<std::int64_t> y(3);
    const std::vector<std::int64_t> indices{1, 0, 1};
    set.gather(indices, x.data(), y.data());
    EXPECT_EQ(y, (std::vector<std::int64_t>{3, 7, 3}));
    for (std::size_t i = 0; i < 18; ++i) {
        const std::size_t image = i / 6 == 1 ? 0 : 1;
        const std::size_t channel = i % 6 / 3;
        const double expected = (images[image * 6 + i % 6] / 255.0 - normalisation.mean[channel]) /
                                normalisation.deviation[channel];
        EXPECT_EQ(x[i], static_cast<float>(expected)) << i;
    }
}

TEST(FloatSamples, CopiesWhatItHolds) {
    const FloatSamples set({1.0F, 2.0F, 3.0F, 4.0F, 5.0F, 6.0F}, {0, 9, 4}, 2);
    std::vector<float> x(4);
    std::vector<std::int64_t> y(2);
    set.gather(std::vector<std::int64_t>{2, 0}, x.data(), y.data());
    EXPECT_EQ(x, (std::vector<float>{5.0F, 6.0F, 1.0F, 2.0F}));
    EXPECT_EQ(y, (std::vector<std::int64_t>{4, 0}));
    EXPECT_EQ(set.label(1), 9);
}

/// 1,000 samples of width 3 whose numbers tell which sample they are of.
std::shared_ptr<const SampleSet> counted() {
    std::vector<float> x(3000);
    std::iota(x.begin(), x.end(), 0.0F);
    std::vector<std::uint8_t> labels(1000);
    for (std::size_t i = 0; i < labels.size(); ++i) labels[i] = static_cast<std::uint8_t>(i % 7);
    return std::make_shared<FloatSamples>(std::move(x), std::move(labels), 3);
}

TEST(Subset, TranslatesIndicesAcrossItsBlocks) {
    // More samples than one block of the translation, and a subset of a subset.
    std::vector<std::uint32_t> reversed(1000);
    for (std::uint32_t i = 0; i < 1000; ++i) reversed[i] = 999 - i;
    const auto outer = std::make_shared<const Subset>(counted(), reversed);
    std::vector<std::uint32_t> even;
    for (std::uint32_t i = 0; i < 1000; i += 2) even.push_back(i);
    const auto owner = std::make_shared<const std::vector<std::uint32_t>>(even);
    const Subset set(outer, *owner, owner);
    ASSERT_EQ(set.size(), 500);
    ASSERT_EQ(set.width(), 3);
    core::Random random(1, "test");
    std::vector<std::int64_t> indices(777);
    for (auto& index : indices) index = random.below(500);
    std::vector<float> x(777 * 3);
    std::vector<std::int64_t> y(777);
    set.gather(indices, x.data(), y.data());
    for (std::size_t i = 0; i < indices.size(); ++i) {
        const std::int64_t sample = 999 - 2 * indices[i];
        ASSERT_EQ(y[i], sample % 7);
        ASSERT_EQ(set.label(indices[i]), sample % 7);
        for (std::size_t j = 0; j < 3; ++j)
            ASSERT_EQ(x[3 * i + j], static_cast<float>(3 * sample + static_cast<int>(j)));
    }
}

TEST(Subset, OfNothingIsEmpty) {
    const Subset set(counted(), std::vector<std::uint32_t>{});
    EXPECT_EQ(set.size(), 0);
    set.gather({}, nullptr, nullptr);
}

TEST(Subset, KeepsItsIndicesWhenItIsShared) {
    auto set = std::make_shared<const Subset>(counted(), std::vector<std::uint32_t>{5, 6});
    const auto another = set;
    set.reset();
    EXPECT_EQ(everything(*another).x, (std::vector<float>{15, 16, 17, 18, 19, 20}));
}

}  // namespace
}  // namespace thalweg::data::testing::sample_sets_test
