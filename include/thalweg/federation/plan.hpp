#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "thalweg/aggregator/update.hpp"
#include "thalweg/core/random.hpp"
#include "thalweg/core/registry.hpp"
#include "thalweg/data/partition.hpp"
#include "thalweg/federation/experiment.hpp"

namespace thalweg::federation {

/// Chooses the clients of a round. Registry kind `sampler`.
class Sampler {
  public:
    virtual ~Sampler() = default;
    /// Client ids in increasing order, at least one.
    virtual std::vector<std::int64_t> sample(const data::FederatedData& data, core::Random& random) const = 0;
};
using SamplerRegistration = core::Registration<std::unique_ptr<Sampler>>;

/// The clients of round `round` with their sample counts and the rank that trains each: by work (steps of local
/// training), largest first. A function of the experiment, the data and the number of ranks alone; who is in does not
/// depend on the ranks.
std::vector<aggregator::Member> plan_round(const Experiment& experiment, const data::FederatedData& data,
                                           std::int64_t round, int ranks);

}  // namespace thalweg::federation
