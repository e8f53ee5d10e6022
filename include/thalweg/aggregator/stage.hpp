#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "thalweg/aggregator/statistics.hpp"
#include "thalweg/aggregator/update.hpp"
#include "thalweg/core/communicator.hpp"
#include "thalweg/core/registry.hpp"
#include "thalweg/model/graph.hpp"
#include "thalweg/symmetry/symmetry.hpp"

namespace thalweg::aggregator {

enum class StageKind {
    per_update,    ///< changes each update on the rank that holds it
    cross_update,  ///< looks at all updates at once
    reduction,     ///< makes one model of them
    finisher,      ///< mends the merged model
};

/// What a stage promises and needs; pipelines are checked against it before anything runs.
struct StageTraits {
    StageKind kind = StageKind::per_update;
    bool keeps_function = false;  ///< every update computes the same function afterwards
    bool keeps_decision = false;  ///< not the function, but its arg-max
    bool permutes = false;        ///< moves channels, by the model's permutation symmetries
    bool changes_frame = false;   ///< the merged model may lie in another frame than the previous global one
    bool needs_anchor = false;
    bool needs_start = false;      ///< the models the clients' trainings started from
    bool takes_any_width = false;  ///< updates of other widths than the round's; afterwards all have the same
    bool grows = false;            ///< the merged model may have another architecture than the round's
    bool sets_mask = false;
    bool uses_mask = false;
    bool needs_holdout = false;  ///< the server's samples
    bool needs_clients = false;  ///< asks the clients for statistics
    int min_holdout = 1;         ///< the fewest samples of the server's that make sense, when it needs any
    bool needs_base =
        false;  ///< the previous global model (a task vector's base); refused where there is none
    /// Compares the updates with the previous global model coordinate by coordinate.
    bool needs_global_frame = false;
    /// Plays what happens at the clients (corrupted ones, say), before the server sees the updates: any stage may follow.
    bool plays_clients = false;
    /// One common permutation of all models permutes the result; false where random draws meet coordinates.
    bool frame_free = true;
    bool upper_mark =
        false;  ///< shows what could be had with data that merging does not have; no merging method
    std::vector<std::int64_t> names_clients{};  ///< ids of clients that the options speak of
    /// Leaves batch norms that are the identity by their running statistics alone: whoever takes others makes another model.
    bool folds_norms = false;
    bool recomputes_norms = false;   ///< takes batch norms' statistics anew, or runs them in training mode
    bool needs_homogeneous = false;  ///< positively homogeneous activations (ReLU, leaky ReLU, PReLU)
    bool sets_own = false;           ///< puts the client's model aside (Update::own) and another in its place
    /// Of reductions: trainable entries of the result are Σ w_k θ_k of the updates; of finishers: they stay as they were.
    bool linear = false;
    bool needs_linear =
        false;  ///< of finishers: presumes a linear reduction, and nothing that bends its result
    bool fixed_point = true;  ///< identical models (and an identical global one) come out as they were
};

/// What all stages of one fusion share. The same on every rank.
struct FusionContext {
    const model::ModelGraph& graph;
    const symmetry::Symmetries& symmetries;
    core::Communicator& communicator;
    std::uint64_t seed = 0;
    std::int64_t round = 0;
    std::vector<Member> members;                ///< all clients of the round, by client id
    const model::Parameters* global = nullptr;  ///< previous global model; nullptr: there is none (round 1)
    StatisticsSource* server = nullptr;         ///< nullptr: no hold-out
    StatisticsSource* clients = nullptr;        ///< nullptr: clients cannot be asked (offline without data)
    std::shared_ptr<const data::SampleSet>
        holdout;  ///< the server's samples, for activation matching; may be null
};

/// A model's graph and what may be permuted in it.
struct Architecture {
    model::ModelGraph graph;
    symmetry::Symmetries symmetries;
};

/// What the stages work on: this rank's updates (by client id) and, after the reduction, the merged model (the same on
/// every rank).
struct FusionState {
    std::vector<Update> updates;
    model::Parameters merged;
    /// w_k that the reduction used, in the members' order; empty before it.
    std::vector<double> weights{};
    /// Of updates and merged model where a stage has changed it (see StageTraits::grows); nullptr: the context's.
    std::shared_ptr<const Architecture> architecture{};
};

/// Numbers a stage wants to see in the record: (name, value), the same on every rank.
using StageNotes = std::vector<std::pair<std::string, double>>;

/// A step of the fusion pipeline. Registry kind `stage`; factories get the resolved options only.
class Stage {
  public:
    virtual ~Stage() = default;
    virtual StageTraits traits() const = 0;
    /// Collective: every rank calls it, and errors are agreed on before it returns. Puts new tensors into the state and
    /// writes into none that it found there (see Update).
    virtual StageNotes apply(FusionState& state, const FusionContext& context) const = 0;
};

/// What the stage states of itself in words, one line each: kind, needs, what it keeps, cost. With the options as `options`
/// resolves them.
std::vector<std::string> contract_of(const core::PluginInfo& info, const core::Value& options);

using StageRegistration = core::Registration<std::unique_ptr<Stage>>;

/// A stage that treats every update by itself, on its rank.
class PerUpdateStage : public Stage {
  public:
    StageNotes apply(FusionState& state, const FusionContext& context) const override;

  protected:
    /// `anchor` is undefined unless traits().needs_anchor. Not collective.
    virtual void treat(Update& update, const model::Parameters& anchor,
                       const FusionContext& context) const = 0;
    /// Which anchor `apply` resolves: `global`, `first` or `largest`.
    virtual std::string anchor() const { return "global"; }
};

/// The model the others are aligned to, on every rank: `global` (the previous global model; in round 1, when there is
/// none, `first`), `first` (lowest client id) or `largest` (most samples; lowest id among equals). Collective.
model::Parameters resolve_anchor(const std::string& which, const FusionState& state,
                                 const FusionContext& context);

/// All updates of the round on every rank, by client id (this rank's own share memory). Collective. For stages that
/// look at all of them; memory: cohort × model.
std::vector<Update> gather_updates(const FusionState& state, const FusionContext& context);

struct StageReport {
    std::string name;
    double seconds = 0;
    std::uint64_t bytes = 0;  ///< that all ranks sent each other for it
    StageNotes notes;
};

/// RunError that names the client and the tensor when a model, or the one its training started from, holds a NaN or an
/// infinity. Not collective.
void refuse_non_finite(const std::vector<Update>& updates);
/// RunError that names the stage and the tensor when the merged model does. Every rank has the same one. Not collective.
void refuse_non_finite(const model::Parameters& merged, const std::string& stage);

/// A checked sequence of stages: alignments, one reduction, finishers.
class Pipeline {
  public:
    /// `stages`: the resolved `server.fusion` list. UsageError (naming the stage's place) for an order that makes no
    /// sense: no reduction or two, an alignment after it, a finisher before it, a mask nobody can use, a finisher that
    /// presumes a plain mean after what is none.
    explicit Pipeline(const core::Value& stages);
    /// The short form `weight_matching+mean+repair` or with options `mean(weights=uniform)`, as `fuse --pipeline`
    /// takes it. UsageError (with the form and the whole text) for what cannot be read.
    static Pipeline parse(const std::string& text);

    struct Item {
        std::string name;
        core::Value options;
        std::unique_ptr<Stage> stage;
        StageTraits traits;
    };
    const std::vector<Item>& items() const { return items_; }
    const core::Value& options() const { return options_; }
    bool needs_holdout() const;
    bool needs_clients() const;
    bool permutes() const;
    bool changes_frame() const;
    bool needs_start() const;
    /// The merged model's batch norms are folded away in evaluation only (where it has any): training on from it starts
    /// from another function.
    bool folds_norms() const;
    std::size_t reduction() const { return reduction_; }  ///< index of the reduction
    /// UsageError, at the stage's place, when a stage needs the server's hold-out or the clients' statistics and there
    /// are none. `run` asks too, but a command should before it trains anybody.
    void require_sources(bool holdout, bool clients) const;

    /// Called after each stage with its index and the state (the same call on every rank).
    using Observer = std::function<void(std::size_t index, const FusionState& state)>;
    /// Runs all stages; state.merged is the fused model afterwards. RunError that names the client when a model holds a
    /// NaN or an infinity (the client's, or the one its training started from), or the stage after which the fused one
    /// does: such a model is never averaged in silently. UsageError before anything is computed where a stage recomputes
    /// batch norms that another has folded, and the model has any. Collective.
    std::vector<StageReport> run(FusionState& state, const FusionContext& context,
                                 const Observer& observer = {}) const;

  private:
    void check_order() const;
    void require_one_width(const FusionContext& context) const;
    void require_base(const FusionState& state, const FusionContext& context) const;
    void require_unfolded(const FusionContext& context) const;
    std::vector<Item> items_;
    core::Value options_;
    std::size_t reduction_ = 0;
};

/// The resolved options of one stage in the short form, `weight_matching` or `mean(weights=uniform)`. UsageError.
core::Value parse_stage(const std::string& text);

/// The exact weighted mean: summed in client-id order in double, each rank computing its slice of the vector after one
/// exchange, renormalised entry by entry over the masks (an entry masked everywhere takes the plain mean). Counters take
/// the maximum. `weights` w_k in the members' order. The same bits on any number of ranks. RunError that names client and
/// tensor when an update holds a NaN or an infinity. Collective; the result is on every rank.
model::Parameters mean(const std::vector<Update>& updates, const FusionContext& context,
                       const std::vector<double>& weights);

}  // namespace thalweg::aggregator
