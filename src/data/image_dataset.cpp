#include "image_dataset.hpp"

#include <array>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <tuple>
#include <utility>
#include <vector>

#include "byte_file.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/files.hpp"
#include "thalweg/data/sample_sets.hpp"

namespace thalweg::data {
namespace {

constexpr std::size_t most_channels = 3;

/// Begins the node's shared block; images and labels of both halves follow.
struct Header {
    std::array<double, most_channels> mean;
    std::array<double, most_channels> deviation;
    std::uint64_t checksum;
};

/// Where the pieces lie in the shared block.
struct BlockLayout {
    std::size_t image_bytes;
    std::size_t train;
    std::size_t test;

    std::size_t train_images() const { return sizeof(Header); }
    std::size_t test_images() const { return train_images() + train * image_bytes; }
    std::size_t train_labels() const { return test_images() + test * image_bytes; }
    std::size_t test_labels() const { return train_labels() + train; }
    std::size_t size() const { return test_labels() + test; }
};

class ImageDataset final : public Dataset {
  public:
    ImageDataset(ImageFacts facts, Normalisation normalisation, std::shared_ptr<const SampleSet> train,
                 std::shared_ptr<const SampleSet> test)
        : facts_(std::move(facts)),
          normalisation_(std::move(normalisation)),
          train_(std::move(train)),
          test_(std::move(test)) {}
    std::string name() const override { return facts_.name; }
    std::string source() const override { return facts_.source; }
    std::vector<std::int64_t> sample_shape() const override {
        return {facts_.channels, facts_.height, facts_.width};
    }
    std::int64_t classes() const override { return facts_.classes; }
    Normalisation normalisation() const override { return normalisation_; }
    std::shared_ptr<const SampleSet> train() const override { return train_; }
    std::shared_ptr<const SampleSet> test() const override { return test_; }

  private:
    ImageFacts facts_;
    Normalisation normalisation_;
    std::shared_ptr<const SampleSet> train_;
    std::shared_ptr<const SampleSet> test_;
};

/// Mean and deviation of one channel from how often each byte occurs: the sums are integers, hence exact.
std::pair<double, double> channel_statistics(const std::array<std::uint64_t, 256>& histogram) {
    std::uint64_t count = 0;
    std::uint64_t sum = 0;
    std::uint64_t squares = 0;
    for (std::uint64_t value = 0; value < 256; ++value) {
        count += histogram[value];
        sum += histogram[value] * value;
        squares += histogram[value] * value * value;
    }
    const double n = static_cast<double>(count);
    const double mean = static_cast<double>(sum) / n;
    const double variance = static_cast<double>(squares) / n - mean * mean;
    // A channel of one value has nothing to scale; it becomes zero instead of infinite.
    return {mean / 255.0, variance > 0.0 ? std::sqrt(variance) / 255.0 : 1.0};
}

void set_statistics(const ImageFacts& facts, std::span<const std::uint8_t> images, Header& header) {
    const auto channels = static_cast<std::size_t>(facts.channels);
    const auto pixels = static_cast<std::size_t>(facts.height * facts.width);
    std::vector<std::array<std::uint64_t, 256>> histograms(channels);
    for (std::size_t plane = 0; plane < images.size() / pixels; ++plane) {
        auto& histogram = histograms[plane % channels];
        for (const std::uint8_t value : images.subspan(plane * pixels, pixels)) ++histogram[value];
    }
    for (std::size_t c = 0; c < channels; ++c) {
        std::tie(header.mean[c], header.deviation[c]) = channel_statistics(histograms[c]);
    }
}

void fill_block(const ImageFacts& facts, const ImageParts& parts, const BlockLayout& layout,
                std::span<std::byte> block) {
    const std::span<std::uint8_t> bytes{reinterpret_cast<std::uint8_t*>(block.data()), block.size()};
    const auto train_images = bytes.subspan(layout.train_images(), layout.train * layout.image_bytes);
    parts.train.read(train_images, bytes.subspan(layout.train_labels(), layout.train));
    parts.test.read(bytes.subspan(layout.test_images(), layout.test * layout.image_bytes),
                    bytes.subspan(layout.test_labels(), layout.test));
    Header header{};
    set_statistics(facts, train_images, header);
    header.checksum = core::crc32(block.subspan(sizeof(Header)));
    std::memcpy(block.data(), &header, sizeof(Header));
}

/// All ranks must see the same numbers, or their results would differ without a word.
void require_equal(core::Communicator& communicator, const std::vector<std::uint64_t>& mine,
                   const ImageFacts& facts) {
    for (const core::Bytes& theirs : communicator.all_gather(core::as_bytes(mine))) {
        if (core::from_bytes<std::uint64_t>(theirs) == mine) continue;
        throw core::RunError(facts.source + ": the files of " + facts.name +
                             " are not the same on all nodes; copy one node's to the others");
    }
}

std::shared_ptr<const SampleSet> part_of(const std::shared_ptr<const std::byte>& block, std::size_t images,
                                         std::size_t labels, std::size_t count, std::size_t image_bytes,
                                         const Normalisation& normalisation) {
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(block.get());
    return std::make_shared<const ByteImages>(block, std::span{bytes + images, count * image_bytes},
                                              std::span{bytes + labels, count}, normalisation);
}

}  // namespace

void check_labels(const ByteFile& file, std::span<const std::uint8_t> labels, std::int64_t classes) {
    for (std::size_t i = 0; i < labels.size(); ++i) {
        if (labels[i] < classes) continue;
        file.fail("the label of sample " + count_text(i) + " is " + std::to_string(labels[i]) +
                  " but labels are 0 to " + std::to_string(classes - 1) +
                  ": the file is damaged or belongs to another data set");
    }
}

std::shared_ptr<const Dataset> open_images(const ImageFacts& facts, core::Communicator& communicator,
                                           const std::function<ImageParts()>& look) {
    const ImageParts parts = core::collectively(communicator, look);
    const BlockLayout layout{static_cast<std::size_t>(facts.bytes()),
                             static_cast<std::size_t>(parts.train.count),
                             static_cast<std::size_t>(parts.test.count)};
    require_equal(communicator, {layout.train, layout.test}, facts);
    const std::shared_ptr<const std::byte> block = communicator.share(
        layout.size(), [&](std::span<std::byte> bytes) { fill_block(facts, parts, layout, bytes); });
    Header header;
    std::memcpy(&header, block.get(), sizeof(Header));
    require_equal(communicator, {header.checksum}, facts);

    const auto channels = static_cast<std::size_t>(facts.channels);
    Normalisation normalisation{{header.mean.begin(), header.mean.begin() + channels},
                                {header.deviation.begin(), header.deviation.begin() + channels}};
    auto train = part_of(block, layout.train_images(), layout.train_labels(), layout.train,
                         layout.image_bytes, normalisation);
    auto test = part_of(block, layout.test_images(), layout.test_labels(), layout.test, layout.image_bytes,
                        normalisation);
    return std::make_shared<const ImageDataset>(facts, std::move(normalisation), std::move(train),
                                                std::move(test));
}

}  // namespace thalweg::data
