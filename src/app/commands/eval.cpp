#include "../context.hpp"
#include "thalweg/analysis/evaluate.hpp"
#include "thalweg/core/error.hpp"

namespace thalweg::app {

namespace {

struct EvalArguments {
    ModelArguments model;
    std::string path;
    std::string split = "test";
};

void eval(const Context& context, const EvalArguments& arguments) {
    const auto file = arguments.model.load(context, {arguments.path}).front();
    const auto dataset = arguments.model.open(context, file, arguments.path, true);
    Json json = Json::object();
    record::Table table({"split", "loss", "accuracy", "samples"});
    for (const std::string split : {"train", "test"}) {
        if (arguments.split != "both" && arguments.split != split) continue;
        const auto samples = split == "train" ? dataset->train() : dataset->test();
        if (!samples)
            throw core::UsageError(dataset->name() + " has no " + split +
                                   " set as a whole; use --split test");
        const auto result = analysis::evaluate(file.graph, file.parameters, *samples, context.communicator);
        const Json one = {{"loss", result.loss}, {"accuracy", result.accuracy}, {"samples", result.samples}};
        if (arguments.split == "both") {
            json[split] = one;
        } else {
            json = one;
        }
        table.row({split, record::number(result.loss), record::percent(result.accuracy),
                   std::to_string(result.samples)});
    }
    if (arguments.model.json) {
        context.print(json);
    } else {
        context.print(file.graph.summary() + " on " + dataset->name() + "\n" + table.text());
    }
}

}  // namespace

void add_eval(CLI::App& program, Context& context) {
    auto* command = program.add_subcommand("eval", "loss and accuracy of a model file");
    auto arguments = std::make_shared<EvalArguments>();
    command->add_option("MODEL", arguments->path, "model file (.pt or .safetensors)")->required();
    arguments->model.add_data_to(*command);
    arguments->model.add_model_to(*command);
    arguments->model.add_json_to(*command);
    command->add_option("--split", arguments->split, "train, test or both")
        ->capture_default_str()
        ->check(CLI::IsMember({"train", "test", "both"}));
    command->footer("Example:\n  thalweg eval runs/quickstart/final.pt --data fashion_mnist");
    command->callback(
        [&context, arguments] { context.action = [&context, arguments] { eval(context, *arguments); }; });
}

}  // namespace thalweg::app
