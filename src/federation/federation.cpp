#include "thalweg/federation/federation.hpp"

#include <algorithm>
#include <cstring>

#include "partition_record.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/files.hpp"
#include "thalweg/core/interrupt.hpp"
#include "thalweg/core/text.hpp"
#include "thalweg/federation/measure.hpp"
#include "thalweg/federation/plan.hpp"
#include "thalweg/live/run_page.hpp"
#include "thalweg/model/model_file.hpp"
#include "thalweg/record/json.hpp"
#include "thalweg/report/events.hpp"

namespace thalweg::federation {

using record::Json;

Federation::Federation(Experiment experiment, core::Communicator& communicator,
                       std::shared_ptr<const data::Dataset> dataset)
    : experiment_(std::move(experiment)),
      communicator_(communicator),
      setting_(open_setting(experiment_, communicator, std::move(dataset))),
      pipeline_(experiment_.config["server"]["fusion"]) {
    const core::Value& config = experiment_.config;
    core::collectively(communicator_, [&] {
        for (const auto& item : pipeline_.items()) {
            if (item.traits.grows)
                item.options.reject(
                    "the stage " + item.name +
                    " makes a model of another architecture than the configured one, which a "
                    "run's global model must have; set grow: false, or use thalweg compare or "
                    "thalweg fuse");
        }
        require_next_rounds(experiment_, pipeline_, setting_.graph);
        require_fitting_measures(config["analysis"], pipeline_, setting_.graph);
        if (is_root() && pipeline_.permutes()) symmetry::require_proof(setting_.graph, setting_.symmetries);
        data_ = std::make_unique<data::FederatedData>(setting_.dataset, config["data"]["partition"],
                                                      experiment_.holdout, experiment_.seed);
        plan_round(experiment_, *data_, 1,
                   communicator_.size());  // a sampler that asks for too many fails now
        server_ = std::make_unique<ServerStep>(experiment_, setting_, communicator_);
        cohort_ = std::make_unique<Cohort>(experiment_, setting_, *data_, communicator_);
        if (data_->holdout()) {
            server_statistics_ =
                aggregator::server_statistics(setting_.graph, data_->holdout(), communicator_);
        }
        client_statistics_ = aggregator::client_statistics(
            setting_.graph, [this](std::int64_t client) { return data_->client(client); }, communicator_, 0);
    });
}

Federation::~Federation() = default;

void Federation::start(const RunOptions& options) {
    core::collectively(communicator_, [&] {
        if (is_root()) folder_ = record::RunFolder::create(options.folder);
    });
    begin(options);
}

/// Round 0: the shared initial model, and what the folder says of the run before it trains.
void Federation::begin(const RunOptions& options) {
    core::collectively(communicator_, [&] {
        if (!experiment_.independent_initialisation) {
            global_ = initial_model(setting_.graph, experiment_.seed, -1);
        }
        if (!is_root()) return;
        folder_->write_config(core::to_yaml(experiment_.config));
        folder_->write_manifest(options.manifest);
        core::write_atomically(folder_->path() / "partition.json",
                               record::json_text(partition_record(*data_)) + "\n");
        if (global_.defined()) {
            model::save_model(folder_->path() / "initial.pt", setting_.graph, global_,
                              model_meta(experiment_));
        }
    });
}

void Federation::broadcast_global() {
    broadcast_model(global_, setting_.graph, communicator_);
}

/// Whatever ends the run, the page says so.
std::vector<Json> Federation::run(const RunOptions& options) {
    open_page(options);
    try {
        if (options.resume) {
            resume(options);
        } else {
            start(options);
        }
        progress_ =
            std::make_unique<record::Progress>(options.progress && is_root(), experiment_.rounds, "round");
        const std::int64_t resumed_at = finished_;
        core::collectively(communicator_, [&] { show_past(); });
        go_on(options);
        return conclude(options, finished_ > resumed_at);
    } catch (const core::Interrupted&) {
        show_end("interrupted", "after round " + std::to_string(finished_) + "; the one begun is dropped");
        throw;
    } catch (const std::exception& error) {
        show_end("failed", core::first_paragraph(error.what()));
        throw;
    }
}

void Federation::go_on(const RunOptions& options) {
    std::optional<report::EventFile> events;
    core::collectively(communicator_, [&] {
        if (is_root() && experiment_.config["record"]["tensorboard"].as_bool())
            events.emplace(options.folder);
    });
    try {
        while (finished_ < experiment_.rounds && obey()) {
            const RoundRecord record = round(finished_ + 1);
            ++finished_;
            core::collectively(communicator_, [&] {
                if (!is_root()) return;
                if (record.analysis.size() > 1) folder_->append_analysis(record.analysis);
                folder_->append_round(record.line);
                if (events) events->add(finished_, report::round_scalars(record.line, record.analysis));
                checkpoint(finished_);
                show_round(record.line);
            });
        }
    } catch (const core::Interrupted&) {
        progress_->stop();
        const auto last = is_root() && folder_ ? folder_->checkpoints() : std::vector<std::int64_t>{};
        throw core::Interrupted(
            "interrupted in round " + std::to_string(std::min(finished_ + 1, experiment_.rounds)) + " of " +
            std::to_string(experiment_.rounds) + "; that round is dropped. " +
            (last.empty() ? std::string("There is no checkpoint yet: --resume starts over")
                          : "The checkpoint of round " + std::to_string(last.back()) + " stands") +
            ". Go on with the same command line and --resume --out " + options.folder.string());
    }
}

/// What a run leaves behind. `news`: rounds were computed that an earlier final.pt does not hold.
std::vector<Json> Federation::conclude(const RunOptions& options, bool news) {
    if (is_complete()) {
        progress_->finish();
    } else {
        progress_->stop();
    }
    std::vector<Json> lines;
    core::collectively(communicator_, [&] {
        if (!is_root()) return;
        if (is_complete() && (news || !std::filesystem::exists(folder_->path() / "final.pt")))
            model::save_model(folder_->path() / "final.pt", setting_.graph, global_, model_meta(experiment_));
        // The last round has no next one whose beginning would look at the page.
        if (is_complete()) checkpoint_if_asked();
        lines = folder_->read_rounds();
    });
    show_end(is_complete() ? "finished" : "stopped",
             is_complete() ? "final.pt holds the global model"
                           : "--resume --out " + options.folder.string() + " goes on from here");
    return lines;
}

void Federation::checkpoint(std::int64_t round) {
    const bool due = experiment_.checkpoint_every > 0 && round % experiment_.checkpoint_every == 0;
    if (due) write_checkpoint(round);
}

void Federation::write_checkpoint(std::int64_t round) {
    auto meta = model_meta(experiment_);
    meta["round"] = std::to_string(round);
    // First: a checkpoint that is there has its optimizer's memory.
    if (const auto memory = server_->optimizer().memory(); !memory.empty())
        model::save_tensors(folder_->memory_path(round), memory, {{"round", std::to_string(round)}});
    model::save_model(folder_->checkpoint_path(round), setting_.graph, global_, meta);
    folder_->prune_checkpoints(experiment_.keep_checkpoints);
}

Federation::RoundRecord Federation::round(std::int64_t round) {
    const record::Stopwatch total;
    const auto sent_before = communicator_.bytes_sent();
    const bool has_start = global_.defined();

    auto training = cohort_->train(round, global_, pipeline_.needs_start(),
                                   [&](double fraction, const std::string& what) {
                                       show(static_cast<double>(round - 1) + 0.9 * fraction, what);
                                   });
    const double client_seconds = total.seconds();

    RoundRecord record;
    Json& line = record.line;
    line["round"] = round;
    record.analysis["round"] = round;
    line["cohort"] = Json::array();
    for (const auto& member : training.members) line["cohort"].push_back(member.client);
    line["train"]["loss"] = training.loss;

    const auto model_bytes = static_cast<std::int64_t>(setting_.graph.layout->size() * 4 +
                                                       setting_.graph.layout->counters().size() * 8);
    const auto asked = static_cast<std::int64_t>(training.members.size() + training.failures.size());
    const auto answered = static_cast<std::int64_t>(training.members.size());

    fuse(round, training, record);

    const record::Stopwatch evaluating;
    if (round % experiment_.evaluate_every == 0 || round == experiment_.rounds) {
        const auto test = analysis::evaluate(setting_.graph, global_, *data_->test(), communicator_);
        line["test"] = {{"loss", test.loss}, {"accuracy", test.accuracy}};
    }
    const double evaluation_seconds = evaluating.seconds();

    const auto sent =
        communicator_.all_gather(core::as_bytes(std::vector{communicator_.bytes_sent() - sent_before}));
    std::uint64_t transport = 0;
    for (const auto& bytes : sent) transport += core::from_bytes<std::uint64_t>(bytes).front();
    std::vector<double> busy(static_cast<std::size_t>(communicator_.size()));
    for (const auto& client : training.clients)
        busy[client["rank"].get<std::size_t>()] += client["seconds"].get<double>();
    line["clients"] = std::move(training.clients);
    if (!training.failures.empty()) line["failures"] = std::move(training.failures);
    line["bytes"] = {{"up", answered * model_bytes},
                     {"down", has_start ? asked * model_bytes : 0},
                     {"transport", transport}};
    line["seconds"] = {{"clients", client_seconds},
                       {"fusion", line["fusion"]["seconds"]},
                       {"evaluation", evaluation_seconds},
                       {"total", total.seconds()},
                       {"ranks", busy}};
    line["fusion"].erase("seconds");
    return record;
}

void Federation::fuse(std::int64_t round, CohortResult& training, RoundRecord& record) {
    Json& line = record.line;
    const aggregator::FusionContext context{.graph = setting_.graph,
                                            .symmetries = setting_.symmetries,
                                            .communicator = communicator_,
                                            .seed = experiment_.seed,
                                            .round = round,
                                            .members = training.members,
                                            .global = global_.defined() ? &global_ : nullptr,
                                            .server = server_statistics_.get(),
                                            .clients = client_statistics_.get(),
                                            .holdout = data_->holdout()};
    aggregator::FusionState state{.updates = std::move(training.updates), .merged = {}};
    const RoundView view{pipeline_, context, *data_, experiment_.pairs};

    std::vector<std::pair<std::string, std::unique_ptr<Measure>>> measures;
    const auto& analysis = experiment_.config["analysis"];
    for (const auto& options : analysis["measures"].items()) {
        if (is_measured(options, analysis, round, experiment_.rounds))
            measures.emplace_back(recorded_name(options),
                                  core::Registry<std::unique_ptr<Measure>>::make(options));
    }
    double measuring = 0;
    const auto measured = [&](const auto& work) {
        const record::Stopwatch watch;
        for (auto& [name, measure] : measures) work(name, *measure);
        measuring += watch.seconds();
    };

    show(static_cast<double>(round) - 0.1, "fusing");
    const record::Stopwatch fusing;
    measured([&](const std::string&, Measure& measure) { measure.begin(state, view); });
    const auto reports =
        pipeline_.run(state, context, [&](std::size_t index, const aggregator::FusionState& now) {
            measured([&](const std::string&, Measure& measure) { measure.after(index, now, view); });
        });
    server_->apply(round, pipeline_, state, global_);
    line["fusion"]["stages"] = Json::array();
    for (const auto& report : reports) line["fusion"]["stages"].push_back(stage_record(report));
    measured([&](const std::string& name, Measure& measure) {
        Json result = measure.finish(state, view);
        if (measure.brief()) line[name] = measure.headline(result);
        record.analysis[name] = std::move(result);
    });
    line["fusion"]["seconds"] = fusing.seconds() - measuring;
}

Json stage_record(const aggregator::StageReport& report) {
    Json json = {{"name", report.name}, {"seconds", report.seconds}, {"bytes", report.bytes}};
    for (const auto& [name, value] : report.notes) json[name] = value;
    return json;
}

}  // namespace thalweg::federation
