#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "thalweg/backend/backend.hpp"
#include "thalweg/core/communicator.hpp"
#include "thalweg/data/dataset.hpp"
#include "thalweg/federation/experiment.hpp"
#include "thalweg/model/model_file.hpp"
#include "thalweg/record/json.hpp"
#include "thalweg/record/record.hpp"

namespace thalweg::app {

using record::Json;

/// What every command works with.
struct Context {
    backend::Backend& backend;
    core::Communicator& communicator;
    bool is_root;
    /// Set by the command that was named; main runs it after the command line has been read.
    std::function<void()> action;

    /// Results: stdout, rank 0 alone.
    void print(const std::string& text) const;
    /// Exactly one JSON document.
    void print(const Json& json) const { print(record::json_text(json, 2) + "\n"); }
};

// One function a command, each in commands/<name>.cpp; adds the subcommand with its options and help.
void add_run(CLI::App& program, Context& context);
void add_validate(CLI::App& program, Context& context);
void add_list(CLI::App& program, Context& context);
void add_partition(CLI::App& program, Context& context);
void add_train(CLI::App& program, Context& context);
void add_eval(CLI::App& program, Context& context);
void add_align(CLI::App& program, Context& context);
void add_fuse(CLI::App& program, Context& context);
void add_compare(CLI::App& program, Context& context);
void add_report(CLI::App& program, Context& context);
void add_lmc(CLI::App& program, Context& context);
void add_signs(CLI::App& program, Context& context);
void add_symmetry(CLI::App& program, Context& context);
void add_valley(CLI::App& program, Context& context);
void add_surface(CLI::App& program, Context& context);
void add_variance(CLI::App& program, Context& context);
void add_hessian(CLI::App& program, Context& context);
void add_cka(CLI::App& program, Context& context);
void add_flatness(CLI::App& program, Context& context);
void add_support(CLI::App& program, Context& context);
void add_instability(CLI::App& program, Context& context);
void add_serve(CLI::App& program, Context& context);
void add_study(CLI::App& program, Context& context);

/// `CONFIG` and `key.path=value…`, shared by run, validate, partition and train.
struct ConfigArguments {
    std::string config;
    std::vector<std::string> overrides;
    void add_to(CLI::App& command);
    /// Reads and validates on every rank. Collective.
    federation::Experiment load(const Context& context) const;
};

/// `--model`, `--data`, `--seed`, `--json` and how models and data are found from them.
struct ModelArguments {
    std::string model;  ///< architecture of bare state_dicts: YAML text or a file with a `model` section
    std::string data;   ///< NAME[:PATH] or `{kind: …}`; empty: what the model file says
    std::uint64_t seed = 0;
    std::optional<std::int64_t>
        holdout;  ///< training samples for matching and REPAIR (default: 1000, or all)
    bool json = false;

    void add_model_to(CLI::App& command);
    void add_data_to(CLI::App& command);
    void add_holdout_to(CLI::App& command, const std::string& use = "activation matching and REPAIR");
    void add_json_to(CLI::App& command);

    /// Reads the files on every rank and makes sure that all have one architecture, unless any is welcome. Collective.
    std::vector<model::ModelFile> load(const Context& context, const std::vector<std::string>& paths,
                                       bool any_architecture = false) const;
    /// Opens the data given or named by `file`; nullptr when neither says and `required` is false. UsageError when the
    /// samples do not fit the model. Collective.
    std::shared_ptr<const data::Dataset> open(const Context& context, const model::ModelFile& file,
                                              const std::string& path, bool required) const;
    /// `holdout` samples drawn from the training set by `seed`.
    std::shared_ptr<const data::SampleSet> calibration(const data::Dataset& dataset) const;
    /// What goes into the meta of a model made from `file`.
    std::map<std::string, std::string> meta(const model::ModelFile& file) const;
};

/// Checks that `path` can be written before hours are spent on what is to be written there. Collective.
void require_writable(const Context& context, const std::string& path);

Json to_json(const core::Value& value);

}  // namespace thalweg::app
