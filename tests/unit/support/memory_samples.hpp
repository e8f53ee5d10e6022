#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <utility>
#include <vector>

#include "thalweg/core/random.hpp"
#include "thalweg/data/dataset.hpp"

namespace thalweg::testing {

/// Samples that a test wrote down.
class MemorySamples final : public data::SampleSet {
  public:
    /// `x`: the samples one after another, `width` numbers each.
    MemorySamples(std::int64_t width, std::vector<float> x, std::vector<std::int64_t> labels)
        : width_(width), x_(std::move(x)), labels_(std::move(labels)) {
        if (x_.size() != labels_.size() * static_cast<std::size_t>(width_)) {
            throw std::logic_error("MemorySamples: numbers and labels do not fit");
        }
    }
    std::int64_t size() const override { return static_cast<std::int64_t>(labels_.size()); }
    std::int64_t label(std::int64_t index) const override {
        return labels_.at(static_cast<std::size_t>(index));
    }
    std::int64_t width() const override { return width_; }
    void gather(std::span<const std::int64_t> indices, float* x, std::int64_t* y) const override {
        for (std::size_t i = 0; i < indices.size(); ++i) {
            y[i] = label(indices[i]);
            std::copy_n(x_.begin() + indices[i] * width_, width_, x + static_cast<std::int64_t>(i) * width_);
        }
    }

  private:
    std::int64_t width_;
    std::vector<float> x_;
    std::vector<std::int64_t> labels_;
};

/// Standard normal samples with uniform labels; the same for the same seed.
inline std::shared_ptr<MemorySamples> random_samples(std::int64_t count, std::int64_t width,
                                                     std::int64_t classes, std::uint64_t seed = 1) {
    core::Random random(seed, "memory samples");
    std::vector<float> x;
    std::vector<std::int64_t> labels;
    for (std::int64_t i = 0; i < count; ++i) {
        for (std::int64_t j = 0; j < width; ++j) x.push_back(static_cast<float>(random.normal()));
        labels.push_back(random.below(classes));
    }
    return std::make_shared<MemorySamples>(width, std::move(x), std::move(labels));
}

}  // namespace thalweg::testing
