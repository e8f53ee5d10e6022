#include "thalweg/analysis/flatness.hpp"

#include <cmath>

#include "../measuring.hpp"

namespace thalweg::app {

namespace {

struct FlatnessArguments {
    MeasuringArguments measuring;
    std::string path;
    std::vector<double> sigmas{0.05, 0.1, 0.2, 0.3, 0.5};
    std::int64_t repeats = 10;
};

Json flatness_json(const analysis::LocalEnergy& found) {
    Json json{{"error", 1 - found.at.accuracy},
              {"loss", found.at.loss},
              {"samples", found.at.samples},
              {"points", Json::array()}};
    for (const auto& point : found.points) {
        json["points"].push_back({{"sigma", point.sigma},
                                  {"energy", point.energy},
                                  {"standard_error", point.standard_error},
                                  {"loss_rise", point.loss_rise},
                                  {"errors", point.errors}});
    }
    return json;
}

std::string flatness_text(const analysis::LocalEnergy& found) {
    record::Table table({"σ", "local energy", "± s.e.", "loss rise"});
    for (const auto& point : found.points) {
        table.row({record::number(point.sigma), record::percent(point.energy),
                   std::isnan(point.standard_error) ? "–" : record::percent(point.standard_error),
                   record::number(point.loss_rise)});
    }
    return "error without noise: " + record::percent(1 - found.at.accuracy) + "\n" + table.text();
}

report::Document flatness_document(const analysis::LocalEnergy& found, const FlatnessArguments& arguments,
                                   const std::string& on) {
    report::Document document{.kind = "flatness", .title = "Flatness about " + arguments.path};
    document.summary = "The rise of the error when every weight θ becomes θ(1 + σz), over " + on + ".";
    document.facts["error without noise"] = 1 - found.at.accuracy;
    report::Figure figure{.name = "local-energy", .title = "Local energy"};
    figure.caption =
        "Mean and standard error over " + std::to_string(arguments.repeats) + " draws of noise; " + on + ".";
    figure.x = {.label = "noise σ (relative to each weight)"};
    figure.y = {.label = "rise of the error (points)"};
    report::Series series{.name = "local energy", .x = {}, .y = {}};
    for (const auto& point : found.points) {
        series.x.push_back(point.sigma);
        series.y.push_back(100 * point.energy);
        const double half = std::isnan(point.standard_error) ? 0 : 100 * point.standard_error;
        series.low.push_back(series.y.back() - half);
        series.high.push_back(series.y.back() + half);
    }
    figure.series.push_back(std::move(series));
    document.sections.push_back({.title = "Noise", .figures = {std::move(figure)}});
    return document;
}

void flatness(const Context& context, const FlatnessArguments& arguments) {
    const auto& measuring = arguments.measuring;
    measuring.require_out(context);
    const auto file = measuring.model.load(context, {arguments.path}).front();
    const auto dataset = measuring.model.open(context, file, arguments.path, true);
    const auto samples = core::collectively(context.communicator, [&] { return measuring.draw(*dataset); });
    const auto found = analysis::local_energy(file.graph, file.parameters, *samples, arguments.sigmas,
                                              arguments.repeats, measuring.model.seed, context.communicator);
    measuring.deliver(context, flatness_json(found), flatness_text(found),
                      flatness_document(found, arguments, measuring.describe(*dataset, *samples)));
}

}  // namespace

void add_flatness(CLI::App& program, Context& context) {
    auto* command = program.add_subcommand(
        "flatness", "local energy: how the error rises under noise in proportion to each weight");
    auto arguments = std::make_shared<FlatnessArguments>();
    arguments->measuring.samples = 2000;
    command->add_option("MODEL", arguments->path, "model file")->required();
    command->add_option("--sigma", arguments->sigmas, "strengths of the noise, separated by commas")
        ->delimiter(',')
        ->capture_default_str()
        ->allow_extra_args(false);
    command->add_option("--repeats", arguments->repeats, "draws of noise")
        ->capture_default_str()
        ->check(CLI::PositiveNumber);
    arguments->measuring.add_to(*command);
    command->footer("Example:\n  thalweg flatness a.pt --sigma 0.1,0.3 --repeats 20");
    command->callback(
        [&context, arguments] { context.action = [&context, arguments] { flatness(context, *arguments); }; });
}

}  // namespace thalweg::app
