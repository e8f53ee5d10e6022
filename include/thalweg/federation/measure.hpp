#pragma once

#include <memory>
#include <string>

#include "thalweg/aggregator/stage.hpp"
#include "thalweg/core/registry.hpp"
#include "thalweg/data/partition.hpp"
#include "thalweg/record/record.hpp"

namespace thalweg::federation {

/// What a measure of a round may look at.
struct RoundView {
    const aggregator::Pipeline& pipeline;
    const aggregator::FusionContext& context;
    const data::FederatedData& data;
};

/// Something measured while a round is fused. Registry kind `measure`; made anew for every round. All calls are
/// collective, and every result is the same on every rank and for any number of ranks.
class Measure {
  public:
    virtual ~Measure() = default;
    /// Before the first stage: the updates as the clients sent them.
    virtual void begin(const aggregator::FusionState& state, const RoundView& view) {}
    /// After stage `index` of the pipeline.
    virtual void after(std::size_t index, const aggregator::FusionState& state, const RoundView& view) {}
    /// After the server optimizer: `state.merged` is the new global model. Returns what goes into the round's record
    /// under the measure's name.
    virtual record::Json finish(const aggregator::FusionState& state, const RoundView& view) = 0;
};
using MeasureRegistration = core::Registration<std::unique_ptr<Measure>>;

/// Both models of each pair on every rank, one pair at a time. Collective. Pairs are indexes into context.members.
std::vector<std::pair<std::size_t, std::size_t>> sample_pairs(const aggregator::FusionContext& context,
                                                              std::int64_t count);
aggregator::Update fetch_update(std::size_t member, const aggregator::FusionState& state,
                                const aggregator::FusionContext& context);

}  // namespace thalweg::federation
