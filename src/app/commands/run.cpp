#include <unistd.h>
#include <filesystem>
#include <iostream>

#include "../context.hpp"
#include "../measuring.hpp"
#include "../runtime.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/federation/federation.hpp"
#include "thalweg/report/run.hpp"

namespace thalweg::app {

namespace fs = std::filesystem;

namespace {

struct RunArguments {
    ConfigArguments config;
    std::string out;
    bool resume = false;
    bool json = false;
};

/// runs/NAME, runs/NAME-2, …: the first that is free, or with --resume the last that is there.
fs::path default_folder(const std::string& name, bool resume) {
    if (!resume) return free_folder(name);
    int number = 1;
    std::error_code error;
    while (fs::exists(numbered_folder(name, number), error)) ++number;
    if (number == 1) {
        throw core::UsageError("--resume: there is no run under '" + numbered_folder(name, 1).string() +
                               "'; say with --out where the run to go on with is");
    }
    return numbered_folder(name, number - 1);
}

void run(const Context& context, const RunArguments& arguments) {
    const auto experiment = arguments.config.load(context);
    // Rank 0 chooses the folder; the others need it for messages only.
    const fs::path folder = core::collectively(context.communicator, [&]() -> fs::path {
        if (!arguments.out.empty()) return arguments.out;
        return context.is_root ? default_folder(experiment.name, arguments.resume) : fs::path();
    });
    federation::Federation federation(experiment, context.communicator);
    const auto lines = federation.run({.folder = folder,
                                       .resume = arguments.resume,
                                       .progress = true,
                                       .manifest = manifest(context.backend, context.communicator.size())});
    if (!context.is_root) return;
    if (arguments.json) {
        context.print(
            Json{{"folder", folder.string()}, {"rounds", lines}, {"complete", federation.is_complete()}});
    } else if (!federation.is_complete()) {
        context.print(lines.empty() ? "" : "\n" + federation::summary(lines) + "\n");
        context.print("Stopped on the live page after round " + std::to_string(lines.size()) + " of " +
                      std::to_string(experiment.rounds) +
                      ". Go on with the same command line and --resume --out " + folder.string() + "\n");
    } else {
        context.print(
            "\n" + federation::summary(lines) + "\nThe run's folder: " + folder.string() +
            "\n  final.pt      the global model (thalweg eval " + (folder / "final.pt").string() +
            "; torch.load in Python)\n  rounds.jsonl  everything measured, a line a round\n  report.html   "
            "the same to look at, in a browser\n");
    }
    draw_report([&] { return report::run_document(folder); }, folder, "the run is recorded");
}

}  // namespace

void add_run(CLI::App& program, Context& context) {
    auto* command =
        program.add_subcommand("run", "federated rounds: train clients, fuse their models, evaluate");
    auto arguments = std::make_shared<RunArguments>();
    arguments->config.add_to(*command);
    command
        ->add_option("--out", arguments->out, "folder of the run (default: runs/NAME, the first free number)")
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
    command->add_flag("--resume", arguments->resume, "go on from the last whole checkpoint");
    command->add_flag("--json", arguments->json, "one JSON document on stdout instead of the tables");
    command->footer(
        "Example:\n  mpirun -n 2 thalweg run configs/quickstart.yaml seed=2 server.rounds=3 --out runs/mine");
    command->callback(
        [&context, arguments] { context.action = [&context, arguments] { run(context, *arguments); }; });
}

}  // namespace thalweg::app
