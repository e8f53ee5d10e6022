#include "../context.hpp"
#include "thalweg/aggregator/matching.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/text.hpp"

namespace thalweg::app {

namespace {

struct AlignArguments {
    ModelArguments model;
    std::string a, b, out, apply_to;
    std::string method = "weight_matching";
    int restarts = 1;
};

struct Alignment {
    aggregator::MatchResult match;
    model::Parameters aligned;
    double before = 0, after = 0, seconds = 0;
};

Json alignment_json(const AlignArguments& arguments, const Alignment& alignment,
                    const symmetry::Symmetries& symmetries) {
    Json groups = Json::array();
    for (std::size_t g = 0; g < symmetries.groups.size(); ++g) {
        const auto& permutation = alignment.match.permutations[g];
        std::int64_t moved = 0;
        for (std::size_t i = 0; i < permutation.size(); ++i)
            moved += permutation[i] != static_cast<std::int64_t>(i);
        std::int64_t flipped = 0;
        if (!alignment.match.signs.empty()) {
            for (const double sign : alignment.match.signs[g]) flipped += sign < 0;
        }
        groups.push_back({{"name", symmetries.groups[g].name},
                          {"size", symmetries.groups[g].size},
                          {"moved", moved},
                          {"flipped", flipped}});
    }
    return {{"method", arguments.method},
            {"objective", alignment.match.objective},
            {"distance_before", alignment.before},
            {"distance_after", alignment.after},
            {"sweeps", alignment.match.sweeps},
            {"seconds", alignment.seconds},
            {"groups", groups},
            {"out", arguments.out}};
}

void align(const Context& context, const AlignArguments& arguments) {
    aggregator::require_alignment_method(arguments.method);
    require_writable(context, arguments.out);
    std::vector<std::string> paths{arguments.a, arguments.b};
    if (!arguments.apply_to.empty()) paths.push_back(arguments.apply_to);
    const auto files = arguments.model.load(context, paths);
    const auto& moved = files.back();  // B itself, or what stands for it
    const auto dataset = arguments.model.open(context, files[0], arguments.a, false);
    core::collectively(context.communicator, [&] {
        if (!context.is_root) return;
        const auto samples = dataset ? arguments.model.calibration(*dataset) : nullptr;
        const auto symmetries = symmetry::derive(files[0].graph);
        symmetry::require_proof(files[0].graph, symmetries);
        const record::Stopwatch watch;
        Alignment alignment;
        alignment.match = aggregator::align(
            arguments.method, {files[0].graph, symmetries, files[0].parameters, files[1].parameters, samples},
            arguments.model.seed, arguments.restarts);
        alignment.aligned =
            aggregator::moved_model(moved.graph, symmetries, moved.parameters, alignment.match);
        alignment.seconds = watch.seconds();
        alignment.before = aggregator::distance(files[0].parameters, moved.parameters);
        alignment.after = aggregator::distance(files[0].parameters, alignment.aligned);
        model::save_model(arguments.out, moved.graph, alignment.aligned, arguments.model.meta(moved));
        const Json json = alignment_json(arguments, alignment, symmetries);
        if (arguments.model.json) {
            context.print(json);
            return;
        }
        record::Table table({"group", "channels", "moved"});
        for (const auto& group : json["groups"]) {
            table.row({group["name"].get<std::string>(), group["size"].dump(), group["moved"].dump()});
        }
        context.print(table.text() + arguments.method + ": distance " + record::number(alignment.before) +
                      " → " + record::number(alignment.after) + ", " +
                      std::to_string(alignment.match.sweeps) + " sweeps, " +
                      record::number(alignment.seconds) + " s\nwritten to " + arguments.out + "\n");
    });
}

}  // namespace

void add_align(CLI::App& program, Context& context) {
    auto* command = program.add_subcommand("align", "brings model B into A's basin, its function unchanged");
    auto arguments = std::make_shared<AlignArguments>();
    command->add_option("A", arguments->a, "model file, the anchor")->required();
    command->add_option("B", arguments->b, "model file to be permuted")->required();
    command
        ->add_option("--method", arguments->method,
                     core::join(aggregator::alignment_methods()) + "; options in parentheses")
        ->capture_default_str();
    command
        ->add_option("--restarts", arguments->restarts,
                     "runs of weight matching, the first from the identity")
        ->capture_default_str()
        ->check(CLI::Range(1, 1000));
    command->add_option(
        "--apply-to", arguments->apply_to,
        "moves this model instead of B by what was found for B: B's initialisation, or another step of its "
        "training");
    command->add_option("--out", arguments->out, "model file to write")->required();
    arguments->model.add_data_to(*command);
    arguments->model.add_holdout_to(*command);
    arguments->model.add_model_to(*command);
    arguments->model.add_json_to(*command);
    command->footer("Example:\n  thalweg align a.pt b.pt --method weight_matching --out b-aligned.pt");
    command->callback(
        [&context, arguments] { context.action = [&context, arguments] { align(context, *arguments); }; });
}

}  // namespace thalweg::app
