#include "../context.hpp"
#include "thalweg/analysis/evaluate.hpp"
#include "thalweg/clients/training.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/federation/experiment.hpp"

namespace thalweg::app {

namespace {

struct TrainArguments {
    ConfigArguments config;
    std::string out;
    bool json = false;
};

/// One model on the whole training set, as client 0 of a federation of one would train it.
void train(const Context& context, const TrainArguments& arguments) {
    require_writable(context, arguments.out);
    const auto experiment = arguments.config.load(context);
    const auto setting = federation::open_setting(experiment, context.communicator);
    auto parameters = federation::initial_model(setting.graph, experiment.seed, -1);
    clients::LocalResult result;
    core::collectively(context.communicator, [&] {
        if (!context.is_root) return;  // one model is one client's work; more ranks cannot help
        const auto samples = setting.dataset->train();
        if (!samples) {
            throw core::UsageError(
                setting.dataset->name() +
                " has no training set as a whole, only clients' parts; train a model on another data set");
        }
        clients::LocalTrainer trainer(setting.graph, experiment.plan, experiment.seed);
        record::Progress progress(true, 1, "training");
        result = trainer.train(parameters, *samples, 0, 1,
                               [&](double fraction) { progress.update(fraction, "training"); });
        progress.finish();
        model::save_model(arguments.out, setting.graph, parameters, federation::model_meta(experiment));
    });
    context.communicator.broadcast(
        {static_cast<std::byte*>(parameters.values.data_ptr()), parameters.values.nbytes()}, 0);
    const auto test =
        analysis::evaluate(setting.graph, parameters, *setting.dataset->test(), context.communicator);
    if (arguments.json) {
        context.print(
            Json{{"file", arguments.out},
                 {"train", {{"loss", result.loss}, {"steps", result.steps}, {"seconds", result.seconds}}},
                 {"test", {{"loss", test.loss}, {"accuracy", test.accuracy}, {"samples", test.samples}}}});
    } else {
        context.print(setting.graph.summary() + ", " + std::to_string(result.steps) + " steps in " +
                      record::number(result.seconds) + " s: training loss " + record::number(result.loss) +
                      ", test accuracy " + record::percent(test.accuracy) + "\nwritten to " + arguments.out +
                      "\n");
    }
}

}  // namespace

void add_train(CLI::App& program, Context& context) {
    auto* command = program.add_subcommand(
        "train", "trains one model on the whole training set with the configuration's clients section");
    auto arguments = std::make_shared<TrainArguments>();
    arguments->config.add_to(*command);
    command->add_option("--out", arguments->out, "model file to write")->required();
    command->add_flag("--json", arguments->json, "one JSON document on stdout");
    command->footer("Example:\n  thalweg train configs/reproduce/merge-mlp-128.yaml seed=2 --out b.pt");
    command->callback(
        [&context, arguments] { context.action = [&context, arguments] { train(context, *arguments); }; });
}

}  // namespace thalweg::app
