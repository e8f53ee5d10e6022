#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "thalweg/aggregator/stage.hpp"
#include "thalweg/clients/training.hpp"
#include "thalweg/core/schema.hpp"
#include "thalweg/core/value.hpp"
#include "thalweg/data/partition.hpp"

namespace thalweg::federation {

/// A validated configuration. Immutable; the same on every rank.
struct Experiment {
    core::Value config;  ///< resolved: every default filled in, plug-ins as `{kind: name, …}`
    std::string name;
    std::uint64_t seed = 1;
    clients::TrainingPlan plan;
    bool independent_initialisation = false;
    bool continue_on_failure = false;
    std::int64_t rounds = 1;
    std::int64_t holdout = 0;
    std::int64_t evaluate_every = 1;
    /// Client ids of `analysis.pairs`; empty: measures draw their own.
    std::vector<std::pair<std::int64_t, std::int64_t>> pairs{};
    std::int64_t checkpoint_every = 1;
    std::int64_t keep_checkpoints = 0;
    std::string serve;  ///< address of the live page; empty: none
    std::string token;  ///< of the live page; kept out of `config`, which is written to the run's folder
};

/// The schema of a configuration file, for validation and documentation.
core::Schema experiment_schema();

/// Validates a parsed configuration with `overrides` (`key.path=value`) applied. Everything that can be checked without
/// data is: keys, types, ranges, plug-in names, the order of the fusion pipeline, what its stages need. UsageError, with the
/// fault's path below `config`'s own.
Experiment make_experiment(core::Value config, const std::vector<std::string>& overrides);
/// Reads a YAML file and validates it; `name` defaults to the file's stem.
Experiment load_experiment(const std::filesystem::path& path, const std::vector<std::string>& overrides);

/// UsageError, at the stage's place, for a pipeline that needs what the experiment has not: a hold-out (large enough), a
/// global model in round 1. A stage that needs data nobody has is found before anything is computed.
void require_fitting(const Experiment& experiment, const aggregator::Pipeline& pipeline);

/// UsageError for a pipeline whose model the clients of a next round could not go on from: one that folds batch norms, in an
/// experiment of several rounds on a graph that has some.
void require_next_rounds(const Experiment& experiment, const aggregator::Pipeline& pipeline,
                         const model::ModelGraph& graph);

/// What an experiment's sections stand for once the data is open.
struct Setting {
    std::shared_ptr<const data::Dataset> dataset;
    model::ModelGraph graph;
    symmetry::Symmetries symmetries;
    /// Architectures of `clients.models`; nullptr: the round's own. Empty: all clients have that.
    std::vector<std::shared_ptr<const model::ModelGraph>> client_graphs{};
    /// Of one client; nullptr: the round's own.
    std::shared_ptr<const model::ModelGraph> graph_of(std::int64_t client) const {
        if (client_graphs.empty()) return nullptr;
        return client_graphs[static_cast<std::size_t>(client) % client_graphs.size()];
    }
};
/// Opens the data set (unless it is there) and builds the model. Collective.
Setting open_setting(const Experiment& experiment, core::Communicator& communicator,
                     std::shared_ptr<const data::Dataset> dataset = nullptr);

/// The initial model of `client` (its own with `init: independent`), or the shared one for client −1.
model::Parameters initial_model(const model::ModelGraph& graph, std::uint64_t seed, std::int64_t client);

/// What a model file says of its origin: `data` and `seed`, read back by `eval --data` defaults.
std::map<std::string, std::string> model_meta(const Experiment& experiment);

}  // namespace thalweg::federation
