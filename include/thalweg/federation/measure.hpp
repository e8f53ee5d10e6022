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
    /// Client ids of the pairs that `analysis.pairs` names; empty: measures draw their own.
    const std::vector<std::pair<std::int64_t, std::int64_t>>& pairs;
};

/// Something measured while a round is fused. Registry kind `measure`; made anew for every round. All calls are
/// collective, and every result is the same on every rank and for any number of ranks.
class Measure {
  public:
    virtual ~Measure() = default;
    /// UsageError for options that do not fit the model; asked before anybody trains. Not collective.
    virtual void check(const model::ModelGraph& graph) const {}
    /// Works with clients of several widths: it does not compare their models coordinate by coordinate.
    virtual bool takes_any_width() const { return false; }
    /// Takes statistics anew on the server's hold-out, which there must be, and mends models with them, whose batch norms no
    /// stage may have folded.
    virtual bool mends() const { return false; }
    /// Before the first stage: the updates as the clients sent them.
    virtual void begin(const aggregator::FusionState& state, const RoundView& view) {}
    /// After stage `index` of the pipeline.
    virtual void after(std::size_t index, const aggregator::FusionState& state, const RoundView& view) {}
    /// After the server optimizer: `state.merged` is the new global model. Returns what goes into the round's record
    /// under the measure's name.
    virtual record::Json finish(const aggregator::FusionState& state, const RoundView& view) = 0;
    /// A few numbers that the round's own line in rounds.jsonl holds, too, beside analysis.jsonl, which has all measures.
    virtual bool brief() const { return false; }
    /// Those few of what finish() returned: all but what is of single clients (`by_client`) and pairs (`by_pair`), which is for
    /// analysis.jsonl alone.
    virtual record::Json headline(record::Json all) const;
};

/// Registers a measure. Adds the options that all have: `every` and `rounds`, the rounds it is made in, and `as`, the name it
/// is recorded under.
struct MeasureRegistration {
    MeasureRegistration(core::PluginInfo info, core::Registry<std::unique_ptr<Measure>>::Factory factory);
};

/// Whether the measure that `options` describes is made in `round`: in its own `rounds`, or every so many, else as
/// `analysis` (the resolved section) says; `last`: the last round, which counts among every so many.
bool is_measured(const core::Value& options, const core::Value& analysis, std::int64_t round,
                 std::int64_t last);
/// The name a measure is recorded under: `as`, or its own.
std::string recorded_name(const core::Value& options);
/// UsageError for two measures that would be recorded under one name, or one under a name that a round's line has already.
void require_own_names(const core::Value& analysis);
/// UsageError, at its place, for a measure that does not fit the model, or mends what a stage has folded. Not collective.
void require_fitting_measures(const core::Value& analysis, const aggregator::Pipeline& pipeline,
                              const model::ModelGraph& graph);
/// Client ids of `analysis.pairs`, written `0-3`. UsageError at the place of one that is not so written.
std::vector<std::pair<std::int64_t, std::int64_t>> chosen_pairs(const core::Value& analysis);

/// The pairs a measure looks at: those chosen whose clients both take part in the round, or `count` drawn ones. Indexes
/// into context.members.
std::vector<std::pair<std::size_t, std::size_t>> measured_pairs(const RoundView& view, std::int64_t count);
/// A measured pair as a record names it, and as `analysis.pairs` does: its clients' ids, the smaller one first.
std::string pair_name(const RoundView& view, const std::pair<std::size_t, std::size_t>& pair);
/// `count` pairs of the round's clients, drawn by (seed, "pairs", round). Indexes into context.members.
std::vector<std::pair<std::size_t, std::size_t>> sample_pairs(const aggregator::FusionContext& context,
                                                              std::int64_t count);
/// The model of a member on every rank. Collective.
aggregator::Update fetch_update(std::size_t member, const aggregator::FusionState& state,
                                const aggregator::FusionContext& context);

}  // namespace thalweg::federation
