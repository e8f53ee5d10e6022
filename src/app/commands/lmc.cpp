#include "../measuring.hpp"
#include "lmc_result.hpp"
#include "thalweg/aggregator/exchange.hpp"
#include "thalweg/aggregator/matching.hpp"
#include "thalweg/analysis/measures.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/schema.hpp"
#include "thalweg/core/text.hpp"

namespace thalweg::app {

namespace {

void require_method(const std::string& method) {
    if (method == "none") return;
    try {
        aggregator::require_alignment_method(method);
    } catch (const core::UsageError& error) {
        throw core::UsageError(std::string("--align: ") + error.what() + " (or none)");
    }
}

std::vector<analysis::Split> splits_of(const Context& context, const LmcArguments& arguments,
                                       const data::Dataset& dataset, const data::SampleSet* train,
                                       const data::SampleSet* test) {
    std::vector<analysis::Split> splits;
    if (arguments.split != "test" && train) splits.push_back({"train", train});
    if (arguments.split != "train") splits.push_back({"test", test});
    if (splits.empty())
        throw core::UsageError(dataset.name() + " has no train set as a whole; use --split test");
    if (arguments.split == "both" && !train && context.is_root)
        record::note(dataset.name() + " has no train set as a whole, so the test set alone is measured");
    return splits;
}

/// The free point of a bent path, trained by rank 0 for all: on unlike processors others would train another one. Collective.
model::Parameters trained_bend(const Context& context, const LmcArguments& arguments,
                               const model::ModelGraph& graph, const model::Parameters& a,
                               const model::Parameters& b, const data::Dataset& dataset) {
    const auto bend = core::collectively(context.communicator, [&] {
        const auto train = dataset.train();
        if (!train) {
            throw core::UsageError("--path " + arguments.path + " is trained, and " + dataset.name() +
                                   " has no train set as a whole; use line or geodesic");
        }
        if (!context.is_root) return model::Parameters();
        return analysis::train_bend(graph, a, b, arguments.path, *train, arguments.bend,
                                    arguments.model.seed);
    });
    const symmetry::Symmetries none;
    const aggregator::FusionContext fusion{.graph = graph,
                                           .symmetries = none,
                                           .communicator = context.communicator,
                                           .members = {},
                                           .holdout = nullptr};
    return aggregator::broadcast_parameters(bend, 0, fusion);
}

/// The way from A to B, the same on every rank. Collective.
std::unique_ptr<analysis::Path> make_path(const Context& context, const LmcArguments& arguments,
                                          const model::ModelGraph& graph, const model::Parameters& a,
                                          const model::Parameters& b, const data::Dataset& dataset) {
    model::Parameters bend;
    const bool bent = arguments.path == "bezier" || arguments.path == "polygon";
    if (bent) bend = trained_bend(context, arguments, graph, a, b, dataset);
    return core::collectively(context.communicator, [&] {
        if (arguments.path == "bezier") return analysis::bezier_path(a, bend, b);
        if (arguments.path == "polygon") return analysis::polygon_path(a, bend, b);
        if (arguments.path == "geodesic") return analysis::geodesic_path(graph, a, b);
        return analysis::line_path(a, b);
    });
}

/// A trained bend has the running statistics of the line's middle; without a finish no point between the ends has its own.
bool has_stale_norms(const LmcArguments& arguments, const model::ModelGraph& graph) {
    const bool bent = arguments.path == "bezier" || arguments.path == "polygon";
    return bent && arguments.curve.finish == "none" && analysis::has_batch_norm(graph);
}

/// B in A's basin. Every rank computes the same permutation: it is a function of the models and the seed alone.
model::Parameters aligned(const Context& context, const LmcArguments& arguments,
                          const model::ModelGraph& graph, const model::Parameters& a,
                          const model::Parameters& b,
                          const std::shared_ptr<const data::SampleSet>& calibration) {
    const auto symmetries = symmetry::derive(graph);
    if (context.is_root) symmetry::require_proof(graph, symmetries);
    const auto match =
        aggregator::align(arguments.align, {graph, symmetries, a, b, calibration}, arguments.model.seed);
    return aggregator::moved_model(graph, symmetries, b, match);
}

void lmc(const Context& context, const LmcArguments& arguments) {
    require_method(arguments.align);
    require_folder(context, arguments.out);
    auto files = arguments.model.load(context, {arguments.a, arguments.b});
    const auto& graph = files[0].graph;
    const auto dataset = arguments.model.open(context, files[0], arguments.a, true);
    const auto calibration =
        core::collectively(context.communicator, [&] { return arguments.model.calibration(*dataset); });
    const auto train = dataset->train();
    const auto test = dataset->test();
    const auto splits = splits_of(context, arguments, *dataset, train.get(), test.get());
    model::Parameters a = files[0].parameters, b = files[1].parameters;
    const std::string& finish = arguments.curve.finish;
    LmcResult result{.path = arguments.path,
                     .stale_norms = has_stale_norms(arguments, graph),
                     .moved = arguments.align != "none" || arguments.path != "line"};
    if (result.stale_norms && context.is_root) {
        record::note(
            "batch norms between the ends use the statistics of the line's middle, not their own; "
            "--finish reset_batch_norm takes them anew at every point");
    }
    if (result.moved || finish != "none") {
        result.before = analysis::linear_curve(graph, a, b, splits, {.points = arguments.curve.points},
                                               nullptr, context.communicator);
    }
    core::collectively(context.communicator, [&] {
        if (result.normalised()) {  // matched, compared and cut into layers where the path runs
            a = analysis::toroid_normalised(graph, a);
            b = analysis::toroid_normalised(graph, b);
        }
        if (arguments.align != "none") b = aligned(context, arguments, graph, a, b, calibration);
    });
    const auto path = make_path(context, arguments, graph, a, b, *dataset);
    result.curve =
        analysis::path_curve(graph, *path, splits, arguments.curve, calibration, context.communicator);
    if (finish != "none") {
        result.unmended = result.moved
                              ? analysis::path_curve(graph, *path, splits, {.points = arguments.curve.points},
                                                     nullptr, context.communicator)
                              : result.before;
    }
    if (arguments.layers) {
        result.layers = analysis::layer_barriers(graph, a, b, *splits.back().samples, arguments.curve.points,
                                                 context.communicator,
                                                 finish == "reset_batch_norm" ? calibration : nullptr);
    }
    result.sign_consistency = analysis::sign_consistency(a, b).overall;
    deliver(context, arguments.model.json, result_json(result), result_text(result),
            document_of(result, arguments, dataset->name()), arguments.out);
}

}  // namespace

void add_lmc(CLI::App& program, Context& context) {
    auto* command =
        program.add_subcommand("lmc", "mode connectivity: loss and accuracy on a path between two models");
    auto arguments = std::make_shared<LmcArguments>();
    command->add_option("A", arguments->a, "model file, λ = 0")->required();
    command->add_option("B", arguments->b, "model file of the same architecture, λ = 1")->required();
    command
        ->add_option("--align", arguments->align,
                     "bring B into A's basin first: none, " + core::join(aggregator::alignment_methods()))
        ->capture_default_str();
    command
        ->add_option("--finish", arguments->curve.finish,
                     "at every point: none, repair, rescale, reset_batch_norm")
        ->capture_default_str()
        ->check(CLI::IsMember({"none", "repair", "rescale", "reset_batch_norm"}));
    command->add_option("--points", arguments->curve.points, "points on the line, the ends included")
        ->capture_default_str()
        ->check(CLI::Range(3, 1001));
    command->add_option("--split", arguments->split, "train, test or both")
        ->capture_default_str()
        ->check(CLI::IsMember({"train", "test", "both"}));
    command
        ->add_option(
            "--path", arguments->path,
            "line, geodesic (ReLU units on their spheres), or bent with a trained point: bezier, polygon")
        ->capture_default_str()
        ->check(CLI::IsMember({"line", "geodesic", "bezier", "polygon"}));
    command->add_option("--bend-epochs", arguments->bend.epochs, "training of a bent path, on the train set")
        ->capture_default_str()
        ->check(CLI::PositiveNumber);
    command->add_option("--bend-lr", arguments->bend.lr, "its learning rate")
        ->capture_default_str()
        ->check(CLI::PositiveNumber);
    command->add_flag("--layers", arguments->layers,
                      "the barrier of each layer alone, on the last split, too");
    command->add_option("--out", arguments->out, "folder for report.html, result.json and the figures");
    arguments->model.add_data_to(*command);
    arguments->model.add_holdout_to(*command);
    arguments->model.add_model_to(*command);
    arguments->model.add_json_to(*command);
    command->footer("Example:\n  thalweg lmc a.pt b.pt --align weight_matching --finish repair --points 11");
    command->callback(
        [&context, arguments] { context.action = [&context, arguments] { lmc(context, *arguments); }; });
}

}  // namespace thalweg::app
