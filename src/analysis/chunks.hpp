#pragma once

#include <torch/types.h>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

#include "thalweg/data/dataset.hpp"

namespace thalweg::analysis {

/// Samples that are evaluated together. Fixed, because another batch size gives other bits in BLAS.
constexpr std::int64_t chunk_samples = 500;

inline std::int64_t chunk_count(const data::SampleSet& samples) {
    return (samples.size() + chunk_samples - 1) / chunk_samples;
}

struct Chunk {
    at::Tensor x;  ///< [n, sample shape…] of the wanted type
    at::Tensor y;  ///< [n] int64
};

inline Chunk load_chunk(const data::SampleSet& samples, std::int64_t chunk,
                        const std::vector<std::int64_t>& shape, at::ScalarType type) {
    const std::int64_t first = chunk * chunk_samples, n = std::min(chunk_samples, samples.size() - first);
    std::vector<std::int64_t> indices(static_cast<std::size_t>(n));
    std::iota(indices.begin(), indices.end(), first);
    std::vector<std::int64_t> sizes = shape;
    sizes.insert(sizes.begin(), n);
    Chunk loaded{at::empty(sizes, at::kFloat), at::empty({n}, at::kLong)};
    samples.gather(indices, loaded.x.data_ptr<float>(), loaded.y.data_ptr<std::int64_t>());
    loaded.x = loaded.x.to(type);
    return loaded;
}

}  // namespace thalweg::analysis
