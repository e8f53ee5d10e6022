#include "thalweg/federation/federation.hpp"

#include <algorithm>
#include <cstring>

#include "thalweg/aggregator/matching.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/interrupt.hpp"
#include "thalweg/core/text.hpp"
#include "thalweg/federation/measure.hpp"
#include "thalweg/federation/plan.hpp"
#include "thalweg/model/model_file.hpp"

namespace thalweg::federation {

using record::Json;

/// What came of the local trainings of a round.
struct Federation::Training {
    std::vector<aggregator::Member> members;  ///< those whose update counts
    std::vector<aggregator::Update> updates;  ///< this rank's
    Json clients = Json::array();             ///< one object a client, by id
    Json failures = Json::array();
    double loss = 0;  ///< mean over clients, by samples
};

Federation::Federation(Experiment experiment, core::Communicator& communicator)
    : experiment_(std::move(experiment)),
      communicator_(communicator),
      setting_(open_setting(experiment_, communicator)),
      pipeline_(experiment_.config["server"]["fusion"]) {
    const core::Value& config = experiment_.config;
    core::collectively(communicator_, [&] {
        if (is_root() && pipeline_.permutes()) symmetry::require_proof(setting_.graph, setting_.symmetries);
        data_ = std::make_unique<data::FederatedData>(setting_.dataset, config["data"]["partition"],
                                                      experiment_.holdout, experiment_.seed);
        plan_round(experiment_, *data_, 1,
                   communicator_.size());  // a sampler that asks for too many fails now
        optimizer_ =
            core::Registry<std::unique_ptr<aggregator::ServerOptimizer>>::make(config["server"]["optimizer"]);
        trainer_ =
            std::make_unique<clients::LocalTrainer>(setting_.graph, experiment_.plan, experiment_.seed);
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
        if (global_.defined()) {
            model::save_model(folder_->path() / "initial.pt", setting_.graph, global_,
                              model_meta(experiment_));
        }
    });
}

void Federation::broadcast_global() {
    if (!global_.defined()) global_ = model::Parameters(setting_.graph.layout);
    const auto bytes_of = [](const at::Tensor& tensor) {
        return std::span(static_cast<std::byte*>(tensor.data_ptr()), tensor.nbytes());
    };
    communicator_.broadcast(bytes_of(global_.values), 0);
    if (global_.counters.defined() && global_.counters.numel() > 0) {
        communicator_.broadcast(bytes_of(global_.counters), 0);
    }
}

std::vector<Json> Federation::run(const RunOptions& options) {
    if (options.resume) {
        resume(options);
    } else {
        start(options);
    }
    progress_ =
        std::make_unique<record::Progress>(options.progress && is_root(), experiment_.rounds, "round");
    const std::int64_t resumed_at = finished_;
    try {
        while (finished_ < experiment_.rounds) {
            const Json line = round(finished_ + 1);
            ++finished_;
            core::collectively(communicator_, [&] {
                if (!is_root()) return;
                folder_->append_round(line);
                checkpoint(finished_);
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
    progress_->finish();
    std::vector<Json> lines;
    core::collectively(communicator_, [&] {
        if (!is_root()) return;
        if (finished_ > resumed_at || !std::filesystem::exists(folder_->path() / "final.pt")) {
            model::save_model(folder_->path() / "final.pt", setting_.graph, global_, model_meta(experiment_));
        }
        lines = folder_->read_rounds();
    });
    return lines;
}

void Federation::checkpoint(std::int64_t round) {
    const bool due = experiment_.checkpoint_every > 0 && round % experiment_.checkpoint_every == 0;
    if (!due) return;
    auto meta = model_meta(experiment_);
    meta["round"] = std::to_string(round);
    model::save_model(folder_->checkpoint_path(round), setting_.graph, global_, meta);
    folder_->prune_checkpoints(experiment_.keep_checkpoints);
}

Json Federation::round(std::int64_t round) {
    const record::Stopwatch total;
    const auto sent_before = communicator_.bytes_sent();
    const bool has_start = global_.defined();

    auto training = train(round, plan_round(experiment_, *data_, round, communicator_.size()));
    const double client_seconds = total.seconds();

    Json line;
    line["round"] = round;
    line["cohort"] = Json::array();
    for (const auto& member : training.members) line["cohort"].push_back(member.client);
    line["train"]["loss"] = training.loss;

    const auto model_bytes = static_cast<std::int64_t>(setting_.graph.layout->size() * 4 +
                                                       setting_.graph.layout->counters().size() * 8);
    const auto asked = static_cast<std::int64_t>(training.members.size() + training.failures.size());
    const auto answered = static_cast<std::int64_t>(training.members.size());

    fuse(round, training, line);

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
    line["clients"] = std::move(training.clients);
    if (!training.failures.empty()) line["failures"] = std::move(training.failures);
    line["bytes"] = {{"up", answered * model_bytes},
                     {"down", has_start ? asked * model_bytes : 0},
                     {"transport", transport}};
    line["seconds"] = {{"clients", client_seconds},
                       {"fusion", line["fusion"]["seconds"]},
                       {"evaluation", evaluation_seconds},
                       {"total", total.seconds()}};
    line["fusion"].erase("seconds");
    return line;
}

Federation::Training Federation::train(std::int64_t round, std::vector<aggregator::Member> members) {
    const int rank = communicator_.rank();
    double work = 0;
    double done = 0;
    for (const auto& member : members) {
        if (member.owner == rank) work += static_cast<double>(trainer_->steps_for(member.samples));
    }
    Training training;
    Json mine = Json::array();
    core::collectively(communicator_, [&] {
        for (const auto& member : members) {
            if (member.owner != rank) continue;
            aggregator::Update update{.client = member.client, .samples = member.samples};
            update.parameters = global_.defined()
                                    ? global_.clone()
                                    : initial_model(setting_.graph, experiment_.seed, member.client);
            const double steps = static_cast<double>(trainer_->steps_for(member.samples));
            Json outcome = {{"client", member.client}, {"samples", member.samples}};
            try {
                const auto result =
                    trainer_->train(update.parameters, *data_->client(member.client), member.client, round,
                                    [&](double fraction) {
                                        progress_->update(static_cast<double>(round - 1) +
                                                              0.9 * (done + fraction * steps) / work,
                                                          "training client " + std::to_string(member.client));
                                    });
                outcome["loss"] = result.loss;
                outcome["steps"] = result.steps;
                outcome["seconds"] = result.seconds;
                outcome["rank"] = rank;
                training.updates.push_back(std::move(update));
            } catch (const clients::Diverged& error) {
                if (!experiment_.continue_on_failure) throw;
                outcome["error"] = error.what();
            }
            done += steps;
            mine.push_back(std::move(outcome));
        }
    });

    // Every rank learns how every client fared, in client-id order whatever rank it was on.
    std::vector<Json> outcomes;
    const std::string text = mine.dump();
    for (const auto& bytes : communicator_.all_gather(std::as_bytes(std::span(text)))) {
        const std::string received(reinterpret_cast<const char*>(bytes.data()), bytes.size());
        for (auto& outcome : Json::parse(received)) outcomes.push_back(std::move(outcome));
    }
    std::sort(outcomes.begin(), outcomes.end(), [](const Json& a, const Json& b) {
        return a["client"].get<std::int64_t>() < b["client"].get<std::int64_t>();
    });
    double samples = 0;
    for (std::size_t i = 0; i < outcomes.size(); ++i) {
        if (outcomes[i].contains("error")) {
            if (is_root())
                record::warn(outcomes[i]["error"].get<std::string>() + "; the round goes on without it");
            training.failures.push_back(outcomes[i]);
            continue;
        }
        training.members.push_back(members[i]);
        samples += static_cast<double>(members[i].samples);
        training.loss += static_cast<double>(members[i].samples) * outcomes[i]["loss"].get<double>();
        training.clients.push_back(outcomes[i]);
    }
    if (training.members.empty()) {
        throw core::RunError(
            "every client of round " + std::to_string(round) +
            " diverged, so there is nothing to fuse; lower clients.algorithm.lr or set clients.clip");
    }
    training.loss /= samples;
    return training;
}

void Federation::fuse(std::int64_t round, Training& training, Json& line) {
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
    const RoundView view{pipeline_, context, *data_};

    std::vector<std::pair<std::string, std::unique_ptr<Measure>>> measures;
    if (round % experiment_.analyse_every == 0 || round == experiment_.rounds) {
        for (const auto& options : experiment_.config["analysis"]["measures"].items()) {
            measures.emplace_back(options["kind"].as_text(),
                                  core::Registry<std::unique_ptr<Measure>>::make(options));
        }
    }
    double measuring = 0;
    const auto measured = [&](const auto& work) {
        const record::Stopwatch watch;
        for (auto& [name, measure] : measures) work(name, *measure);
        measuring += watch.seconds();
    };

    progress_->update(static_cast<double>(round) - 0.1, "fusing");
    const record::Stopwatch fusing;
    measured([&](const std::string&, Measure& measure) { measure.begin(state, view); });
    const auto reports =
        pipeline_.run(state, context, [&](std::size_t index, const aggregator::FusionState& now) {
            measured([&](const std::string&, Measure& measure) { measure.after(index, now, view); });
        });
    step_server(round, state);
    line["fusion"]["stages"] = Json::array();
    for (const auto& report : reports) line["fusion"]["stages"].push_back(stage_record(report));
    measured([&](const std::string& name, Measure& measure) { line[name] = measure.finish(state, view); });
    line["fusion"]["seconds"] = fusing.seconds() - measuring;
}

Json stage_record(const aggregator::StageReport& report) {
    Json json = {{"name", report.name}, {"seconds", report.seconds}, {"bytes", report.bytes}};
    for (const auto& [name, value] : report.notes) json[name] = value;
    return json;
}

void Federation::step_server(std::int64_t round, aggregator::FusionState& state) {
    // Optimizer and client state keep one frame through the rounds: the fused model goes back to that of the previous
    // global one, and the updates with it, so that measures compare what lies in one frame. (No function changes.)
    if (global_.defined() && pipeline_.changes_frame()) {
        const auto back = match_to_global(round, state.merged);
        core::collectively(communicator_, [&] {
            const auto moved = [&](const model::Parameters& parameters) {
                return symmetry::permute(parameters, setting_.symmetries, back);
            };
            state.merged = moved(state.merged);
            for (auto& update : state.updates) update.parameters = moved(update.parameters);
        });
    }
    core::collectively(communicator_, [&] {
        if (is_root()) global_ = optimizer_->step(global_, state.merged);
    });
    broadcast_global();
    state.merged = global_;
}

symmetry::Permutations Federation::match_to_global(std::int64_t round, const model::Parameters& fused) {
    auto permutations = core::collectively(communicator_, [&] {
        if (!is_root()) return symmetry::identity(setting_.symmetries);
        core::Random random(experiment_.seed, "server_frame", round);
        return aggregator::weight_matching(setting_.graph, setting_.symmetries, global_, fused, random)
            .permutations;
    });
    for (auto& permutation : permutations) {
        communicator_.broadcast(std::as_writable_bytes(std::span(permutation)), 0);
    }
    return permutations;
}

}  // namespace thalweg::federation
