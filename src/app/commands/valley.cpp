#include "thalweg/analysis/valley.hpp"

#include <cmath>

#include "../measuring.hpp"
#include "thalweg/core/registry.hpp"
#include "thalweg/core/text.hpp"

namespace thalweg::app {

namespace {

struct ValleyArguments {
    MeasuringArguments measuring;
    std::string path;
    std::string noise = "gaussian";
    analysis::ValleyOptions options;
};

std::string noise_names() {
    std::vector<std::string> names;
    for (const auto& plugin : core::plugins_of("noise")) names.push_back(plugin.name);
    return core::join(names);
}

Json valley_json(const analysis::Valley& found, const ValleyArguments& arguments) {
    return {{"lambdas", found.lambdas},
            {"loss", found.loss},
            {"accuracy", found.accuracy},
            {"asymmetry", found.asymmetry},
            {"asymmetry_interval", {found.asymmetry_low, found.asymmetry_high}},
            {"asymmetries", found.asymmetries},
            {"errors_by_repeat", found.errors_by_repeat},
            {"sign_ratio", found.sign_ratio ? Json(*found.sign_ratio) : Json()},
            {"noise", arguments.noise},
            {"norm", arguments.options.norm},
            {"scale", arguments.options.scale},
            {"part", arguments.options.part}};
}

std::string valley_text(const analysis::Valley& found, const ValleyArguments& arguments) {
    record::Table table({"λ", "loss", "accuracy"});
    for (std::size_t p = 0; p < found.lambdas.size(); ++p) {
        table.row({record::number(found.lambdas[p]), record::number(found.loss[p]),
                   record::percent(found.accuracy[p])});
    }
    std::string text = table.text();
    text += "asymmetry (mean error at λ < 0 minus at λ > 0): " + record::percent(found.asymmetry);
    if (!std::isnan(found.asymmetry_low)) {
        text += ", 95% interval over repeats " + record::percent(found.asymmetry_low) + " to " +
                record::percent(found.asymmetry_high);
    } else if (arguments.options.repeats > 1) {
        text += ", interval unknown: all directions are equal";
    }
    return text + "\n";
}

/// θ + λε with ‖ε‖ = s‖θ‖, so that λ is a length over s‖θ‖, of all noisy entries or filter by filter.
std::string lambda_label(const analysis::ValleyOptions& options) {
    const std::string whose = options.norm == "filter" ? "each filter's length"
                              : options.part == "all"  ? "the parameters' length"
                                                       : "the part's length";
    return "λ (step ÷ " + (options.scale == 1 ? "" : record::number(options.scale) + " × ") + whose + ")";
}

/// One curve over λ with the repeats' extremes as a band.
report::Figure accuracy_figure(const analysis::Valley& found, const std::string& caption,
                               const std::string& lambda) {
    report::Figure figure{.name = "valley-accuracy", .title = "Accuracy along the noise", .caption = caption};
    figure.x = {.label = lambda};
    figure.y = {.label = "accuracy (%)"};
    report::Series series{.name = "accuracy", .x = found.lambdas, .y = {}};
    for (std::size_t p = 0; p < found.lambdas.size(); ++p) {
        double low = 1, high = 0;
        for (const auto& errors : found.errors_by_repeat) {
            low = std::min(low, 1 - errors[p]);
            high = std::max(high, 1 - errors[p]);
        }
        series.y.push_back(100 * found.accuracy[p]);
        series.low.push_back(100 * low);
        series.high.push_back(100 * high);
    }
    if (found.errors_by_repeat.size() > 1) {
        series.note =
            "mean of " + std::to_string(found.errors_by_repeat.size()) + " draws; band: their extremes";
    }
    figure.series.push_back(std::move(series));
    return figure;
}

report::Document valley_document(const analysis::Valley& found, const ValleyArguments& arguments,
                                 const std::string& on) {
    const auto& options = arguments.options;
    report::Document document{.kind = "valley", .title = "Valley about " + arguments.path};
    document.summary =
        "Asymmetry (mean error at λ < 0 minus at λ > 0): " + record::percent(found.asymmetry) + ".";
    std::string caption = arguments.noise + " noise on " + options.part + ", " + options.norm +
                          " norm, scale " + record::number(options.scale);
    if (options.sign_ratio)
        caption += ", the model's signs on " + record::percent(*options.sign_ratio, 0) + " of the entries";
    caption += "; " + on + ".";
    document.facts["asymmetry"] = found.asymmetry;
    document.facts["noise"] = arguments.noise;
    if (options.sign_ratio) document.facts["sign ratio"] = *options.sign_ratio;
    report::Figure loss{.name = "valley-loss", .title = "Loss along the noise", .caption = caption};
    loss.x = {.label = lambda_label(options)};
    loss.y = {.label = "loss (nats)"};
    loss.series.push_back({.name = "loss", .x = found.lambdas, .y = found.loss});
    document.sections.push_back(
        {.title = "Valley",
         .figures = {accuracy_figure(found, caption, lambda_label(options)), std::move(loss)}});
    return document;
}

void valley(const Context& context, ValleyArguments& arguments) {
    auto& measuring = arguments.measuring;
    measuring.require_out(context);
    arguments.options.noise = core::collectively(context.communicator, [&] {
        return core::resolve_plugin("noise", "kind", core::parse_yaml(arguments.noise, "--noise"), "noise");
    });
    const auto file = measuring.model.load(context, {arguments.path}).front();
    core::collectively(context.communicator,
                       [&] { analysis::require_valley(file.graph, arguments.options); });
    const auto dataset = measuring.model.open(context, file, arguments.path, true);
    const auto [samples, calibration] = core::collectively(context.communicator, [&] {
        const auto drawn = measuring.draw(*dataset);
        return std::pair(drawn, arguments.options.reset_batch_norm
                                    ? measuring.model.calibration(*dataset)
                                    : std::shared_ptr<const data::SampleSet>());
    });
    const auto found = analysis::valley(file.graph, file.parameters, *samples, arguments.options,
                                        measuring.model.seed, calibration, context.communicator);
    measuring.deliver(context, valley_json(found, arguments), valley_text(found, arguments),
                      valley_document(found, arguments, measuring.describe(*dataset, *samples)));
}

}  // namespace

void add_valley(CLI::App& program, Context& context) {
    auto* command =
        program.add_subcommand("valley", "loss and accuracy along random directions through a model");
    auto arguments = std::make_shared<ValleyArguments>();
    auto& options = arguments->options;
    arguments->measuring.samples = 10000;
    arguments->measuring.split = "test";
    command->add_option("MODEL", arguments->path, "model file")->required();
    command
        ->add_option("--noise", arguments->noise,
                     noise_names() + "; with options '{kind: sparse, fraction: 0.1}'")
        ->capture_default_str();
    command
        ->add_option("--sign-ratio", options.sign_ratio,
                     "share of the entries whose noise gets the model's own sign, the others the opposite "
                     "(default: signs as drawn)")
        ->check(CLI::Range(0.0, 1.0));
    command->add_option("--scale", options.scale, "length of the noise ÷ length of the parameters")
        ->capture_default_str()
        ->check(CLI::PositiveNumber);
    command->add_option("--norm", options.norm, "what is scaled: global (all as one) or filter by filter")
        ->capture_default_str()
        ->check(CLI::IsMember({"global", "filter"}));
    command->add_option("--points", options.points, "values of λ from −1 to 1")
        ->capture_default_str()
        ->check(CLI::Range(3, 1001));
    command->add_option("--repeats", options.repeats, "directions drawn")
        ->capture_default_str()
        ->check(CLI::Range(1, 10000));
    command
        ->add_option("--part", options.part,
                     "what gets noise: all, classifier, features, batch_norm, or a module's or tensor's name")
        ->capture_default_str();
    command->add_flag("--reset-batch-norm", options.reset_batch_norm,
                      "take batch norms' statistics anew at every point");
    arguments->measuring.model.add_holdout_to(*command, "--reset-batch-norm");
    arguments->measuring.add_to(*command);
    command->footer("Example:\n  thalweg valley a.pt --sign-ratio 0.75 --part features");
    command->callback(
        [&context, arguments] { context.action = [&context, arguments] { valley(context, *arguments); }; });
}

}  // namespace thalweg::app
