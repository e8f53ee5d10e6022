#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "thalweg/aggregator/server_optimizer.hpp"
#include "thalweg/aggregator/stage.hpp"
#include "thalweg/clients/training.hpp"
#include "thalweg/federation/experiment.hpp"
#include "thalweg/record/record.hpp"
#include "thalweg/symmetry/flips.hpp"

namespace thalweg::federation {

/// What came of the local trainings of a round.
struct CohortResult {
    std::vector<aggregator::Member> members;       ///< those whose update counts
    std::vector<aggregator::Update> updates;       ///< this rank's
    record::Json clients = record::Json::array();  ///< one object a client, by id
    record::Json failures =
        record::Json::array();  ///< clients that diverged, where the run goes on without them
    double loss = 0;            ///< mean over clients, by samples
};

/// The clients' side of a round: every rank trains the virtual clients that the plan gives it. One a rank; keeps
/// references to all it is made of.
class Cohort {
  public:
    Cohort(const Experiment& experiment, const Setting& setting, const data::FederatedData& data,
           core::Communicator& communicator);
    /// Called now and then with the fraction of this rank's work that is done.
    using Progress = std::function<void(double fraction, const std::string& what)>;
    /// The round's cohort from `start`; undefined: every client from its own initialisation. RunError when a client
    /// diverges (or all do, with `on_failure: continue`). `keep_start`: the updates say what they started from. Collective.
    CohortResult train(std::int64_t round, const model::Parameters& start, bool keep_start,
                       const Progress& progress);

  private:
    CohortResult collect(const record::Json& mine, const std::vector<aggregator::Member>& members,
                         std::vector<aggregator::Update> updates, std::int64_t round) const;
    clients::LocalTrainer& trainer_of(std::int64_t client) const;

    const Experiment& experiment_;
    const Setting& setting_;
    const data::FederatedData& data_;
    core::Communicator& communicator_;
    std::unique_ptr<clients::LocalTrainer> trainer_;
    std::vector<std::unique_ptr<clients::LocalTrainer>>
        own_;  ///< of setting.client_graphs; nullptr: trainer_
};

/// The server's side after the fusion: brings the fused model into the previous global model's frame, where a stage may
/// have left it, and lets the server optimizer make the next global model of the two.
class ServerStep {
  public:
    ServerStep(const Experiment& experiment, const Setting& setting, core::Communicator& communicator);
    /// `global`: the previous one (undefined: none), and the next one afterwards, the same on every rank. `state.merged` and
    /// the updates are moved with the frame; `state.merged` is the next global model afterwards. Collective.
    void apply(std::int64_t round, const aggregator::Pipeline& pipeline, aggregator::FusionState& state,
               model::Parameters& global);
    aggregator::ServerOptimizer& optimizer() { return *optimizer_; }

  private:
    symmetry::Element back_to_global(std::int64_t round, const model::Parameters& global,
                                     const model::Parameters& fused);

    const Experiment& experiment_;
    const Setting& setting_;
    core::Communicator& communicator_;
    std::unique_ptr<aggregator::ServerOptimizer> optimizer_;  ///< counts on rank 0
};

/// The parameters of rank 0 to all; `parameters` may be undefined elsewhere. Collective.
void broadcast_model(model::Parameters& parameters, const model::ModelGraph& graph,
                     core::Communicator& communicator);

}  // namespace thalweg::federation
