#include "thalweg/analysis/cka.hpp"

#include "../measuring.hpp"
#include "thalweg/core/error.hpp"

namespace thalweg::app {

namespace {

struct CkaArguments {
    MeasuringArguments measuring;
    std::string a, b;
    std::string spatial = "flatten";
};

std::string cka_text(const analysis::Cka& found) {
    std::vector<std::string> header{"A \\ B"};
    header.insert(header.end(), found.layers_b.begin(), found.layers_b.end());
    record::Table table(header);
    for (std::size_t i = 0; i < found.layers_a.size(); ++i) {
        std::vector<std::string> cells{found.layers_a[i]};
        for (const double value : found.matrix[i]) cells.push_back(record::number(value));
        table.row(std::move(cells));
    }
    return table.text();
}

report::Document cka_document(const analysis::Cka& found, const CkaArguments& arguments,
                              const std::string& on) {
    report::Document document{.kind = "cka", .title = "Linear CKA of " + arguments.a + " and " + arguments.b};
    document.summary = "How similar the layers' outputs are, over " + on + ".";
    report::Figure figure{.name = "cka", .title = "Linear CKA"};
    figure.caption = "Rows: layers of " + arguments.a + "; columns: layers of " + arguments.b +
                     ". Pre-activations, " + arguments.spatial + "; " + on + ".";
    figure.x = {.label = "layer of " + arguments.b};
    figure.y = {.label = "layer of " + arguments.a};
    figure.grid = report::Grid{.row_names = found.layers_a,
                               .column_names = found.layers_b,
                               .values = found.matrix,
                               .label = "linear CKA"};
    document.sections.push_back({.title = "Layers", .figures = {std::move(figure)}});
    return document;
}

void cka(const Context& context, const CkaArguments& arguments) {
    const auto& measuring = arguments.measuring;
    measuring.require_out(context);
    const auto files = measuring.model.load(context, {arguments.a, arguments.b}, true);
    if (files[0].graph.input_shape() != files[1].graph.input_shape())
        throw core::UsageError("'" + arguments.a + "' and '" + arguments.b +
                               "' take inputs of different shapes; CKA compares models on the same samples");
    const auto dataset = measuring.model.open(context, files[0], arguments.a, true);
    const auto samples = core::collectively(context.communicator, [&] { return measuring.draw(*dataset); });
    const auto found = analysis::cka(files[0].graph, files[0].parameters, files[1].graph, files[1].parameters,
                                     *samples, analysis::spatial_of(arguments.spatial), context.communicator);
    const Json json{
        {"layers_a", found.layers_a},   {"layers_b", found.layers_b},
        {"matrix", found.matrix},       {"diagonal", found.diagonal.empty() ? Json() : Json(found.diagonal)},
        {"spatial", arguments.spatial}, {"samples", samples->size()}};
    measuring.deliver(context, json, cka_text(found),
                      cka_document(found, arguments, measuring.describe(*dataset, *samples)));
}

}  // namespace

void add_cka(CLI::App& program, Context& context) {
    auto* command =
        program.add_subcommand("cka", "similarity of two models' layers: linear centred kernel alignment");
    auto arguments = std::make_shared<CkaArguments>();
    arguments->measuring.samples = 500;
    arguments->measuring.split = "test";
    command->add_option("A", arguments->a, "model file")->required();
    command->add_option("B", arguments->b, "model file, of any architecture that takes the same samples")
        ->required();
    command
        ->add_option("--spatial", arguments->spatial,
                     "features of images: flatten (every channel at every position) or channels (means over "
                     "positions)")
        ->capture_default_str()
        ->check(CLI::IsMember({"flatten", "channels"}));
    arguments->measuring.add_to(*command);
    command->footer("Example:\n  thalweg cka a.pt b.pt --samples 1000 --out similarity");
    command->callback(
        [&context, arguments] { context.action = [&context, arguments] { cka(context, *arguments); }; });
}

}  // namespace thalweg::app
