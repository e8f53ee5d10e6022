#include "thalweg/analysis/surface.hpp"

#include <algorithm>

#include "../measuring.hpp"
#include "thalweg/core/error.hpp"

namespace thalweg::app {

namespace {

struct SurfaceArguments {
    MeasuringArguments measuring;
    std::vector<std::string> paths;
    std::int64_t points = 21;
    analysis::SurfaceOptions options;
};

Json surface_json(const analysis::Surface& found, const SurfaceArguments& arguments) {
    Json json{{"x", found.x}, {"y", found.y}, {"loss", found.loss}, {"accuracy", found.accuracy}};
    json["models"] = Json::array();
    for (std::size_t i = 0; i < found.marks.size(); ++i) {
        const auto& mark = found.marks[i];
        json["models"].push_back({{"name", mark.name},
                                  {"path", arguments.paths[i]},
                                  {"x", mark.x},
                                  {"y", mark.y},
                                  {"loss", mark.evaluation.loss},
                                  {"accuracy", mark.evaluation.accuracy}});
    }
    return json;
}

std::string surface_text(const analysis::Surface& found, const SurfaceArguments& arguments) {
    record::Table models({"model", "file", "x", "y", "loss", "accuracy"});
    for (std::size_t i = 0; i < found.marks.size(); ++i) {
        const auto& mark = found.marks[i];
        models.row({mark.name, arguments.paths[i], record::number(mark.x), record::number(mark.y),
                    record::number(mark.evaluation.loss), record::percent(mark.evaluation.accuracy)});
    }
    // Few columns fit a terminal: every so many, the last one among them.
    constexpr std::size_t shown = 7;
    const auto picked = [&](std::size_t count) {
        std::vector<std::size_t> places;
        const std::size_t most = std::min(shown, count);
        for (std::size_t i = 0; i < most; ++i) places.push_back(i * (count - 1) / (most - 1));
        return places;
    };
    std::vector<std::string> header{"accuracy, y ↓ x →"};
    for (const auto c : picked(found.x.size())) header.push_back(record::number(found.x[c]));
    record::Table grid(header);
    const auto rows = picked(found.y.size());
    for (auto row = rows.rbegin(); row != rows.rend(); ++row) {
        std::vector<std::string> cells{record::number(found.y[*row])};
        for (const auto c : picked(found.x.size()))
            cells.push_back(record::percent(found.accuracy[*row][c], 1));
        grid.row(std::move(cells));
    }
    return models.text() + "\n" + grid.text();
}

report::Figure surface_figure(const std::string& name, const std::string& title, const std::string& label,
                              const analysis::Surface& found, std::vector<std::vector<double>> values,
                              std::vector<double> contours, const std::string& caption) {
    report::Figure figure{.name = name, .title = title, .caption = caption};
    const bool one = found.marks.size() == 1;
    figure.x = {.label = one ? "first direction (filter norms)" : "from A towards B (Euclidean length)"};
    figure.y = {.label = one ? "second direction (filter norms)" : "towards C (Euclidean length)"};
    report::Grid grid{.rows = found.y,
                      .columns = found.x,
                      .values = std::move(values),
                      .label = label,
                      .contours = contours};
    for (const auto& mark : found.marks) grid.marks.push_back({mark.name, mark.x, mark.y});
    figure.grid = std::move(grid);
    return figure;
}

report::Document surface_document(const analysis::Surface& found, const SurfaceArguments& arguments,
                                  const std::string& on) {
    report::Document document{.kind = "surface", .title = "Surface through " + arguments.paths.front()};
    document.summary = arguments.paths.size() == 1
                           ? "Loss and accuracy in two random filter-normalised directions from the model."
                           : "Loss and accuracy in the plane through three models.";
    auto percents = found.accuracy;
    for (auto& row : percents)
        for (double& value : row) value *= 100;
    const std::string caption = on + ".";
    document.sections.push_back(
        {.title = "Surface",
         .figures = {surface_figure("surface-accuracy", "Accuracy", "accuracy (%)", found,
                                    std::move(percents), report::accuracy_contours(), caption),
                     surface_figure("surface-loss", "Loss", "loss (nats)", found, found.loss,
                                    report::loss_contours(found.loss), caption)}});
    return document;
}

void surface(const Context& context, const SurfaceArguments& arguments) {
    const auto& measuring = arguments.measuring;
    if (arguments.paths.size() != 1 && arguments.paths.size() != 3) {
        throw core::UsageError("A plane goes through three models, or through one in random directions; " +
                               std::to_string(arguments.paths.size()) + " were given.");
    }
    measuring.require_out(context);
    const auto files = measuring.model.load(context, arguments.paths);
    const auto dataset = measuring.model.open(context, files[0], arguments.paths[0], true);
    const auto [samples, calibration] = core::collectively(context.communicator, [&] {
        const auto drawn = measuring.draw(*dataset);
        return std::pair(drawn, arguments.options.reset_batch_norm
                                    ? measuring.model.calibration(*dataset)
                                    : std::shared_ptr<const data::SampleSet>());
    });
    const auto plane = core::collectively(context.communicator, [&] {
        if (files.size() == 1)
            return analysis::random_plane(files[0].graph, files[0].parameters, measuring.model.seed);
        return analysis::plane_through(files[0].parameters, files[1].parameters, files[2].parameters);
    });
    auto options = arguments.options;
    options.columns = options.rows = arguments.points;
    const auto found =
        analysis::surface(files[0].graph, plane, *samples, options, calibration, context.communicator);
    measuring.deliver(context, surface_json(found, arguments), surface_text(found, arguments),
                      surface_document(found, arguments, measuring.describe(*dataset, *samples)));
}

}  // namespace

void add_surface(CLI::App& program, Context& context) {
    auto* command = program.add_subcommand(
        "surface", "loss and accuracy on a plane through three models, or about one in random directions");
    auto arguments = std::make_shared<SurfaceArguments>();
    arguments->measuring.samples = 2000;
    arguments->measuring.split = "test";
    command->add_option("MODELS", arguments->paths, "A, or A B C of one architecture")
        ->required()
        ->expected(1, 3);
    command->add_option("--points", arguments->points, "points along each axis")
        ->capture_default_str()
        ->check(CLI::Range(2, 501));
    command
        ->add_option("--range", arguments->options.range,
                     "of one model: the axes reach so many filter norms to each side")
        ->capture_default_str()
        ->check(CLI::PositiveNumber);
    command
        ->add_option("--margin", arguments->options.margin,
                     "of three models: room on every side, as a share of their extent")
        ->capture_default_str()
        ->check(CLI::NonNegativeNumber);
    command->add_flag("--reset-batch-norm", arguments->options.reset_batch_norm,
                      "take batch norms' statistics anew at every point");
    arguments->measuring.model.add_holdout_to(*command, "--reset-batch-norm");
    arguments->measuring.add_to(*command);
    command->footer("Example:\n  thalweg surface a.pt b.pt c.pt --points 31 --out plane");
    command->callback(
        [&context, arguments] { context.action = [&context, arguments] { surface(context, *arguments); }; });
}

}  // namespace thalweg::app
