#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "thalweg/analysis/evaluate.hpp"
#include "thalweg/clients/training.hpp"
#include "thalweg/core/communicator.hpp"
#include "thalweg/federation/experiment.hpp"
#include "thalweg/record/record.hpp"

namespace thalweg::study {

using record::Json;

/// What models are trained and measured on: an experiment with its data open and its model built. Immutable; made by
/// Workbench::laboratory, the same on every rank.
struct Laboratory {
    federation::Experiment experiment;
    federation::Setting setting;
    std::shared_ptr<const data::SampleSet>
        train;  ///< samples.train of the training set, drawn by the experiment’s seed, or all
    std::shared_ptr<const data::SampleSet> test;         ///< likewise of the test set
    std::shared_ptr<const data::SampleSet> calibration;  ///< training samples for matching and REPAIR

    const model::ModelGraph& graph() const { return setting.graph; }
    /// On the test samples, on this rank alone.
    analysis::Evaluation test_score(const model::Parameters& parameters) const;
    /// On the training samples, on this rank alone.
    analysis::Evaluation train_score(const model::Parameters& parameters) const;
    /// The models merged by a pipeline in the short form (`weight_matching+mean+repair`), on this rank alone, with equal
    /// weights and `calibration` as the server's hold-out. UsageError for a pipeline that cannot be read or needs more.
    model::Parameters fuse(const std::vector<model::Parameters>& models, const std::string& pipeline,
                           std::uint64_t seed) const;
    /// `b` brought into `a`'s basin by a matching method (`weight_matching`, `activation_matching(kernel=cosine)`), on this
    /// rank alone; `none`: as it is.
    model::Parameters align(const model::Parameters& a, const model::Parameters& b, const std::string& method,
                            std::uint64_t seed) const;
};

/// The sections of a configuration file with changes to them, texts `key.path=value`; what they get wrong is said with the
/// place where each stands. UsageError.
core::Value changed(core::Value experiment, const std::vector<core::Value>& changes);

/// One model to train on the whole training set, as client 0 of a federation of one would.
struct Training {
    std::string label;  ///< of its file: lower case, digits, `-`; its own in a study
    std::shared_ptr<const Laboratory> laboratory;
    std::uint64_t seed = 0;            ///< the order of the samples, dropout
    std::uint64_t initialisation = 0;  ///< of the initial model
    std::vector<std::int64_t>
        snapshots{};  ///< steps done after which the model is kept as well; 0: the initial one
    std::optional<std::int64_t> fork_at{};  ///< see clients::TrainingStudy
    std::uint64_t fork_seed = 0;
    std::shared_ptr<const data::SampleSet> samples{};  ///< nullptr: the laboratory's training samples
};

/// A study's folder, and the ranks that work in it. Work is cut into jobs, each computed by one rank on one thread; what a
/// job gave is kept in the folder, so that the same command goes on where it was stopped, and is the same on any number of
/// ranks. The folder has to be one that all ranks see. Calls are collective unless they say otherwise.
class Workbench {
  public:
    /// `begin` is called on rank 0 before the first job: nothing is written to the folder before that, and what the study's
    /// configuration gets wrong has been refused by then.
    Workbench(std::filesystem::path folder, core::Communicator& communicator, bool progress,
              std::function<void()> begin = {});
    ~Workbench();

    /// Opens the data (once for all laboratories that have the same) and builds the model of `experiment` (the sections of a
    /// configuration file) with `changes`, see changed(). `samples`: the resolved section of a study, see
    /// samples_option. UsageError, for a live page too: see require_no_page.
    std::shared_ptr<const Laboratory> laboratory(const core::Value& experiment,
                                                 const std::vector<core::Value>& changes,
                                                 const core::Value& samples);

    /// `job(i)` for every label that has no result yet, on rank i mod size; all results by index, on every rank. A result is
    /// plain JSON; numbers that are not finite become null. `label`s are unlike each other within `name`, both stems of
    /// files. A job that throws ends the study, on every rank as soon as its job is done; results of finished jobs stand.
    std::vector<Json> run(const std::string& name, const std::vector<std::string>& labels,
                          const std::function<Json(std::size_t)>& job);

    /// Trains what is not trained yet. Results by index: `loss`, `steps`, `seconds`, `accuracy` (test); all null where the
    /// training diverged, which leaves no model and says why in `diverged`. UsageError for an experiment with `data.holdout`
    /// or `analysis.measures`, which would have no effect.
    std::vector<Json> train(const std::vector<Training>& trainings);
    /// A trained model, or one of its snapshots; reads the file. Not collective. RunError when it is not there.
    model::Parameters model(const std::string& label) const;
    /// Whether its training left one: it did not diverge. Not collective. RunError when it has not been trained, or its file
    /// is gone.
    bool has_model(const std::string& label) const;
    model::Parameters snapshot(const std::string& label, std::int64_t step) const;

    /// The communicator that jobs use: this rank alone.
    core::Communicator& alone() { return alone_; }
    core::Communicator& all() { return communicator_; }
    const std::filesystem::path& folder() const { return folder_; }
    bool is_root() const { return communicator_.rank() == 0; }

  private:
    void open_folder();
    Json train_one(const Training& training) const;
    std::filesystem::path model_path(const std::string& label) const;
    std::filesystem::path training_path(const std::string& label) const;

    std::filesystem::path folder_;
    core::Communicator& communicator_;
    core::SelfCommunicator alone_;
    bool progress_;
    std::function<void()> begin_;
    std::vector<std::pair<std::string, std::shared_ptr<const data::Dataset>>> datasets_;
};

/// `samples: {train, test, calibration}` of every study: how many are used; 0: all.
core::Option samples_option();

/// UsageError for `record.serve` or `record.token` among the sections of an experiment: what a study trains has no live page
/// (nobody would find it, and two at once would want one port), and a token would be written down with the configuration.
void require_no_page(const core::Value& experiment);

}  // namespace thalweg::study
