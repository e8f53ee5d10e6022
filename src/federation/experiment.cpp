#include "thalweg/federation/experiment.hpp"

#include "thalweg/core/error.hpp"
#include "thalweg/core/registry.hpp"
#include "thalweg/federation/measure.hpp"
#include "thalweg/model/interpreter.hpp"

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
        core::object("analysis",
                     {core::integer("every", "rounds between measurements (the last is always measured)")
                          .at_least(1)
                          .by_default(1),
                      core::plugins("measures", "measure", "what is measured while fusing").by_default("[]")},
                     "measures of the round")
            .by_default("{}"),
        core::object(
            "record",
            {core::integer("checkpoint_every", "rounds between checkpoints; 0: only the final model")
                 .at_least(0)
                 .by_default(1),
             core::integer("keep_checkpoints", "newest checkpoints kept; 0: all").at_least(0).by_default(2)},
            "what is written")
            .by_default("{}"),
    };
}

namespace {

/// A stage or measure that needs data nobody has is found before anything is computed.
void check_needs(const Experiment& experiment, const aggregator::Pipeline& pipeline) {
    for (const auto& item : pipeline.items()) {
        if (item.traits.needs_holdout && experiment.holdout < item.traits.min_holdout) {
            item.options.reject(
                "the stage '" + item.name + "' looks at samples of the server's, at least " +
                std::to_string(item.traits.min_holdout) + ", and data.holdout is " +
                std::to_string(experiment.holdout) +
                "; set data.holdout to the number of training samples the server may keep (1000, say)");
        }
    }
}

}  // namespace

Experiment make_experiment(Value config, const std::vector<std::string>& overrides) {
    for (const auto& assignment : overrides) core::apply_override(config, assignment);
    Experiment result;
    result.config = core::resolve(experiment_schema(), config, "");
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
    result.analyse_every = c["analysis"]["every"].as_int();
    result.checkpoint_every = c["record"]["checkpoint_every"].as_int();
    result.keep_checkpoints = c["record"]["keep_checkpoints"].as_int();
    check_needs(result, aggregator::Pipeline(c["server"]["fusion"]));
    return result;
}

Experiment load_experiment(const std::filesystem::path& path, const std::vector<std::string>& overrides) {
    Value config = core::read_yaml(path.string());
    if (config.is_map() && !config.find("name")) config.set("name", Value::of(path.stem().string()));
    return make_experiment(std::move(config), overrides);
}

Setting open_setting(const Experiment& experiment, core::Communicator& communicator) {
    Setting setting;
    setting.dataset =
        data::open_dataset(experiment.config["data"]["dataset"], {communicator, experiment.seed});
    core::collectively(communicator, [&] {
        setting.graph = model::build_model(experiment.config["model"], setting.dataset->sample_shape(),
                                           setting.dataset->classes());
        setting.symmetries = symmetry::derive(setting.graph);
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
