#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "thalweg/model/graph.hpp"
#include "thalweg/model/parameters.hpp"

namespace thalweg::aggregator {

/// What a client sends. Tensors are shared, never written: a stage that changes an update (or the merged model) puts a
/// new tensor in place of the old one, so that whoever kept the old one (an observer, a second pipeline over the same
/// updates) still has it.
struct Update {
    std::int64_t client = 0;
    std::int64_t samples = 0;
    model::Parameters parameters;
    /// Entries that take part in the mean: bool [layout.trainable_size()]; undefined: all.
    at::Tensor mask;
    /// The client's model as it was before a stage changed its function (attenuated signs): what finishers and measures
    /// take for the client's; undefined: `parameters`.
    model::Parameters own{};
    /// The model the client's training started from; undefined unless the pipeline needs it (StageTraits::needs_start).
    model::Parameters start{};
    /// The client's own architecture where it is not the round's (other widths); its parameters are of that until a stage
    /// brings them to the round's widths. nullptr: the round's.
    std::shared_ptr<const model::ModelGraph> graph{};
};

/// A client of the round as every rank knows it.
struct Member {
    std::int64_t client = 0;
    std::int64_t samples = 0;
    int owner = 0;                                     ///< rank that holds its update
    std::shared_ptr<const model::ModelGraph> graph{};  ///< as the update has it, on every rank
};

enum class Weighting { samples, uniform };

/// w_k, summing to 1, in the members' order. UsageError when they are to go by samples and nobody has any.
std::vector<double> weights(const std::vector<Member>& members, Weighting weighting);

/// Of an option's text: `samples` or `uniform`.
Weighting weighting_of(const std::string& name);

}  // namespace thalweg::aggregator
