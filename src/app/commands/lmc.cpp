#include "../context.hpp"
#include "thalweg/aggregator/matching.hpp"
#include "thalweg/analysis/measures.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/schema.hpp"
#include "thalweg/core/text.hpp"

namespace thalweg::app {

namespace {

struct LmcArguments {
    ModelArguments model;
    std::string a, b;
    std::string align = "none";
    std::string split = "both";
    analysis::CurveOptions curve;
};

void require_method(const std::string& method) {
    if (method == "none") return;
    try {
        aggregator::require_alignment_method(method);
    } catch (const core::UsageError& error) {
        throw core::UsageError(std::string("--align: ") + error.what() + " (or none)");
    }
}

Json curve_json(const analysis::Curve& curve, double sign_consistency) {
    Json json;
    json["lambdas"] = curve.lambdas;
    const std::size_t middle = curve.lambdas.size() / 2;
    for (const auto* name : {"train", "test"}) {  // null: not measured
        json[name] = nullptr;
        json["barrier"][name] = nullptr;
    }
    for (const auto& [name, split] : curve.splits) {
        json[name] = {{"loss", split.loss}, {"accuracy", split.accuracy}};
        json["barrier"][name] = {{"loss", split.loss_barrier}, {"error", split.error_barrier}};
    }
    // The points whose one number everybody quotes: on the test set when it was measured.
    const auto& quoted = curve.splits.back().second;
    if (curve.lambdas.size() % 2 == 1) {
        json["midpoint"] = {{"loss", quoted.loss[middle]}, {"accuracy", quoted.accuracy[middle]}};
    } else {
        json["midpoint"] = nullptr;  // an even number of points has none
    }
    json["endpoints"] = {{"a", {{"loss", quoted.loss.front()}, {"accuracy", quoted.accuracy.front()}}},
                         {"b", {{"loss", quoted.loss.back()}, {"accuracy", quoted.accuracy.back()}}}};
    json["sign_consistency"] = sign_consistency;
    json["variance_ratio"] = curve.variance_ratio;
    return json;
}

std::string curve_text(const analysis::Curve& curve, double sign_consistency) {
    std::vector<std::string> header{"λ"};
    for (const auto& [name, split] : curve.splits) {
        header.push_back(name + " loss");
        header.push_back(name + " accuracy");
    }
    record::Table table(header);
    for (std::size_t i = 0; i < curve.lambdas.size(); ++i) {
        std::vector<std::string> cells{record::number(curve.lambdas[i])};
        for (const auto& [name, split] : curve.splits) {
            cells.push_back(record::number(split.loss[i]));
            cells.push_back(record::percent(split.accuracy[i]));
        }
        table.row(std::move(cells));
    }
    std::string text = table.text();
    for (const auto& [name, split] : curve.splits) {
        text += name + " barrier: loss " + record::number(split.loss_barrier) + ", error " +
                record::percent(split.error_barrier) + "\n";
    }
    text += "sign consistency: " + record::percent(sign_consistency) + "\n";
    if (!curve.variance_ratio.empty()) {
        std::vector<std::string> ratios;
        for (const auto ratio : curve.variance_ratio) ratios.push_back(record::number(ratio));
        text += "variance ratio at the midpoint, by layer: " + core::join(ratios) + "\n";
    }
    return text;
}

void lmc(const Context& context, const LmcArguments& arguments) {
    require_method(arguments.align);
    auto files = arguments.model.load(context, {arguments.a, arguments.b});
    const auto& graph = files[0].graph;
    const auto dataset = arguments.model.open(context, files[0], arguments.a, true);
    const auto calibration =
        core::collectively(context.communicator, [&] { return arguments.model.calibration(*dataset); });
    if (arguments.align != "none") {
        // Every rank computes the same permutation: it is a function of the models and the seed alone.
        files[1].parameters = core::collectively(context.communicator, [&] {
            const auto symmetries = symmetry::derive(graph);
            if (context.is_root) symmetry::require_proof(graph, symmetries);
            const auto match = aggregator::align(
                arguments.align, {graph, symmetries, files[0].parameters, files[1].parameters, calibration},
                arguments.model.seed);
            return aggregator::moved_model(graph, symmetries, files[1].parameters, match);
        });
    }
    std::vector<analysis::Split> splits;
    const auto train = dataset->train();
    const auto test = dataset->test();
    if (arguments.split != "test" && train) splits.push_back({"train", train.get()});
    if (arguments.split != "train") splits.push_back({"test", test.get()});
    if (splits.empty())
        throw core::UsageError(dataset->name() + " has no train set as a whole; use --split test");
    if (arguments.split == "both" && !train && context.is_root)
        record::note(dataset->name() + " has no train set as a whole, so the test set alone is measured");
    const auto curve = analysis::linear_curve(graph, files[0].parameters, files[1].parameters, splits,
                                              arguments.curve, calibration, context.communicator);
    const double signs = analysis::sign_consistency(files[0].parameters, files[1].parameters).overall;
    if (arguments.model.json) {
        context.print(curve_json(curve, signs));
    } else {
        context.print(curve_text(curve, signs));
    }
}

}  // namespace

void add_lmc(CLI::App& program, Context& context) {
    auto* command =
        program.add_subcommand("lmc", "linear mode connectivity: loss and accuracy between two models");
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
        ->check(CLI::Range(2, 1001));
    command->add_option("--split", arguments->split, "train, test or both")
        ->capture_default_str()
        ->check(CLI::IsMember({"train", "test", "both"}));
    arguments->model.add_data_to(*command);
    arguments->model.add_holdout_to(*command);
    arguments->model.add_model_to(*command);
    arguments->model.add_json_to(*command);
    command->footer("Example:\n  thalweg lmc a.pt b.pt --align weight_matching --finish repair --points 11");
    command->callback(
        [&context, arguments] { context.action = [&context, arguments] { lmc(context, *arguments); }; });
}

}  // namespace thalweg::app
