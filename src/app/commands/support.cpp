#include "thalweg/analysis/support.hpp"

#include "../measuring.hpp"

namespace thalweg::app {

namespace {

struct SupportArguments {
    MeasuringArguments measuring;
    std::string path;
};

using Layers = std::vector<analysis::LayerSupport>;

Json support_json(const Layers& layers, std::int64_t samples) {
    Json json{{"samples", samples}, {"layers", Json::array()}};
    for (const auto& layer : layers) {
        json["layers"].push_back({{"name", layer.layer},
                                  {"inputs", layer.inputs},
                                  {"outputs", layer.outputs},
                                  {"weights", layer.weights},
                                  {"outputs_covariance", layer.outputs_covariance},
                                  {"inputs_covariance", layer.inputs_covariance}});
    }
    return json;
}

std::string support_text(const Layers& layers) {
    record::Table table({"layer", "in", "out", "WᵀW", "WΣWᵀ", "activations in"});
    for (const auto& layer : layers) {
        table.row({layer.layer, std::to_string(layer.inputs), std::to_string(layer.outputs),
                   record::number(layer.weights), record::number(layer.outputs_covariance),
                   record::number(layer.inputs_covariance)});
    }
    return table.text();
}

report::Document support_document(const Layers& layers, const std::string& path, const std::string& on) {
    report::Document document{.kind = "support", .title = "Effective dimension of " + path};
    document.summary = "(Σλ)² ÷ Σλ² by layer, over " + on + ".";
    report::Figure figure{.name = "support", .title = "Effective dimension by layer"};
    figure.caption =
        "Of WᵀW, of WΣWᵀ and of the covariance of the activations that the layer reads; " + on + ".";
    figure.x = {.label = "layer"};
    figure.y = {.label = "effective dimension", .logarithmic = true};
    report::Series weights{.name = "WᵀW", .x = {}, .y = {}}, outputs{.name = "WΣWᵀ", .x = {}, .y = {}},
        inputs{.name = "activations in", .x = {}, .y = {}};
    for (std::size_t i = 0; i < layers.size(); ++i) {
        figure.categories.push_back(layers[i].layer);
        for (auto* series : {&weights, &outputs, &inputs}) {
            series->x.push_back(static_cast<double>(i));
            series->style = report::Series::Style::points;
        }
        weights.y.push_back(layers[i].weights);
        outputs.y.push_back(layers[i].outputs_covariance);
        inputs.y.push_back(layers[i].inputs_covariance);
    }
    figure.series = {std::move(weights), std::move(outputs), std::move(inputs)};
    document.sections.push_back({.title = "Layers", .figures = {std::move(figure)}});
    return document;
}

void support(const Context& context, const SupportArguments& arguments) {
    const auto& measuring = arguments.measuring;
    measuring.require_out(context);
    const auto file = measuring.model.load(context, {arguments.path}).front();
    const auto dataset = measuring.model.open(context, file, arguments.path, true);
    const auto samples = core::collectively(context.communicator, [&] { return measuring.draw(*dataset); });
    const auto layers = analysis::support(file.graph, file.parameters, *samples, context.communicator);
    measuring.deliver(context, support_json(layers, samples->size()), support_text(layers),
                      support_document(layers, arguments.path, measuring.describe(*dataset, *samples)));
}

}  // namespace

void add_support(CLI::App& program, Context& context) {
    auto* command = program.add_subcommand(
        "support", "effective dimension by layer, of the weights and of the activations");
    auto arguments = std::make_shared<SupportArguments>();
    command->add_option("MODEL", arguments->path, "model file")->required();
    arguments->measuring.add_to(*command);
    command->footer("Example:\n  thalweg support a.pt --samples 5000 --json");
    command->callback(
        [&context, arguments] { context.action = [&context, arguments] { support(context, *arguments); }; });
}

}  // namespace thalweg::app
