#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "thalweg/data/dataset.hpp"

namespace thalweg::data {

/// Every sample is `length` characters and the one behind them; windows begin `stride` characters apart.
struct WindowShape {
    std::int64_t length;
    std::int64_t stride;

    /// Windows of a stretch of `characters`.
    std::int64_t count(std::int64_t characters) const {
        return characters > length ? (characters - length - 1) / stride + 1 : 0;
    }
};

/// Characters begin…end-1 of a text, which windows do not leave.
struct Stretch {
    std::int64_t begin;
    std::int64_t end;
};

/// The windows of some stretches of a text. None is kept: sample i is the place where its window begins, found from i.
class TextWindows final : public SampleSet {
  public:
    /// `text`: class indices, one a byte, that live as long as `owner` does.
    TextWindows(std::shared_ptr<const void> owner, const std::uint8_t* text,
                const std::vector<Stretch>& stretches, WindowShape shape);
    std::int64_t size() const override { return first_.back(); }
    std::int64_t label(std::int64_t index) const override { return text_[begin_of(index) + shape_.length]; }
    std::int64_t width() const override { return shape_.length; }
    /// x: the characters' class indices as floats.
    void gather(std::span<const std::int64_t> indices, float* x, std::int64_t* y) const override;
    /// The first sample of stretch `stretch`; that of the one behind the last is size().
    std::int64_t first(std::size_t stretch) const { return first_[stretch]; }

  private:
    std::int64_t begin_of(std::int64_t index) const;

    std::shared_ptr<const void> owner_;
    const std::uint8_t* text_;
    WindowShape shape_;
    std::vector<std::int64_t> begins_;  // of the stretches in the text
    std::vector<std::int64_t> first_;   // samples before each stretch, and in all
};

}  // namespace thalweg::data
