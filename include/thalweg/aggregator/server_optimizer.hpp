#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "thalweg/core/registry.hpp"
#include "thalweg/model/parameters.hpp"

namespace thalweg::aggregator {

/// Makes the new global model of the previous one and the fused one. Registry kind `server_optimizer`. Lives through all
/// rounds of a run, on rank 0.
class ServerOptimizer {
  public:
    virtual ~ServerOptimizer() = default;
    /// `previous` is undefined in a round that has no global model yet; then the fused model is taken.
    virtual model::Parameters step(const model::Parameters& previous, const model::Parameters& fused) = 0;

    /// What it remembers from round to round, by name; written with every checkpoint, so that a resumed run goes on to the
    /// bit. Empty: nothing (yet).
    using Memory = std::vector<std::pair<std::string, at::Tensor>>;
    virtual Memory memory() const { return {}; }
    /// True when it has a memory after its first step.
    virtual bool keeps_memory() const { return false; }
    /// Puts back what `memory` gave, before the first step. RunError when it is not this optimizer's or not of this model.
    virtual void remember(const Memory& memory);
};

using ServerOptimizerRegistration = core::Registration<std::unique_ptr<ServerOptimizer>>;

}  // namespace thalweg::aggregator
