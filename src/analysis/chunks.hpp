#pragma once

#include <torch/types.h>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

#include "thalweg/data/dataset.hpp"

namespace thalweg::analysis {

/// Chunks that `samples` are evaluated in, `at_once` samples each (model::samples_at_once).
inline std::int64_t chunk_count(const data::SampleSet& samples, std::int64_t at_once) {
    return (samples.size() + at_once - 1) / at_once;
}

struct Chunk {
    at::Tensor x;  ///< [n, sample shape…] of the wanted type
    at::Tensor y;  ///< [n] int64
};

inline Chunk load_chunk(const data::SampleSet& samples, std::int64_t chunk, std::int64_t at_once,
                        const std::vector<std::int64_t>& shape, at::ScalarType type) {
    const std::int64_t first = chunk * at_once, n = std::min(at_once, samples.size() - first);
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
