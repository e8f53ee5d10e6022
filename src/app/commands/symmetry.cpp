#include <fmt/format.h>

#include <cmath>
#include <map>

#include "../context.hpp"
#include "thalweg/aggregator/matching.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/text.hpp"
#include "thalweg/symmetry/gauge.hpp"

namespace thalweg::app {

namespace {

struct SymmetryArguments {
    ModelArguments model;
    std::string path;
    std::vector<std::int64_t> input;
    std::optional<std::int64_t> classes;  ///< 10 when not given
    bool verify = false;
    int draws = 3;
    int restarts = 100;
};

/// All that leaves the model's function alone.
struct Found {
    symmetry::Symmetries permutations;
    symmetry::Gauge signs, scales;
};

/// What --verify found.
struct Verification {
    symmetry::Proof permutations, signs, scales;
    bool recovered = false;
    int starts = 0;  ///< of weight matching, until the planted element was found
};

bool is_configuration(const std::string& path) {
    return path.ends_with(".yaml") || path.ends_with(".yml");
}

struct Subject {
    model::ModelGraph graph;
    std::optional<model::Parameters> parameters;  ///< of a model file
};

/// What a model file holds, or the architecture of a configuration's model for its data's samples or for --input.
Subject subject_of(const Context& context, const SymmetryArguments& arguments) {
    if (!is_configuration(arguments.path)) {
        if (!arguments.input.empty() || arguments.classes)
            throw core::UsageError(
                "--input and --classes belong to configurations; a model file knows its own");
        auto loaded = arguments.model.load(context, {arguments.path});
        return {loaded[0].graph, loaded[0].parameters};
    }
    ConfigArguments config;
    config.config = arguments.path;
    const auto experiment = config.load(context);
    if (arguments.input.empty() && arguments.classes)
        throw core::UsageError(
            "--classes belongs to --input; without it the data says how many classes there are");
    if (arguments.input.empty())
        return {federation::open_setting(experiment, context.communicator).graph, {}};
    return core::collectively(context.communicator, [&] {
        auto graph =
            model::build_model(experiment.config["model"], arguments.input, arguments.classes.value_or(10));
        return Subject{std::move(graph), {}};
    });
}

/// A random element is applied to the model, or to a random one; weight matching of the two should find its inverse.
void plant(const Subject& subject, const symmetry::Symmetries& symmetries, core::Random& random, int restarts,
           Verification& result) {
    const auto& graph = subject.graph;
    const auto a = subject.parameters ? *subject.parameters : symmetry::random_parameters(graph, random);
    const auto b = symmetry::permute(a, symmetries, symmetry::random_permutations(symmetries, random));
    aggregator::WeightMatchingOptions options;
    options.restarts = restarts;
    options.enough = aggregator::inner_product(a, a);
    options.flips = false;  // permutations alone are planted
    const auto match = aggregator::weight_matching(graph, symmetries, a, b, random, options);
    result.recovered = aggregator::distance(a, symmetry::permute(b, symmetries, match.permutations)) == 0.0;
    result.starts = match.starts;
}

Json gauge_json(const symmetry::Gauge& gauge) {
    Json groups = Json::array(), fixed = Json::array();
    for (const auto& group : gauge.groups) groups.push_back({{"name", group.name}, {"size", group.size}});
    for (const auto& channels : gauge.fixed) {
        fixed.push_back({{"name", channels.name}, {"size", channels.channels}, {"reason", channels.reason}});
    }
    return {{"channels", gauge.channels}, {"groups", groups}, {"fixed", fixed}};
}

Json proof_json(const symmetry::Proof& proof) {
    return {{"max_error", proof.max_error},
            {"control", std::isfinite(proof.control) ? Json(proof.control) : Json(nullptr)},
            {"draws", proof.draws}};
}

Json symmetry_json(const model::ModelGraph& graph, const Found& found,
                   const std::optional<Verification>& verification) {
    const auto& symmetries = found.permutations;
    const auto name_of = [&](std::size_t entry) { return graph.layout->entries()[entry].name; };
    Json groups = Json::array(), frozen = Json::array();
    for (const auto& group : symmetries.groups) {
        Json tensors = Json::array();
        for (const auto& use : group.uses)
            tensors.push_back({{"name", name_of(use.entry)}, {"axis", use.axis}});
        Json item = {
            {"name", group.name}, {"size", group.size}, {"blocks", group.blocks}, {"tensors", tensors}};
        item["bond"] = group.bond < 0 ? Json(nullptr) : Json(group.bond);
        groups.push_back(std::move(item));
    }
    for (const auto& axis : symmetries.frozen)
        frozen.push_back({{"tensor", name_of(axis.entry)}, {"axis", axis.axis}, {"reason", axis.reason}});
    Json json = {{"model", graph.summary()},
                 {"groups", groups},
                 {"frozen", frozen},
                 {"coverage", symmetries.coverage},
                 {"hidden_channels", symmetries.hidden_channels},
                 {"covered_channels", symmetries.covered_channels}};
    json["signs"] = gauge_json(found.signs);
    json["scales"] = gauge_json(found.scales);
    json["verified"] = nullptr;
    json["planted"] = nullptr;
    if (verification) {
        json["verified"] = {{"permutations", proof_json(verification->permutations)},
                            {"signs", proof_json(verification->signs)},
                            {"scales", proof_json(verification->scales)}};
        if (!symmetries.groups.empty())
            json["planted"] = {{"recovered", verification->recovered}, {"starts", verification->starts}};
    }
    return json;
}

/// `conv1.weight 0, bn1.weight 0 and 5 more`
std::string places(const Json& tensors) {
    std::string text;
    for (std::size_t i = 0; i < tensors.size() && i < 2; ++i) {
        text += fmt::format("{}{} axis {}", i == 0 ? "" : ", ", tensors[i]["name"].get<std::string>(),
                            tensors[i]["axis"].get<std::int64_t>());
    }
    if (tensors.size() > 2) text += fmt::format(" and {} more", tensors.size() - 2);
    return text;
}

/// `layers.0 256, layers.2 256 and 3 more`
std::string listed(const Json& items, std::size_t most) {
    std::string text;
    for (std::size_t i = 0; i < items.size() && i < most; ++i) {
        const auto name = items[i]["name"].get<std::string>();
        text += fmt::format("{}{} {}", i == 0 ? "" : ", ", name, items[i]["size"].get<std::int64_t>());
    }
    if (items.size() > most) text += fmt::format(" and {} more", items.size() - most);
    return text;
}

/// One line on what may be multiplied, one on each reason why the rest may not.
std::string gauge_text(const Json& gauge, const std::string& verb) {
    const auto channels = gauge["channels"].get<std::int64_t>();
    std::string text = channels == 0 ? fmt::format("no channel may be {}\n", verb)
                                     : fmt::format("{} channels may be {}, each by itself: {}\n", channels,
                                                   verb, listed(gauge["groups"], 4));
    std::map<std::string, Json> by_reason;
    for (const auto& fixed : gauge["fixed"]) {
        const auto reason = fixed["reason"].get<std::string>();
        if (reason != "input" && reason != "output") by_reason[reason].push_back(fixed);
    }
    for (const auto& [reason, items] : by_reason)
        text += fmt::format("  not because of {}: {}\n", reason, listed(items, 3));
    return text;
}

std::string proof_text(const std::string& what, const symmetry::Proof& proof) {
    std::string text = fmt::format("{:<13}largest error {:.1e}", what, proof.max_error);
    if (std::isfinite(proof.control))
        text += fmt::format("; with one tensor left out on purpose at least {:.1e}", proof.control);
    return text + "\n";
}

std::string symmetry_text(const Json& json, const std::optional<Verification>& verification) {
    std::string text = json["model"].get<std::string>() + "\n\n";
    record::Table groups({"group", "channels", "acts on"});
    for (const auto& group : json["groups"]) {
        const auto size = group["size"].get<std::int64_t>(), blocks = group["blocks"].get<std::int64_t>();
        std::string channels = std::to_string(size);
        if (blocks > 1) channels = fmt::format("{} blocks of {}", blocks, size / blocks);
        if (!group["bond"].is_null()) channels += fmt::format(" (bond {})", group["bond"].get<int>());
        groups.row({group["name"].get<std::string>(), channels, places(group["tensors"])});
    }
    text += groups.text() + "\n";
    record::Table frozen({"fixed", "axis", "because"});
    for (const auto& axis : json["frozen"]) {
        frozen.row(
            {axis["tensor"].get<std::string>(), axis["axis"].dump(), axis["reason"].get<std::string>()});
    }
    text += frozen.text() + "\n";
    text += fmt::format("{} of {} hidden channels can be permuted; groups move {:.2f}% of the parameters\n",
                        json["covered_channels"].get<std::int64_t>(),
                        json["hidden_channels"].get<std::int64_t>(), 100 * json["coverage"].get<double>());
    text += gauge_text(json["signs"], "flipped in sign");
    text += gauge_text(json["scales"], "rescaled by positive numbers");
    if (verification) {
        text += fmt::format("\nverified on {} random models, every group by itself and all together:\n",
                            verification->permutations.draws);
        const bool permutes = !json["groups"].empty();
        if (permutes) text += proof_text("permutations", verification->permutations);
        if (json["signs"]["channels"] > 0) text += proof_text("signs", verification->signs);
        if (json["scales"]["channels"] > 0) text += proof_text("scales", verification->scales);
        text += !permutes ? std::string("nothing may be permuted, so nothing was planted\n")
                : verification->recovered
                    ? fmt::format("a planted element was recovered exactly, at start {} of weight matching\n",
                                  verification->starts)
                    : fmt::format(
                          "a planted element was NOT recovered in {} starts of weight matching: coordinate "
                          "descent can stall; --restarts tries more\n",
                          verification->starts);
    }
    return text;
}

Verification verified(const Subject& subject, const Found& found, const SymmetryArguments& arguments,
                      core::Random& random) {
    const auto& graph = subject.graph;
    Verification result;
    result.permutations = symmetry::verify(graph, found.permutations, random, arguments.draws);
    result.signs = symmetry::verify(graph, found.signs, random, arguments.draws);
    result.scales = symmetry::verify(graph, found.scales, random, arguments.draws);
    for (const auto* proof : {&result.permutations, &result.signs, &result.scales}) {
        if (proof->max_error < symmetry::rounding) continue;
        throw core::RunError(fmt::format(
            "the symmetries derived for {} are wrong: a random element changed the function by {:.1e} (at "
            "most {:.0e} is rounding). This is a mistake of the program; please report it with the model",
            arguments.path, proof->max_error, symmetry::rounding));
    }
    if (!found.permutations.groups.empty())
        plant(subject, found.permutations, random, arguments.restarts, result);
    return result;
}

void run_symmetry(const Context& context, const SymmetryArguments& arguments) {
    const auto subject = subject_of(context, arguments);
    const auto& graph = subject.graph;
    core::collectively(context.communicator, [&] {
        if (!context.is_root) return;
        const Found found{symmetry::derive(graph), symmetry::derive_gauge(graph, symmetry::Gauge::Kind::sign),
                          symmetry::derive_gauge(graph, symmetry::Gauge::Kind::scale)};
        std::optional<Verification> verification;
        if (arguments.verify) {
            core::Random random(arguments.model.seed, "symmetry");
            verification = verified(subject, found, arguments, random);
        }
        const Json json = symmetry_json(graph, found, verification);
        if (arguments.model.json) {
            context.print(json);
        } else {
            context.print(symmetry_text(json, verification));
        }
    });
}

}  // namespace

void add_symmetry(CLI::App& program, Context& context) {
    auto* command = program.add_subcommand("symmetry",
                                           "what may be permuted, flipped and rescaled in a model without "
                                           "changing its function, and why the rest "
                                           "may not");
    auto arguments = std::make_shared<SymmetryArguments>();
    command->add_option("MODEL", arguments->path, "model file, or a configuration (.yaml)")->required();
    command
        ->add_option(
            "--input", arguments->input,
            "with a configuration: the shape of a sample, such as 3,32,32, instead of opening its data")
        ->delimiter(',')
        ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 40));
    command->add_option("--classes", arguments->classes, "with --input: how many classes (default: 10)")
        ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 40));
    command->add_flag(
        "--verify", arguments->verify,
        "prove it: random elements of every group must not change the function (in double, error below "
        "1e-9), and weight matching must recover a planted one");
    command->add_option("--draws", arguments->draws, "random models for --verify")
        ->capture_default_str()
        ->check(CLI::Range(1, 1000));
    command->add_option("--restarts", arguments->restarts, "most starts of weight matching for --verify")
        ->capture_default_str()
        ->check(CLI::Range(1, 100000));
    command->add_option("--seed", arguments->model.seed, "for every random draw")->capture_default_str();
    arguments->model.add_model_to(*command);
    arguments->model.add_json_to(*command);
    command->footer("Example:\n  thalweg symmetry configs/quickstart.yaml --input 1,28,28 --verify");
    command->callback([&context, arguments] {
        context.action = [&context, arguments] { run_symmetry(context, *arguments); };
    });
}

}  // namespace thalweg::app
