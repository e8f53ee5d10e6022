#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "thalweg/model/parameters.hpp"

namespace thalweg::aggregator {

/// What a client sends.
struct Update {
    std::int64_t client = 0;
    std::int64_t samples = 0;
    model::Parameters parameters;
    /// Entries that take part in the mean: bool [layout.trainable_size()]; undefined: all.
    at::Tensor mask;
};

/// A client of the round as every rank knows it.
struct Member {
    std::int64_t client = 0;
    std::int64_t samples = 0;
    int owner = 0;  ///< rank that holds its update
};

enum class Weighting { samples, uniform };

/// w_k, summing to 1, in the members' order.
std::vector<double> weights(const std::vector<Member>& members, Weighting weighting);

}  // namespace thalweg::aggregator
