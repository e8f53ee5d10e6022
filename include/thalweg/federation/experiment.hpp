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
    std::int64_t analyse_every = 1;
    std::int64_t checkpoint_every = 1;
    std::int64_t keep_checkpoints = 0;
};

/// The schema of a configuration file, for validation and documentation.
core::Schema experiment_schema();

/// Validates a parsed configuration with `overrides` (`key.path=value`) applied. Everything that can be checked without
/// data is: keys, types, ranges, plug-in names, the order of the fusion pipeline, what its stages need. UsageError.
Experiment make_experiment(core::Value config, const std::vector<std::string>& overrides);
/// Reads a YAML file and validates it; `name` defaults to the file's stem.
Experiment load_experiment(const std::filesystem::path& path, const std::vector<std::string>& overrides);

/// What an experiment's sections stand for once the data is open.
struct Setting {
    std::shared_ptr<const data::Dataset> dataset;
    model::ModelGraph graph;
    symmetry::Symmetries symmetries;
};
/// Opens the data set and builds the model. Collective.
Setting open_setting(const Experiment& experiment, core::Communicator& communicator);

/// The initial model of `client` (its own with `init: independent`), or the shared one for client −1.
model::Parameters initial_model(const model::ModelGraph& graph, std::uint64_t seed, std::int64_t client);

/// What a model file says of its origin: `data` and `seed`, read back by `eval --data` defaults.
std::map<std::string, std::string> model_meta(const Experiment& experiment);

}  // namespace thalweg::federation
