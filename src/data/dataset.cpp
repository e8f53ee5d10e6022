#include "thalweg/data/dataset.hpp"

#include <algorithm>
#include <array>
#include <stdexcept>
#include <utility>

#include "thalweg/core/registry.hpp"

namespace thalweg::data {

Subset::Subset(std::shared_ptr<const SampleSet> base, std::vector<std::uint32_t> indices)
    : base_(std::move(base)), owned_(std::move(indices)), indices_(owned_) {}

Subset::Subset(std::shared_ptr<const SampleSet> base, std::span<const std::uint32_t> indices,
               std::shared_ptr<const void> owner)
    : base_(std::move(base)), indices_(indices), owner_(std::move(owner)) {}

std::int64_t Subset::size() const {
    return static_cast<std::int64_t>(indices_.size());
}

std::int64_t Subset::label(std::int64_t index) const {
    return base_->label(indices_[static_cast<std::size_t>(index)]);
}

std::int64_t Subset::width() const {
    return base_->width();
}

void Subset::gather(std::span<const std::int64_t> indices, float* x, std::int64_t* y) const {
    // A batch is mostly smaller than this, so translating costs one pass over the stack and no allocation.
    std::array<std::int64_t, 256> translated;
    const auto sample_width = static_cast<std::size_t>(width());
    for (std::size_t begin = 0; begin < indices.size(); begin += translated.size()) {
        const std::size_t count = std::min(translated.size(), indices.size() - begin);
        for (std::size_t i = 0; i < count; ++i) {
            translated[i] = indices_[static_cast<std::size_t>(indices[begin + i])];
        }
        base_->gather({translated.data(), count}, x + begin * sample_width, y + begin);
    }
}

std::vector<NaturalPart> Dataset::natural_parts(const core::Value&) const {
    throw std::logic_error(name() + " has no natural clients in its training set");
}

std::int64_t Dataset::natural_size(std::int64_t) const {
    throw std::logic_error(name() + " has no natural clients");
}

std::shared_ptr<const SampleSet> Dataset::natural_client(std::int64_t) const {
    throw std::logic_error(name() + " has no natural clients");
}

std::shared_ptr<const SampleSet> Dataset::natural_holdout(std::int64_t) const {
    throw std::logic_error(name() + " has no natural clients");
}

std::shared_ptr<const Dataset> open_dataset(const core::Value& options, const DatasetContext& context) {
    return core::Registry<std::shared_ptr<const Dataset>, const DatasetContext&>::make(options, context);
}

}  // namespace thalweg::data
