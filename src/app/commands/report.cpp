#include "thalweg/report/run.hpp"

#include <filesystem>

#include "../context.hpp"
#include "../measuring.hpp"
#include "thalweg/core/error.hpp"

namespace thalweg::app {

namespace fs = std::filesystem;

namespace {

struct ReportArguments {
    std::vector<std::string> folders;
    std::string out;
};

/// What another command left there has a report of its own.
void refuse_other(const std::string& folder) {
    refuse_run(folder);
    std::error_code error;
    if (fs::exists(fs::path(folder) / "result.json", error))
        throw core::UsageError("--out '" + folder +
                               "' holds the result of another command, whose report would be overwritten; "
                               "name another folder");
}

void report(const Context& context, const ReportArguments& arguments) {
    const std::string page = core::collectively(context.communicator, [&]() -> std::string {
        if (arguments.folders.size() > 1 && arguments.out.empty())
            throw core::UsageError(
                "--out is needed with several folders: the report on all of them belongs to none");
        if (!context.is_root) return "";
        const std::string folder = arguments.out.empty() ? arguments.folders.front() : arguments.out;
        std::error_code error;
        if (!arguments.out.empty() && fs::exists(folder, error) && !fs::is_directory(folder, error))
            throw core::UsageError("--out '" + folder + "' is a file; name a folder");
        const bool own =
            arguments.folders.size() == 1 && fs::equivalent(arguments.folders.front(), folder, error);
        if (!own && !arguments.out.empty()) refuse_other(folder);
        const auto document =
            arguments.folders.size() == 1
                ? report::document_of(arguments.folders.front())
                : report::side_by_side({arguments.folders.begin(), arguments.folders.end()});
        report::write_report(document, folder);
        return (fs::path(folder) / "report.html").string();
    });
    context.print("written: " + page + "\n");
}

}  // namespace

void add_report(CLI::App& program, Context& context) {
    auto* command = program.add_subcommand(
        "report",
        "report.html and figures of a run, a comparison or a study; or of several runs side by side");
    auto arguments = std::make_shared<ReportArguments>();
    command->add_option("folders", arguments->folders, "what --out was")->required()->type_name("DIR");
    command->add_option("--out", arguments->out, "where to (default: the folder itself)");
    command->footer(
        "Example:\n  thalweg report runs/quickstart\n  thalweg report runs/plain runs/aligned --out "
        "runs/both");
    command->callback(
        [&context, arguments] { context.action = [&context, arguments] { report(context, *arguments); }; });
}

}  // namespace thalweg::app
