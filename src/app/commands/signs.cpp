#include "../context.hpp"
#include "thalweg/analysis/measures.hpp"

namespace thalweg::app {

namespace {

struct SignsArguments {
    ModelArguments model;
    std::string a, b;
};

void signs(const Context& context, const SignsArguments& arguments) {
    const auto files = arguments.model.load(context, {arguments.a, arguments.b});
    const auto result = analysis::sign_consistency(files[0].parameters, files[1].parameters);
    Json tensors = Json::array();
    record::Table table({"tensor", "same sign"});
    for (const auto& [name, ratio] : result.tensors) {
        tensors.push_back({{"name", name}, {"ratio", ratio}});
        table.row({name, record::percent(ratio)});
    }
    table.rule();
    table.row({"overall", record::percent(result.overall)});
    if (arguments.model.json) {
        context.print(Json{{"overall", result.overall}, {"tensors", tensors}});
    } else {
        context.print(table.text());
    }
}

}  // namespace

void add_signs(CLI::App& program, Context& context) {
    auto* command = program.add_subcommand("signs", "sign consistency of two models, overall and by tensor");
    auto arguments = std::make_shared<SignsArguments>();
    command->add_option("A", arguments->a, "model file")->required();
    command->add_option("B", arguments->b, "model file of the same architecture")->required();
    arguments->model.add_model_to(*command);
    arguments->model.add_json_to(*command);
    command->footer("Example:\n  thalweg signs a.pt b-aligned.pt");
    command->callback(
        [&context, arguments] { context.action = [&context, arguments] { signs(context, *arguments); }; });
}

}  // namespace thalweg::app
