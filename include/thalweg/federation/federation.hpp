#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "thalweg/aggregator/stage.hpp"
#include "thalweg/analysis/evaluate.hpp"
#include "thalweg/core/communicator.hpp"
#include "thalweg/federation/cohort.hpp"
#include "thalweg/federation/experiment.hpp"
#include "thalweg/record/record.hpp"

namespace thalweg::live {
class RunPage;
}

namespace thalweg::federation {

/// Runs federated rounds: plan, train, fuse, evaluate, record. Every rank holds one and makes the same calls.
class Federation {
  public:
    /// Opens the data (unless it is there) and builds the model. Collective.
    Federation(Experiment experiment, core::Communicator& communicator,
               std::shared_ptr<const data::Dataset> dataset = nullptr);
    ~Federation();

    /// Where and how to record.
    struct RunOptions {
        std::filesystem::path folder;
        bool resume = false;
        bool progress = true;
        record::Json manifest = record::Json::object();  ///< versions and machine, from the program
    };
    /// All rounds. Returns the lines of rounds.jsonl (on rank 0; empty elsewhere). Collective. Interrupted carries a
    /// message that says how to go on.
    std::vector<record::Json> run(const RunOptions& options);
    /// False when the live page's stop button ended the run before its last round. The same on every rank.
    bool is_complete() const { return finished_ == experiment_.rounds; }

    const data::FederatedData& data() const { return *data_; }
    const model::ModelGraph& graph() const { return setting_.graph; }
    const model::Parameters& global() const { return global_; }

  private:
    void start(const RunOptions& options);
    void go_on(const RunOptions& options);
    std::vector<record::Json> conclude(const RunOptions& options, bool news);
    void begin(const RunOptions& options);
    void resume(const RunOptions& options);
    void require_same_configuration(const std::filesystem::path& folder) const;
    std::int64_t load_last_checkpoint();
    void remember_server(std::int64_t round);
    void require_whole_record(std::int64_t round) const;
    /// A round's lines in rounds.jsonl and analysis.jsonl.
    struct RoundRecord {
        record::Json line, analysis;
    };
    RoundRecord round(std::int64_t round);
    void fuse(std::int64_t round, CohortResult& training, RoundRecord& record);
    void checkpoint(std::int64_t round);
    void write_checkpoint(std::int64_t round);
    void open_page(const RunOptions& options);
    void show_past();
    void show(double done, const std::string& what);
    void show_accuracy(const record::Json& line);
    void show_round(const record::Json& line);
    void show_end(const std::string& phase, const std::string& what);
    bool obey();
    void wait_while_paused();
    void checkpoint_if_asked();
    void broadcast_global();
    bool is_root() const { return communicator_.rank() == 0; }

    Experiment experiment_;
    core::Communicator& communicator_;
    Setting setting_;
    std::unique_ptr<data::FederatedData> data_;
    aggregator::Pipeline pipeline_;
    std::unique_ptr<ServerStep> server_;
    std::unique_ptr<Cohort> cohort_;
    std::unique_ptr<aggregator::StatisticsSource> server_statistics_, client_statistics_;
    model::Parameters global_;   ///< undefined before round 1 with independent initialisations
    std::int64_t finished_ = 0;  ///< rounds done
    std::optional<record::RunFolder> folder_;
    std::unique_ptr<record::Progress> progress_;
    std::unique_ptr<live::RunPage> page_;  ///< on rank 0, with record.serve
};

/// What the record says of a stage: name, seconds, bytes and its notes.
record::Json stage_record(const aggregator::StageReport& report);

/// The tables a run ends with: accuracy after every round, and what each stage bought in the last round measured.
std::string summary(const std::vector<record::Json>& rounds);

}  // namespace thalweg::federation
