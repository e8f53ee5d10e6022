#include "thalweg/study/study.hpp"

#include "../context.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/text.hpp"

namespace thalweg::app {

namespace {

struct StudyArguments {
    std::string name, out;
    std::vector<std::string> overrides;
    std::string config;
    bool quick = false, smoke = false, json = false, show = false;
};

Json findings_json(const study::Result& result) {
    Json findings = Json::array();
    for (const auto& finding : result.findings) {
        findings.push_back({{"claim", finding.claim},
                            {"source", finding.source},
                            {"published", finding.published},
                            {"ours", finding.ours},
                            {"seen", std::string(study::seen_name(finding.seen))},
                            {"numbers", finding.numbers}});
    }
    return findings;
}

std::string findings_text(const study::Result& result) {
    std::string text = result.summary + "\n";
    for (const auto& finding : result.findings) {
        text += "\n" + finding.claim + " [" + finding.source + "]\n";
        if (!finding.published.empty()) text += "  published: " + finding.published + "\n";
        text += "  here:      " + finding.ours +
                "\n  seen:      " + std::string(study::seen_name(finding.seen)) + "\n";
    }
    return text;
}

void conduct(const Context& context, const StudyArguments& arguments) {
    study::StudyOptions options{.config = arguments.config, .overrides = arguments.overrides};
    options.size = arguments.smoke   ? study::Size::smoke
                   : arguments.quick ? study::Size::quick
                                     : study::Size::full;
    if (arguments.show) {
        const auto config = core::collectively(context.communicator,
                                               [&] { return study::study_config(arguments.name, options); });
        context.print(core::to_yaml(config));
        return;
    }
    if (arguments.out.empty())
        throw core::UsageError("a study needs --out DIR, the folder its models and results are kept in");
    const auto result = [&] {
        try {
            return study::conduct(arguments.name, options, arguments.out, context.communicator);
        } catch (const core::Interrupted&) {
            throw core::Interrupted("interrupted; finished jobs are kept. Go on with the same command line");
        }
    }();
    if (arguments.json) {
        context.print(Json{{"study", arguments.name},
                           {"folder", arguments.out},
                           {"summary", result.summary},
                           {"findings", findings_json(result)}});
    } else {
        context.print(findings_text(result) + "\nFigures and tables: " + arguments.out + "/report.html\n");
    }
}

}  // namespace

void add_study(CLI::App& program, Context& context) {
    auto* command = program.add_subcommand(
        "study", "asks a published question again: trains the models, measures, and shows both answers");
    auto arguments = std::make_shared<StudyArguments>();
    command->add_option("NAME", arguments->name, "which study (thalweg list study)")->required();
    command->add_option("OVERRIDES", arguments->overrides,
                        "key.path=value, replacing what the configuration says");
    command->add_option(
        "--out", arguments->out,
        "folder for models, results and the report, required but for --show; one that holds the same study "
        "is gone on with");
    auto* quick =
        command->add_flag("--quick", arguments->quick,
                          "a small one: minutes on two cores, where the full one takes from several "
                          "minutes to hours");
    command
        ->add_flag("--smoke", arguments->smoke, "the smallest one: a few seconds; its numbers mean nothing")
        ->excludes(quick);
    command->add_option("--config", arguments->config,
                        "a configuration of your own instead of the built-in one");
    command->add_flag("--show", arguments->show, "prints the configuration and does nothing");
    command->add_flag("--json", arguments->json, "one JSON document on stdout");
    command->footer("Example:\n  mpirun -n 2 thalweg study valley-symmetry --quick --out studies/valley");
    command->callback(
        [&context, arguments] { context.action = [&context, arguments] { conduct(context, *arguments); }; });
}

}  // namespace thalweg::app
