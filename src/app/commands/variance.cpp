#include <set>

#include "../measuring.hpp"
#include "thalweg/analysis/measures.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/text.hpp"

namespace thalweg::app {

namespace {

struct VarianceArguments {
    ModelArguments model;
    std::vector<std::string> paths;
    std::string merged, out;
    std::string align = "none", finish = "none";
};

struct Layer {
    std::string name;
    double ratio = 0;
    analysis::DeviationRatio deviation;
    bool repaired = false;
};

aggregator::Pipeline pipeline_of(const VarianceArguments& arguments) {
    std::string text = arguments.align == "none" ? "" : arguments.align + "+";
    text += "mean(weights=uniform)";
    if (arguments.finish == "rescale") {
        text += "+repair(mode=rescale)";
    } else if (arguments.finish != "none") {
        text += "+" + arguments.finish;
    }
    return aggregator::Pipeline::parse(text);
}

/// The models in the frame in which they are merged: alignments move them.
struct Ends {
    aggregator::FusionState state;
    aggregator::FusionContext context;
};

/// Merges the models, or takes `merged` as it is; `ends` become those that the merged model is compared with. Collective.
model::Parameters merge(const VarianceArguments& arguments, Ends& ends,
                        const std::optional<model::Parameters>& merged) {
    if (merged) return *merged;
    const auto pipeline = pipeline_of(arguments);
    aggregator::FusionState state = ends.state;
    pipeline.run(state, ends.context, [&](std::size_t index, const aggregator::FusionState& reached) {
        if (index + 1 == pipeline.reduction()) ends.state.updates = reached.updates;
    });
    return state.merged;
}

std::vector<Layer> measure(const Ends& ends, const model::Parameters& merged,
                           aggregator::StatisticsSource& source) {
    const auto& graph = ends.context.graph;
    const std::vector<double> weights(ends.context.members.size(),
                                      1.0 / static_cast<double>(ends.context.members.size()));
    const auto moments =
        aggregator::end_moments(ends.state, ends.context, source, analysis::variance_ratio_operations(graph));
    const auto ratios = analysis::variance_ratio(merged, moments, ends.context, source, weights);
    const auto deviations = analysis::deviation_ratio(merged, moments, ends.context, source, weights);
    const auto repaired = aggregator::repaired_operations(graph, {});
    const std::set<std::size_t> mended(repaired.begin(), repaired.end());
    std::vector<Layer> layers;
    for (std::size_t i = 0; i < ratios.size(); ++i) {
        layers.push_back({.name = ratios[i].layer,
                          .ratio = ratios[i].ratio,
                          .deviation = deviations[i],
                          .repaired = mended.count(moments.operations[i]) > 0});
    }
    return layers;
}

Json variance_json(const std::vector<Layer>& layers) {
    Json json = Json::array();
    for (const auto& layer : layers) {
        json.push_back({{"name", layer.name},
                        {"variance_ratio", layer.ratio},
                        {"deviation_ratio",
                         {{"mean", layer.deviation.mean},
                          {"min", layer.deviation.min},
                          {"max", layer.deviation.max},
                          {"channels", layer.deviation.channels}}},
                        {"repairable", layer.repaired}});
    }
    return {{"layers", std::move(json)}};
}

std::string variance_text(const std::vector<Layer>& layers) {
    record::Table table({"layer", "variance ratio", "σ ratio", "least", "largest", "repairable"});
    for (const auto& layer : layers) {
        table.row({layer.name, record::number(layer.ratio), record::number(layer.deviation.mean),
                   record::number(layer.deviation.min), record::number(layer.deviation.max),
                   layer.repaired ? "yes" : "no"});
    }
    return table.text();
}

/// Which layers REPAIR mends, for captions.
std::string repairable_text(const std::vector<Layer>& layers) {
    std::vector<std::string> left;
    for (const auto& layer : layers) {
        if (!layer.repaired) left.push_back(layer.name);
    }
    if (left.empty()) return "REPAIR mends each of these layers.";
    if (left.size() == layers.size()) return "REPAIR mends none of these layers.";
    return "REPAIR mends these layers but " + core::join(left) + ".";
}

report::Document variance_document(const std::vector<Layer>& layers, const VarianceArguments& arguments,
                                   const std::string& on) {
    report::Document document{.kind = "variance", .title = "Variance of a merged model"};
    document.summary = "Pre-activations of the merged model beside those of " + core::join(arguments.paths) +
                       ", over " + on + ".";
    report::Figure figure{.name = "variance", .title = "Variance and deviation ratio by layer"};
    figure.caption =
        "Variance: mean over channels, merged ÷ mean of the ends. Deviation: merged σ ÷ mean σ of the "
        "ends, mean over channels with its range. 1 is healthy. " +
        repairable_text(layers) + " Measured on " + on + ".";
    figure.x = {.label = "layer"};
    figure.y = {.label = "ratio (1)", .low = 0.0};
    report::Series variance{.name = "variance ratio", .x = {}, .y = {}},
        deviation{.name = "σ ratio", .x = {}, .y = {}};
    for (std::size_t i = 0; i < layers.size(); ++i) {
        figure.categories.push_back(layers[i].name);
        variance.x.push_back(static_cast<double>(i));
        deviation.x.push_back(static_cast<double>(i));
        variance.y.push_back(layers[i].ratio);
        deviation.y.push_back(layers[i].deviation.mean);
        deviation.low.push_back(layers[i].deviation.min);
        deviation.high.push_back(layers[i].deviation.max);
    }
    variance.style = deviation.style = report::Series::Style::points;
    figure.series = {std::move(variance), std::move(deviation)};
    document.sections.push_back({.title = "Layers", .figures = {std::move(figure)}});
    return document;
}

void require_sense(const VarianceArguments& arguments) {
    if (arguments.paths.size() < 2)
        throw core::UsageError(
            "variance compares a merged model with the models it was made of: give at least two");
    if (!arguments.merged.empty() && (arguments.align != "none" || arguments.finish != "none"))
        throw core::UsageError(
            "--merged takes a model as it is; --align and --finish make one. Leave one of the two out");
    const auto pipeline = pipeline_of(arguments);
    for (const auto& item : pipeline.items()) {
        if (!item.traits.grows) continue;
        throw core::UsageError("--align: the stage " + item.name +
                               " makes a merged model of another architecture, whose layers cannot be "
                               "compared with those it was made of; set grow: false, as in '" +
                               item.name + "(grow=false)'");
    }
}

void variance(const Context& context, const VarianceArguments& arguments) {
    require_sense(arguments);
    require_folder(context, arguments.out);
    auto paths = arguments.paths;
    if (!arguments.merged.empty()) paths.push_back(arguments.merged);
    auto files = arguments.model.load(context, paths);
    std::optional<model::Parameters> merged;
    if (!arguments.merged.empty()) {
        merged = files.back().parameters;
        files.pop_back();
    }
    const auto& graph = files[0].graph;
    const auto dataset = arguments.model.open(context, files[0], arguments.paths[0], true);
    const auto samples =
        core::collectively(context.communicator, [&] { return arguments.model.calibration(*dataset); });
    const auto symmetries = core::collectively(context.communicator, [&] {
        auto derived = symmetry::derive(graph);
        if (context.is_root && arguments.align != "none") symmetry::require_proof(graph, derived);
        return derived;
    });
    const auto source = aggregator::server_statistics(graph, samples, context.communicator);
    Ends ends{.state = {},
              .context = {.graph = graph,
                          .symmetries = symmetries,
                          .communicator = context.communicator,
                          .seed = arguments.model.seed,
                          .members = {},
                          .server = source.get(),
                          .holdout = samples}};
    core::collectively(context.communicator, [&] {
        for (std::size_t i = 0; i < files.size(); ++i) {
            const int owner = static_cast<int>(i) % context.communicator.size();
            const auto id = static_cast<std::int64_t>(i);
            ends.context.members.push_back({.client = id, .samples = 1, .owner = owner});
            if (owner == context.communicator.rank())
                ends.state.updates.push_back(
                    {.client = id, .samples = 1, .parameters = files[i].parameters.clone()});
        }
    });
    const auto model = merge(arguments, ends, merged);
    const auto layers = measure(ends, model, *source);
    const std::string on =
        record::number(static_cast<double>(samples->size())) + " training samples of " + dataset->name();
    deliver(context, arguments.model.json, variance_json(layers), variance_text(layers),
            variance_document(layers, arguments, on), arguments.out);
}

}  // namespace

void add_variance(CLI::App& program, Context& context) {
    auto* command = program.add_subcommand(
        "variance", "variance of a merged model's pre-activations beside those of the models it was made of");
    auto arguments = std::make_shared<VarianceArguments>();
    command
        ->add_option("MODELS", arguments->paths,
                     "the models that were merged, with equal weights; at least two")
        ->required();
    command->add_option("--merged", arguments->merged,
                        "the merged model, in the frame of MODELS (default: their mean, made here)");
    command
        ->add_option("--align", arguments->align,
                     "before the mean: none, or an aligning stage (thalweg list stage), as weight_matching")
        ->capture_default_str();
    command
        ->add_option("--finish", arguments->finish, "after the mean: none, repair, rescale, reset_batch_norm")
        ->capture_default_str()
        ->check(CLI::IsMember({"none", "repair", "rescale", "reset_batch_norm"}));
    command->add_option("--out", arguments->out, "folder for report.html, result.json and the figures");
    arguments->model.add_data_to(*command);
    arguments->model.add_holdout_to(*command, "the statistics, --align and --finish");
    arguments->model.add_model_to(*command);
    arguments->model.add_json_to(*command);
    command->footer("Example:\n  thalweg variance a.pt b.pt --align weight_matching --finish repair");
    command->callback(
        [&context, arguments] { context.action = [&context, arguments] { variance(context, *arguments); }; });
}

}  // namespace thalweg::app
