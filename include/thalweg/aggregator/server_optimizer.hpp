#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "thalweg/core/registry.hpp"
#include "thalweg/model/parameters.hpp"

namespace thalweg::aggregator {

/// Makes the new global model of the previous one and the fused one. Registry kind `server_optimizer`.
class ServerOptimizer {
  public:
    virtual ~ServerOptimizer() = default;
    /// `previous` is undefined in a round that has no global model yet; then the fused model is taken.
    virtual model::Parameters step(const model::Parameters& previous, const model::Parameters& fused) = 0;
};

using ServerOptimizerRegistration = core::Registration<std::unique_ptr<ServerOptimizer>>;

}  // namespace thalweg::aggregator
