#include <algorithm>
#include <cmath>

#include "../context.hpp"
#include "thalweg/aggregator/stage.hpp"
#include "thalweg/analysis/evaluate.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/federation/federation.hpp"

namespace thalweg::app {

namespace {

struct FuseArguments {
    ModelArguments model;
    std::vector<std::string> paths;
    std::string pipeline = "weight_matching+mean";
    std::vector<double> weights;
    std::string base, out;
};

/// `--weights` as sample counts with a common scale, 2^40 in all: the mean weighs by samples.
std::vector<std::int64_t> pseudo_samples(const FuseArguments& arguments) {
    if (arguments.weights.empty()) return std::vector<std::int64_t>(arguments.paths.size(), 1);
    if (arguments.weights.size() != arguments.paths.size()) {
        throw core::UsageError("--weights gives " + std::to_string(arguments.weights.size()) +
                               " numbers for " + std::to_string(arguments.paths.size()) +
                               " models; give one for each");
    }
    for (const double weight : arguments.weights) {
        if (!(weight > 0) || !std::isfinite(weight))
            throw core::UsageError("--weights must be greater than 0");
    }
    const double largest = *std::max_element(arguments.weights.begin(), arguments.weights.end());
    double sum = 0;
    for (const double weight : arguments.weights) sum += weight / largest;
    std::vector<std::int64_t> samples;
    for (const double weight : arguments.weights)
        samples.push_back(std::max<std::int64_t>(1, std::llround(weight / largest / sum * 0x1p40)));
    return samples;
}

void require_base(const aggregator::Pipeline& pipeline) {
    for (const auto& item : pipeline.items()) {
        if (item.traits.needs_base) {
            throw core::UsageError(
                "the stage '" + item.name +
                "' goes by what training changed in a model that all started from; give it with "
                "--base BASE.pt");
        }
    }
}

void check_needs(const aggregator::Pipeline& pipeline, bool has_data) {
    for (const auto& item : pipeline.items()) {
        if (item.traits.needs_clients) {
            throw core::UsageError(
                "the stage '" + item.name +
                "' asks the clients for statistics, and offline there are none; use the server's, " +
                item.name + "(statistics=server), with --data");
        }
        if (item.traits.needs_holdout && !has_data) {
            throw core::UsageError("the stage '" + item.name + "' needs samples; give --data NAME[:PATH]");
        }
    }
}

Json evaluation_json(const std::optional<analysis::Evaluation>& evaluation) {
    if (!evaluation) return {{"loss", nullptr}, {"accuracy", nullptr}};
    return {{"loss", evaluation->loss}, {"accuracy", evaluation->accuracy}};
}

void fuse(const Context& context, const FuseArguments& arguments) {
    if (arguments.paths.size() < 2) {
        throw core::UsageError("fuse merges at least two model files, and only '" + arguments.paths[0] +
                               "' was given");
    }
    require_writable(context, arguments.out);
    const auto pipeline = aggregator::Pipeline::parse(arguments.pipeline);
    if (arguments.base.empty()) require_base(pipeline);
    for (const auto& item : pipeline.items()) {
        for (const std::int64_t client : item.traits.names_clients) {
            if (client >= static_cast<std::int64_t>(arguments.paths.size()))
                throw core::UsageError("the stage '" + item.name + "' speaks of client " +
                                       std::to_string(client) + ", and the files are numbered 0 to " +
                                       std::to_string(arguments.paths.size() - 1));
        }
    }
    const auto samples = pseudo_samples(arguments);
    auto paths = arguments.paths;
    if (!arguments.base.empty()) paths.push_back(arguments.base);  // has to be of the same architecture
    // Other widths are carried to those of the first file.
    const bool any_width = std::any_of(pipeline.items().begin(), pipeline.items().end(),
                                       [](const auto& item) { return item.traits.takes_any_width; });
    auto files = arguments.model.load(context, paths, any_width && arguments.base.empty());
    std::optional<model::Parameters> base;
    if (!arguments.base.empty()) {
        base = files.back().parameters;
        files.pop_back();
    }
    const auto& graph = files[0].graph;
    const auto dataset = arguments.model.open(context, files[0], arguments.paths[0], false);
    check_needs(pipeline, dataset != nullptr);
    const auto& reduction = pipeline.items()[pipeline.reduction()];
    const bool weighs = std::any_of(pipeline.items().begin(), pipeline.items().end(), [](const auto& item) {
        return item.options.has("weights") && item.options["weights"].as_text() == "samples";
    });
    if (!arguments.weights.empty() && !weighs && !reduction.options.has("weights")) {
        throw core::UsageError(
            "--weights has no effect with " + arguments.pipeline +
            ": no stage of it weighs the models; leave --weights out, or reduce with mean");
    }
    if (!arguments.weights.empty() && !weighs && reduction.options.has("weights")) {
        throw core::UsageError("--weights has no effect with " + reduction.name + "(weights=" +
                               reduction.options["weights"].as_text() + "); leave one of the two out");
    }

    const auto symmetries = core::collectively(context.communicator, [&] {
        auto derived = symmetry::derive(graph);
        if (context.is_root && pipeline.permutes()) symmetry::require_proof(graph, derived);
        return derived;
    });
    aggregator::FusionContext fusion{.graph = graph,
                                     .symmetries = symmetries,
                                     .communicator = context.communicator,
                                     .seed = arguments.model.seed,
                                     .members = {},
                                     .global = base ? &*base : nullptr};
    std::unique_ptr<aggregator::StatisticsSource> server;
    if (dataset) {
        fusion.holdout =
            core::collectively(context.communicator, [&] { return arguments.model.calibration(*dataset); });
        server = aggregator::server_statistics(graph, fusion.holdout, context.communicator);
        fusion.server = server.get();
    }
    aggregator::FusionState state;
    // Copies take memory, which one rank may lack: the others have to hear of it.
    core::collectively(context.communicator, [&] {
        for (std::size_t i = 0; i < files.size(); ++i) {
            const int owner = static_cast<int>(i) % context.communicator.size();
            const auto id = static_cast<std::int64_t>(i);
            const bool same = *files[i].graph.layout == *graph.layout;
            if (same)  // in its tensors; in what it does with them as well?
                model::require_same_architecture(files[i].graph, arguments.paths[i], graph,
                                                 arguments.paths[0]);
            const auto own = same ? nullptr : std::make_shared<const model::ModelGraph>(files[i].graph);
            fusion.members.push_back({.client = id, .samples = samples[i], .owner = owner, .graph = own});
            if (owner == context.communicator.rank()) {
                state.updates.push_back({.client = id,
                                         .samples = samples[i],
                                         .parameters = files[i].parameters.clone(),
                                         .graph = own});
            }
        }
    });
    const auto score = [&](const model::ModelGraph& of,
                           const model::Parameters& parameters) -> std::optional<analysis::Evaluation> {
        if (!dataset) return std::nullopt;
        return analysis::evaluate(of, parameters, *dataset->test(), context.communicator);
    };
    Json json = {{"pipeline", arguments.pipeline}, {"inputs", Json::array()}};
    record::Table table({"model", "test accuracy", "test loss"});
    const auto add_row = [&](const std::string& name, const std::optional<analysis::Evaluation>& evaluation) {
        table.row({name, evaluation ? record::percent(evaluation->accuracy) : "–",
                   evaluation ? record::number(evaluation->loss) : "–"});
    };
    for (std::size_t i = 0; i < files.size(); ++i) {
        const auto evaluation = score(files[i].graph, files[i].parameters);
        Json input = evaluation_json(evaluation);
        input["path"] = arguments.paths[i];
        json["inputs"].push_back(std::move(input));
        add_row(arguments.paths[i], evaluation);
    }
    const auto reports = pipeline.run(state, fusion);
    const auto& fused_graph = state.architecture ? state.architecture->graph : graph;
    const auto fused = score(fused_graph, state.merged);
    json["fused"] = evaluation_json(fused);
    json["stages"] = Json::array();
    for (const auto& report : reports) json["stages"].push_back(federation::stage_record(report));
    json["out"] = arguments.out;
    core::collectively(context.communicator, [&] {
        if (context.is_root)
            model::save_model(arguments.out, fused_graph, state.merged, arguments.model.meta(files[0]));
    });
    if (arguments.model.json) {
        context.print(json);
        return;
    }
    table.rule();
    add_row(arguments.pipeline, fused);
    context.print(
        table.text() +
        (dataset ? "" : "No data: the models were not evaluated; --data NAME[:PATH] evaluates them.\n") +
        "written to " + arguments.out + "\n");
}

}  // namespace

void add_fuse(CLI::App& program, Context& context) {
    auto* command = program.add_subcommand(
        "fuse", "merges model files offline: of one architecture, or of several widths");
    auto arguments = std::make_shared<FuseArguments>();
    command->add_option("MODELS", arguments->paths, "model files, at least two")->required();
    command
        ->add_option(
            "--pipeline", arguments->pipeline,
            "stages joined by '+', options in parentheses: 'merge_many+mean(weights=uniform)+repair'")
        ->capture_default_str();
    command
        ->add_option("--weights", arguments->weights,
                     "one number a model, separated by commas (default: equal)")
        ->delimiter(',')
        ->allow_extra_args(false);
    command->add_option(
        "--base", arguments->base,
        "the model all started from: what ties and dare count changes from, and the anchor `global`");
    command->add_option("--out", arguments->out, "model file to write")->required();
    arguments->model.add_data_to(*command);
    arguments->model.add_holdout_to(*command);
    arguments->model.add_model_to(*command);
    arguments->model.add_json_to(*command);
    command->footer(
        "Example:\n  thalweg fuse a.pt b.pt c.pt --pipeline merge_many+mean+repair --out fused.pt");
    command->callback(
        [&context, arguments] { context.action = [&context, arguments] { fuse(context, *arguments); }; });
}

}  // namespace thalweg::app
