#include <algorithm>
#include <numeric>
#include <stdexcept>

#include "thalweg/clients/training.hpp"

namespace thalweg::clients {

BatchOrder::BatchOrder(std::uint64_t seed, std::int64_t round, std::int64_t client, std::int64_t samples,
                       std::int64_t batch_size)
    : random_(seed, "batches", round, client), batch_size_(batch_size) {
    if (samples < 1 || batch_size < 1)
        throw std::invalid_argument("BatchOrder: samples and batch_size must be >= 1");
    order_.resize(static_cast<std::size_t>(samples));
    std::iota(order_.begin(), order_.end(), std::int64_t{0});
    position_ = order_.size();  // so that the first call shuffles
}

std::span<const std::int64_t> BatchOrder::next() {
    if (position_ == order_.size()) {
        random_.shuffle(std::span(order_));
        position_ = 0;
    }
    const std::size_t count = std::min(static_cast<std::size_t>(batch_size_), order_.size() - position_);
    const auto batch = std::span<const std::int64_t>(order_).subspan(position_, count);
    position_ += count;
    return batch;
}

std::int64_t BatchOrder::batches_per_epoch() const {
    const auto samples = static_cast<std::int64_t>(order_.size());
    return (samples - 1) / batch_size_ + 1;
}

}  // namespace thalweg::clients
