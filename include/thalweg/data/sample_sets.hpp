#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "thalweg/data/dataset.hpp"

namespace thalweg::data {

/// Images kept as one byte a pixel and channel, normalised while they are gathered: (byte/255 −
/// mean)/deviation of the channel, looked up in a table of 256 floats that were rounded once from double.
class ByteImages final : public SampleSet {
  public:
    /// `images` [count, channels, pixels] and `labels` [count] live as long as `owner` does.
    ByteImages(std::shared_ptr<const void> owner, std::span<const std::uint8_t> images,
               std::span<const std::uint8_t> labels, const Normalisation& normalisation);
    std::int64_t size() const override { return static_cast<std::int64_t>(labels_.size()); }
    std::int64_t label(std::int64_t index) const override { return labels_[static_cast<std::size_t>(index)]; }
    std::int64_t width() const override { return static_cast<std::int64_t>(tables_.size() * pixels_); }
    void gather(std::span<const std::int64_t> indices, float* x, std::int64_t* y) const override;

  private:
    std::shared_ptr<const void> owner_;
    std::span<const std::uint8_t> images_;
    std::span<const std::uint8_t> labels_;
    std::vector<std::array<float, 256>> tables_;  // one a channel
    std::size_t pixels_ = 0;
};

/// Samples kept as floats, ready to be copied.
class FloatSamples final : public SampleSet {
  public:
    /// `samples` [count, width] and `labels` [count] live as long as `owner` does.
    FloatSamples(std::shared_ptr<const void> owner, std::span<const float> samples,
                 std::span<const std::uint8_t> labels, std::int64_t width);
    /// Owns them.
    FloatSamples(std::vector<float> samples, std::vector<std::uint8_t> labels, std::int64_t width);
    std::int64_t size() const override { return static_cast<std::int64_t>(labels_.size()); }
    std::int64_t label(std::int64_t index) const override { return labels_[static_cast<std::size_t>(index)]; }
    std::int64_t width() const override { return static_cast<std::int64_t>(width_); }
    void gather(std::span<const std::int64_t> indices, float* x, std::int64_t* y) const override;

  private:
    std::shared_ptr<const void> owner_;
    std::span<const float> samples_;
    std::span<const std::uint8_t> labels_;
    std::size_t width_;
};

}  // namespace thalweg::data
