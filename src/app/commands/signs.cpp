#include "../context.hpp"
#include "thalweg/analysis/measures.hpp"

namespace thalweg::app {

namespace {

struct SignsArguments {
    ModelArguments model;
    std::string a, b;
};

Json agreement_json(const analysis::SignAgreement& agreement) {
    return {{"ratio", agreement.ratio},
            {"weighted", agreement.weighted},
            {"agree", agreement.agree},
            {"counted", agreement.counted},
            {"tested", agreement.tested},
            {"z", agreement.z},
            {"p", agreement.p}};
}

void signs(const Context& context, const SignsArguments& arguments) {
    const auto files = arguments.model.load(context, {arguments.a, arguments.b});
    const auto result = analysis::sign_consistency(files[0].parameters, files[1].parameters);
    record::Table table({"tensor", "same sign", "by magnitude", "entries", "z against chance", "p"});
    const auto row = [&](const std::string& name, const analysis::SignAgreement& agreement) {
        table.row({name, record::percent(agreement.ratio), record::percent(agreement.weighted),
                   std::to_string(agreement.counted), record::number(agreement.z),
                   record::number(agreement.p)});
    };
    Json tensors = Json::array();
    for (const auto& [name, agreement] : result.by_tensor) {
        Json tensor{{"name", name}};
        tensor.update(agreement_json(agreement));
        tensors.push_back(std::move(tensor));
        row(name, agreement);
    }
    table.rule();
    row("overall", result.all);
    if (arguments.model.json) {
        Json json{{"overall", result.overall}};
        json.update(agreement_json(result.all));
        json["tensors"] = std::move(tensors);
        context.print(json);
    } else {
        context.print(table.text());
    }
}

}  // namespace

void add_signs(CLI::App& program, Context& context) {
    auto* command = program.add_subcommand(
        "signs",
        "sign consistency of two models, overall and by tensor, weighted by magnitude, against chance");
    auto arguments = std::make_shared<SignsArguments>();
    command->add_option("A", arguments->a, "model file")->required();
    command->add_option("B", arguments->b, "model file of the same architecture")->required();
    arguments->model.add_model_to(*command);
    arguments->model.add_json_to(*command);
    command->footer(
        "z and p are those of signs tossed one by one. A model's signs are not independent of each other, so "
        "that p "
        "is far too small:\nit compares tensors, and to test a claim whole models must be the units.\n"
        "Example:\n  thalweg signs a.pt b-aligned.pt");
    command->callback(
        [&context, arguments] { context.action = [&context, arguments] { signs(context, *arguments); }; });
}

}  // namespace thalweg::app
