#include "text_windows.hpp"

#include <algorithm>
#include <utility>

namespace thalweg::data {

TextWindows::TextWindows(std::shared_ptr<const void> owner, const std::uint8_t* text,
                         const std::vector<Stretch>& stretches, WindowShape shape)
    : owner_(std::move(owner)), text_(text), shape_(shape), first_{0} {
    for (const Stretch& stretch : stretches) {
        begins_.push_back(stretch.begin);
        first_.push_back(first_.back() + shape_.count(stretch.end - stretch.begin));
    }
}

std::int64_t TextWindows::begin_of(std::int64_t index) const {
    const auto behind = std::upper_bound(first_.begin(), first_.end(), index);
    const auto stretch = static_cast<std::size_t>(behind - first_.begin()) - 1;
    return begins_[stretch] + (index - first_[stretch]) * shape_.stride;
}

void TextWindows::gather(std::span<const std::int64_t> indices, float* x, std::int64_t* y) const {
    for (const std::int64_t index : indices) {
        const std::uint8_t* window = text_ + begin_of(index);
        x = std::copy_n(window, shape_.length, x);
        *y++ = window[shape_.length];
    }
}

}  // namespace thalweg::data
