#include "thalweg/data/sample_sets.hpp"

#include <algorithm>
#include <utility>

namespace thalweg::data {

ByteImages::ByteImages(std::shared_ptr<const void> owner, std::span<const std::uint8_t> images,
                       std::span<const std::uint8_t> labels, const Normalisation& normalisation)
    : owner_(std::move(owner)), images_(images), labels_(labels), tables_(normalisation.mean.size()) {
    if (!labels.empty()) pixels_ = images.size() / labels.size() / tables_.size();
    for (std::size_t c = 0; c < tables_.size(); ++c) {
        for (std::size_t value = 0; value < 256; ++value) {
            tables_[c][value] = static_cast<float>(
                (static_cast<double>(value) / 255.0 - normalisation.mean[c]) / normalisation.deviation[c]);
        }
    }
}

void ByteImages::gather(std::span<const std::int64_t> indices, float* x, std::int64_t* y) const {
    for (const std::int64_t index : indices) {
        const auto i = static_cast<std::size_t>(index);
        *y++ = labels_[i];
        const std::uint8_t* bytes = images_.data() + i * tables_.size() * pixels_;
        for (const auto& table : tables_) {
            for (std::size_t p = 0; p < pixels_; ++p) x[p] = table[bytes[p]];
            x += pixels_;
            bytes += pixels_;
        }
    }
}

FloatSamples::FloatSamples(std::shared_ptr<const void> owner, std::span<const float> samples,
                           std::span<const std::uint8_t> labels, std::int64_t width)
    : owner_(std::move(owner)), samples_(samples), labels_(labels), width_(static_cast<std::size_t>(width)) {}

FloatSamples::FloatSamples(std::vector<float> samples, std::vector<std::uint8_t> labels, std::int64_t width)
    : width_(static_cast<std::size_t>(width)) {
    struct Storage {
        std::vector<float> samples;
        std::vector<std::uint8_t> labels;
    };
    auto storage = std::make_shared<const Storage>(Storage{std::move(samples), std::move(labels)});
    samples_ = storage->samples;
    labels_ = storage->labels;
    owner_ = std::move(storage);
}

void FloatSamples::gather(std::span<const std::int64_t> indices, float* x, std::int64_t* y) const {
    for (const std::int64_t index : indices) {
        const auto i = static_cast<std::size_t>(index);
        *y++ = labels_[i];
        x = std::copy_n(samples_.data() + i * width_, width_, x);
    }
}

}  // namespace thalweg::data
