#include "thalweg/federation/experiment.hpp"

#include <algorithm>

#include "thalweg/analysis/measures.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/registry.hpp"
#include "thalweg/core/text.hpp"
#include "thalweg/federation/measure.hpp"
#include "thalweg/live/address.hpp"
#include "thalweg/model/interpreter.hpp"
#include "thalweg/model/model_file.hpp"

namespace thalweg::federation {

using core::Option;
using core::Value;

core::Schema experiment_schema() {
    return core::Schema{
        core::text("name", "name of the experiment and of its folder under runs/").by_default("run"),
        core::integer("seed", "all random draws come from it").at_least(0).by_default(1),
        core::object(
            "data",
            {core::plugin("dataset", "dataset", "what is learnt"),
             core::plugin("partition", "partitioner", "who holds what", "scheme"),
             core::integer("holdout", "training samples kept by the server (activation matching, REPAIR)")
                 .at_least(0)
                 .by_default(0)},
            "the data"),
        core::plugin("model", "model", "the architecture"),
        clients::TrainingPlan::schema(),
        core::object("server",
                     {core::integer("rounds", "federated rounds").at_least(1).at_most(1e6).by_default(1),
                      core::plugin("sampler", "sampler", "who takes part in a round").by_default("all"),
                      core::plugins("fusion", "stage", "the fusion pipeline, in order").by_default("[mean]"),
                      core::plugin("optimizer", "server_optimizer", "from the fused to the next global model")
                          .by_default("none")},
                     "what the server does"),
        core::object(
            "evaluation",
            {core::integer("every",
                           "rounds between evaluations on the test set (the last is always evaluated)")
                 .at_least(1)
                 .by_default(1)},
            "evaluation of the global model")
            .by_default("{}"),
        core::object(
            "analysis",
            {core::integer("every", "rounds between measurements (the last is always measured)")
                 .at_least(1)
                 .by_default(1),
             core::integers("rounds", "the rounds that are measured; empty: see every").by_default("[]"),
             core::texts("pairs",
                         "client pairs that measures of pairs look at, as 0-3, where both take "
                         "part; empty: each measure draws its own")
                 .by_default("[]"),
             core::plugins("measures", "measure", "what is measured while fusing").by_default("[]")},
            "measures of the round")
            .by_default("{}"),
        core::object(
            "record",
            {core::integer("checkpoint_every", "rounds between checkpoints; 0: only the final model")
                 .at_least(0)
                 .by_default(1),
             core::integer("keep_checkpoints", "newest checkpoints kept; 0: all").at_least(0).by_default(2),
             core::boolean("tensorboard", "also an event file that TensorBoard reads, in the run's folder")
                 .by_default(false),
             core::text(
                 "serve",
                 "ADDRESS:PORT of a live page with pause, checkpoint and stop, while `thalweg run` goes on; "
                 "port 0: a free one")
                 .optional(),
             core::text(
                 "token",
                 "who opens the live page must bring it, at addresses other than loopback; better in the "
                 "environment variable THALWEG_TOKEN")
                 .optional()},
            "what is written")
            .by_default("{}"),
        core::object(
            "compare",
            {core::texts("pipelines", "fusion pipelines in the short form, `weight_matching+mean+repair`")
                 .by_default("[]"),
             core::integer("seeds", "repetitions: the seed and those after it").at_least(1).by_default(1),
             core::integer("barrier_pairs", "client pairs that barriers are measured on; 0: none")
                 .at_least(0)
                 .at_most(1000)
                 .by_default(3),
             core::text("follow",
                        "the pipeline whose model the next round starts from, as it is written in the list "
                        "(empty: the first), or `each`: each goes on from its own")
                 .by_default("")},
            "what `thalweg compare` does with this experiment; the other commands ignore it")
            .by_default("{}"),
    };
}

namespace {

/// Clients of several widths: there is no global model that all could start from.
void require_one_shot(const Experiment& experiment, const aggregator::Pipeline& pipeline,
                      const Value& models) {
    if (experiment.rounds > 1 || !experiment.independent_initialisation) {
        models.reject(
            "clients of several architectures have no global model to start from: set server.rounds: 1 and "
            "clients.init: independent");
    }
    const auto carries = std::any_of(pipeline.items().begin(), pipeline.items().end(),
                                     [](const auto& item) { return item.traits.takes_any_width; });
    if (!carries) {
        models.reject(
            "clients of several widths need a stage that brings them to one, optimal_transport or "
            "matched_averaging, and the fusion pipeline has none");
    }
    for (const auto& measure : experiment.config["analysis"]["measures"].items()) {
        if (!core::Registry<std::unique_ptr<Measure>>::make(measure)->takes_any_width())
            measure.reject("the measure " + measure["kind"].as_text() +
                           " compares the clients' models coordinate by coordinate, and clients.models names "
                           "several widths; leave it out");
    }
}

}  // namespace

void require_fitting(const Experiment& experiment, const aggregator::Pipeline& pipeline) {
    const auto& models = experiment.config["clients"]["models"];
    if (!models.items().empty()) require_one_shot(experiment, pipeline, models);
    for (const auto& item : pipeline.items()) {
        if (item.traits.grows) {
            const auto& rounds = experiment.config["server"]["rounds"];
            if (rounds.as_int() > 1)
                rounds.reject(
                    "the stage " + item.name +
                    " makes a global model of another architecture, from which the clients cannot go on: set "
                    "server.rounds: 1, or grow: false");
        }
        for (const std::int64_t client : item.traits.names_clients) {
            const auto& partition = experiment.config["data"]["partition"];
            if (!partition.has("clients") || client < partition["clients"].as_int()) continue;
            item.options.reject("the stage '" + item.name + "' speaks of client " + std::to_string(client) +
                                ", and the clients' ids are 0 to " +
                                std::to_string(partition["clients"].as_int() - 1));
        }
        if (item.traits.needs_holdout && experiment.holdout < item.traits.min_holdout) {
            item.options.reject(
                "the stage '" + item.name + "' looks at samples of the server's, at least " +
                std::to_string(item.traits.min_holdout) + ", and data.holdout is " +
                std::to_string(experiment.holdout) +
                "; set data.holdout to the number of training samples the server may keep (1000, say)");
        }
        if (item.traits.needs_base && experiment.independent_initialisation) {
            item.options.reject("the stage '" + item.name +
                                "' goes by what the clients changed in the previous global model, and with "
                                "clients.init: independent "
                                "there is none in round 1; set clients.init: shared");
        }
    }
}

void require_next_rounds(const Experiment& experiment, const aggregator::Pipeline& pipeline,
                         const model::ModelGraph& graph) {
    if (experiment.rounds == 1 || !pipeline.folds_norms() || !analysis::has_batch_norm(graph)) return;
    for (const auto& item : pipeline.items()) {
        if (!item.traits.folds_norms) continue;
        item.options.reject(item.name +
                            " folds batch norms into the layers they follow, and clients that train on from "
                            "there would start from another function; set server.rounds: 1, or use a model "
                            "without batch norms");
    }
}

namespace {

void require_rounds(const Value& rounds, std::int64_t last) {
    for (const auto& item : rounds.items()) {
        const auto round = item.as_int();
        if (round < 1 || round > last)
            item.reject("round " + std::to_string(round) + " never comes: the rounds are 1 to " +
                        std::to_string(last) + " (server.rounds)");
    }
}

/// Rounds that come, samples and clients that there are.
void check_analysis(const Value& analysis, const Value& partition, std::int64_t rounds,
                    std::int64_t holdout) {
    require_own_names(analysis);
    require_rounds(analysis["rounds"], rounds);
    for (const auto& measure : analysis["measures"].items()) {
        require_rounds(measure["rounds"], rounds);
        if (holdout == 0 && core::Registry<std::unique_ptr<Measure>>::make(measure)->mends())
            measure.reject("the measure " + measure["kind"].as_text() +
                           " takes statistics anew on samples of the server's, and data.holdout is 0; set "
                           "it to the number of training samples the server may keep (1000, say)");
    }
    if (!partition.has("clients")) return;
    const auto clients = partition["clients"].as_int();
    const auto pairs = chosen_pairs(analysis);
    for (std::size_t i = 0; i < pairs.size(); ++i) {
        if (pairs[i].second >= clients)
            analysis["pairs"].items()[i].reject("there is no client " + std::to_string(pairs[i].second) +
                                                ": the clients' ids are 0 to " + std::to_string(clients - 1));
    }
}

/// The token goes where nobody writes it down.
void take_live_page(Experiment& experiment) {
    auto& section = *experiment.config.find("record");
    const auto check = [](const Value& value, auto&& work) {
        try {
            work();
        } catch (const core::UsageError& error) {
            value.reject(error.what());
        }
    };
    if (section.has("serve")) {
        experiment.serve = section["serve"].as_text();
        check(section["serve"], [&] { live::parse_address(experiment.serve); });
    }
    if (!section.has("token")) return;
    experiment.token = section["token"].as_text();
    check(section["token"], [&] { live::require_token(experiment.token); });
    Value hidden;
    hidden.place_like(section["token"]);
    section.set("token", hidden);
}

/// What `compare` would be given by the configuration can be read; what it needs is asked where it runs.
void check_comparison(const Value& section) {
    const auto& follow = section["follow"];
    bool found = follow.as_text().empty() || follow.as_text() == "each";
    for (const auto& item : section["pipelines"].items()) {
        try {
            aggregator::Pipeline::parse(item.as_text());
        } catch (const core::UsageError& error) {
            item.reject(error.what());
        }
        found = found || core::without_blanks(item.as_text()) == core::without_blanks(follow.as_text());
    }
    if (!found)
        follow.reject("'" + follow.as_text() +
                      "' is no pipeline of compare.pipelines; give one as it is written there, or each");
}

}  // namespace

Experiment make_experiment(Value config, const std::vector<std::string>& overrides) {
    for (const auto& assignment : overrides) core::apply_override(config, assignment);
    Experiment result;
    result.config = core::resolve(experiment_schema(), config, config.path());
    const Value& c = result.config;
    result.name = c["name"].as_text();
    if (result.name.empty() || result.name.size() > 200 || result.name.find('/') != std::string::npos ||
        result.name[0] == '.') {
        c["name"].reject(
            "the name is also a folder's: it must not be empty, longer than 200 bytes, begin with a dot or "
            "hold a '/'");
    }
    result.seed = static_cast<std::uint64_t>(c["seed"].as_int());
    result.rounds = c["server"]["rounds"].as_int();
    result.plan = clients::TrainingPlan::from(c["clients"], result.rounds);
    result.independent_initialisation = c["clients"]["init"].as_text() == "independent";
    result.continue_on_failure = c["clients"]["on_failure"].as_text() == "continue";
    result.holdout = c["data"]["holdout"].as_int();
    result.evaluate_every = c["evaluation"]["every"].as_int();
    result.checkpoint_every = c["record"]["checkpoint_every"].as_int();
    result.keep_checkpoints = c["record"]["keep_checkpoints"].as_int();
    take_live_page(result);
    require_fitting(result, aggregator::Pipeline(c["server"]["fusion"]));
    result.pairs = chosen_pairs(c["analysis"]);
    check_analysis(c["analysis"], c["data"]["partition"], result.rounds, result.holdout);
    check_comparison(c["compare"]);
    return result;
}

Experiment load_experiment(const std::filesystem::path& path, const std::vector<std::string>& overrides) {
    Value config = core::read_yaml(path.string());
    if (config.is_map() && !config.find("name")) config.set("name", Value::of(path.stem().string()));
    return make_experiment(std::move(config), overrides);
}

Setting open_setting(const Experiment& experiment, core::Communicator& communicator,
                     std::shared_ptr<const data::Dataset> dataset) {
    Setting setting;
    setting.dataset =
        dataset ? std::move(dataset)
                : data::open_dataset(experiment.config["data"]["dataset"], {communicator, experiment.seed});
    core::collectively(communicator, [&] {
        setting.graph = model::build_model(experiment.config["model"], setting.dataset->sample_shape(),
                                           setting.dataset->classes());
        setting.symmetries = symmetry::derive(setting.graph);
        for (const auto& model : experiment.config["clients"]["models"].items()) {
            auto graph = std::make_shared<const model::ModelGraph>(
                model::build_model(model, setting.dataset->sample_shape(), setting.dataset->classes()));
            const bool same = *graph->layout == *setting.graph.layout;
            if (same) model::require_same_architecture(*graph, "clients.models", setting.graph, "model");
            setting.client_graphs.push_back(same ? nullptr : std::move(graph));
        }
    });
    return setting;
}

model::Parameters initial_model(const model::ModelGraph& graph, std::uint64_t seed, std::int64_t client) {
    core::Random random(seed, "initialisation", 0, client);
    return model::initialise(graph, random);
}

std::map<std::string, std::string> model_meta(const Experiment& experiment) {
    return {{"data", core::to_flow(experiment.config["data"]["dataset"])},
            {"seed", std::to_string(experiment.seed)},
            {"experiment", experiment.name}};
}

}  // namespace thalweg::federation
