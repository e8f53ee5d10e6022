#include "thalweg/federation/compare.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "../context.hpp"
#include "../measuring.hpp"
#include "compare_document.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/files.hpp"
#include "thalweg/core/schema.hpp"
#include "thalweg/core/text.hpp"

namespace thalweg::app {

namespace {

namespace fs = std::filesystem;
using federation::CompareRow;

struct CompareArguments {
    ConfigArguments config;
    std::string pipelines, follow, csv, out;
    std::int64_t seeds = 0;
    std::int64_t barrier_pairs = -1;
    bool json = false;
};

/// Split at semicolons; empty parts (a last semicolon) do not count.
std::vector<std::string> listed(const std::string& text) {
    std::vector<std::string> parts;
    for (std::size_t begin = 0; begin <= text.size();) {
        const std::size_t end = std::min(text.find(';', begin), text.size());
        std::string part = text.substr(begin, end - begin);
        part.erase(0, part.find_first_not_of(" \t\n"));
        if (!part.empty()) part.erase(part.find_last_not_of(" \t\n") + 1);
        if (!part.empty()) parts.push_back(part);
        begin = end + 1;
    }
    return parts;
}

/// The number of the pipeline that is followed; −1: each.
std::int64_t followed(const CompareArguments& arguments, const std::string& configured,
                      const std::vector<std::string>& pipelines) {
    const std::string wanted = core::without_blanks(arguments.follow.empty() ? configured : arguments.follow);
    if (wanted.empty()) return 0;
    if (wanted == "each") return -1;
    for (std::size_t i = 0; i < pipelines.size(); ++i) {
        if (core::without_blanks(pipelines[i]) == wanted) return static_cast<std::int64_t>(i);
    }
    // The configuration speaks of its own list, which --pipelines has replaced.
    if (arguments.follow.empty()) return 0;
    auto valid = pipelines;
    valid.emplace_back("each");
    throw core::UsageError("--follow: " + core::unknown_name("pipeline", arguments.follow, valid));
}

federation::CompareOptions options_of(const CompareArguments& arguments,
                                      const federation::Experiment& experiment) {
    const auto& section = experiment.config["compare"];
    federation::CompareOptions options;
    options.pipelines = listed(arguments.pipelines);
    if (options.pipelines.empty()) {
        for (const auto& item : section["pipelines"].items()) options.pipelines.push_back(item.as_text());
    }
    for (std::size_t i = 0; i < options.pipelines.size(); ++i) {
        for (std::size_t j = 0; j < i; ++j) {
            if (core::without_blanks(options.pipelines[i]) == core::without_blanks(options.pipelines[j]))
                throw core::UsageError(
                    "the pipeline '" + options.pipelines[i] +
                    "' is given twice, and its rows could not be told apart; leave one out");
        }
    }
    options.seeds = arguments.seeds > 0 ? arguments.seeds : section["seeds"].as_int();
    options.barrier_pairs =
        arguments.barrier_pairs >= 0 ? arguments.barrier_pairs : section["barrier_pairs"].as_int();
    options.follow = followed(arguments, section["follow"].as_text(), options.pipelines);
    return options;
}

/// Values of one number of a pipeline's rows of the last round, by seed.
std::vector<double> last_round(const federation::Comparison& comparison, std::int64_t pipeline,
                               double CompareRow::*number) {
    std::int64_t last = 0;
    for (const auto& row : comparison.rows) last = std::max(last, row.round);
    std::vector<double> values;
    for (const auto& row : comparison.rows) {
        if (row.round == last && row.pipeline == pipeline) values.push_back(row.*number);
    }
    return values;
}

Json number_or_null(double value) {
    return std::isfinite(value) ? Json(value) : Json();
}

Json spread_json(const std::vector<double>& values) {
    const auto spread = federation::spread_of(values);
    return {{"mean", number_or_null(spread.mean)},
            {"standard_error", number_or_null(spread.error)},
            {"seeds", spread.count}};
}

/// `86.13 ± 0.22`, in units of 1/`scale`.
std::string spread_text(const std::vector<double>& values, double scale, int digits) {
    const auto spread = federation::spread_of(values);
    if (!std::isfinite(spread.mean)) return "–";
    const auto text = [&](double value) { return fmt::format("{:.{}f}", value * scale, digits); };
    return text(spread.mean) + (std::isfinite(spread.error) ? " ± " + text(spread.error) : "");
}

/// Three digits: a stage may take microseconds or minutes.
std::string seconds_text(const std::vector<double>& values) {
    const auto spread = federation::spread_of(values);
    if (!std::isfinite(spread.mean)) return "–";
    const auto text = [](double value) { return fmt::format("{:.3g}", value); };
    return text(spread.mean) +
           (std::isfinite(spread.error) ? " ± " + fmt::format("{:.1g}", spread.error) : "");
}

Json difference_json(const std::vector<double>& values, const std::vector<double>& reference) {
    const auto difference = federation::paired_difference(values, reference);
    return {{"mean", number_or_null(difference.mean)},
            {"low", number_or_null(difference.low)},
            {"high", number_or_null(difference.high)}};
}

/// True where a stage shows what merging cannot have.
bool is_upper_mark(const std::string& pipeline) {
    const auto parsed = aggregator::Pipeline::parse(pipeline);
    return std::any_of(parsed.items().begin(), parsed.items().end(),
                       [](const auto& item) { return item.traits.upper_mark; });
}

std::string difference_text(const federation::PairedDifference& difference) {
    if (!std::isfinite(difference.mean)) return "–";
    const auto points = [](double value) {
        return (value < 0 ? "−" : "+") + fmt::format("{:.2f}", std::abs(value) * 100);
    };
    std::string text = points(difference.mean);
    if (std::isfinite(difference.low))
        text += " [" + points(difference.low) + ", " + points(difference.high) + "]";
    return text;
}

Json comparison_json(const federation::Comparison& comparison, const federation::CompareOptions& options,
                     const federation::Experiment& experiment) {
    Json json = {
        {"experiment", experiment.name},
        {"seed", experiment.seed},
        {"seeds", options.seeds},
        {"rounds", experiment.rounds},
        {"follow", options.follow < 0 ? Json("each")
                                      : Json(options.pipelines[static_cast<std::size_t>(options.follow)])},
        {"pipelines", Json::array()},
        {"marks", Json::array()},
        {"rows", Json::array()}};
    const std::vector<std::pair<const char*, double CompareRow::*>> numbers{
        {"accuracy", &CompareRow::accuracy},
        {"loss", &CompareRow::loss},
        {"barrier", &CompareRow::barrier},
        {"variance_ratio", &CompareRow::variance_ratio},
        {"seconds", &CompareRow::seconds}};
    for (std::size_t p = 0; p < options.pipelines.size(); ++p) {
        Json item = {{"pipeline", options.pipelines[p]},
                     {"upper_mark", is_upper_mark(options.pipelines[p])},
                     {"difference", Json::object()}};
        for (const auto& [name, number] : numbers) {
            const auto values = last_round(comparison, static_cast<std::int64_t>(p), number);
            item[name] = spread_json(values);
            item["difference"][name] = difference_json(values, last_round(comparison, 0, number));
        }
        json["pipelines"].push_back(std::move(item));
    }
    for (const auto& marks : comparison.marks) {
        json["marks"].push_back(
            {{"seed", marks.seed},
             {"round", marks.round},
             {"pipeline", options.pipelines[static_cast<std::size_t>(marks.pipeline)]},
             {"clients", marks.clients},
             {"ensemble",
              {{"loss", number_or_null(marks.ensemble.loss)}, {"accuracy", marks.ensemble.accuracy}}}});
    }
    for (const auto& row : comparison.rows) {
        Json item = {{"seed", row.seed},
                     {"round", row.round},
                     {"pipeline", options.pipelines[static_cast<std::size_t>(row.pipeline)]},
                     {"accuracy", number_or_null(row.accuracy)},
                     {"loss", number_or_null(row.loss)},
                     {"barrier", number_or_null(row.barrier)},
                     {"variance_ratio", number_or_null(row.variance_ratio)},
                     {"seconds", number_or_null(row.seconds)}};
        if (!row.error.empty()) item["error"] = row.error;
        json["rows"].push_back(std::move(item));
    }
    return json;
}

std::string comparison_csv(const federation::Comparison& comparison,
                           const federation::CompareOptions& options) {
    std::string text =
        "seed,round,pipeline,accuracy,loss,barrier,variance_ratio,seconds,difference_accuracy,difference_"
        "loss,error\n";
    const auto quoted = [](const std::string& cell) {
        std::string result = "\"";
        for (const char c : cell) result += c == '"' ? "\"\"" : std::string(1, c);
        return result + "\"";
    };
    const auto number = [](double value) {
        return std::isfinite(value) ? Json(value).dump() : std::string();
    };
    for (const auto& row : comparison.rows) {
        const auto first =
            std::find_if(comparison.rows.begin(), comparison.rows.end(), [&](const CompareRow& candidate) {
                return candidate.seed == row.seed && candidate.round == row.round && candidate.pipeline == 0;
            });
        const std::vector<std::string> cells{
            std::to_string(row.seed),
            std::to_string(row.round),
            quoted(options.pipelines[static_cast<std::size_t>(row.pipeline)]),
            number(row.accuracy),
            number(row.loss),
            number(row.barrier),
            number(row.variance_ratio),
            number(row.seconds),
            number(row.accuracy - first->accuracy),
            number(row.loss - first->loss),
            row.error.empty() ? "" : quoted(row.error)};
        text += core::join(cells, ",") + "\n";
    }
    return text;
}

std::string comparison_table(const federation::Comparison& comparison,
                             const federation::CompareOptions& options, std::int64_t rounds) {
    record::Table table({"pipeline", "accuracy, %", "loss", "barrier, points", "variance ratio", "seconds",
                         "to the first, points"});
    const auto reference = last_round(comparison, 0, &CompareRow::accuracy);
    std::vector<double> lowest, highest, ensemble, ensemble_loss;
    const std::int64_t marked = std::max<std::int64_t>(0, options.follow);
    for (const auto& marks : comparison.marks) {
        if (marks.round != rounds || (marks.pipeline != marked && rounds > 1)) continue;
        lowest.push_back(*std::min_element(marks.clients.begin(), marks.clients.end()));
        highest.push_back(*std::max_element(marks.clients.begin(), marks.clients.end()));
        ensemble.push_back(marks.ensemble.accuracy);
        ensemble_loss.push_back(marks.ensemble.loss);
    }
    // Where each goes its own way, the clients are others for each.
    const std::string whose =
        options.follow < 0 && rounds > 1 ? " (after " + options.pipelines.front() + ")" : "";
    table.row({"clients alone" + whose + ": lowest", spread_text(lowest, 100, 2)});
    table.row({"    highest", spread_text(highest, 100, 2)});
    table.rule();
    for (std::size_t p = 0; p < options.pipelines.size(); ++p) {
        const auto values = [&](double CompareRow::*number) {
            return last_round(comparison, static_cast<std::int64_t>(p), number);
        };
        const auto counted = federation::spread_of(values(&CompareRow::accuracy)).count;
        const auto seeds = static_cast<std::int64_t>(values(&CompareRow::accuracy).size());
        const std::string some =
            counted == seeds ? ""
                             : " (" + std::to_string(counted) + " of " + std::to_string(seeds) + " seeds)";
        table.row(
            {options.pipelines[p] + (is_upper_mark(options.pipelines[p]) ? " (upper mark)" : ""),
             spread_text(values(&CompareRow::accuracy), 100, 2) + some,
             spread_text(values(&CompareRow::loss), 1, 3), spread_text(values(&CompareRow::barrier), 100, 2),
             spread_text(values(&CompareRow::variance_ratio), 1, 3),
             seconds_text(values(&CompareRow::seconds)),
             p == 0
                 ? ""
                 : difference_text(federation::paired_difference(values(&CompareRow::accuracy), reference))});
    }
    table.rule();
    table.row({"ensemble of logits" + whose + " (upper mark)", spread_text(ensemble, 100, 2),
               spread_text(ensemble_loss, 1, 3)});
    std::string text = table.text();
    for (const auto& row : comparison.rows) {
        if (row.error.empty()) continue;
        text += options.pipelines[static_cast<std::size_t>(row.pipeline)] + " (seed " +
                std::to_string(row.seed) + ", round " + std::to_string(row.round) +
                ") could not be run: " + row.error + "\n";
    }
    return text;
}

/// Nobody asked for this folder, so that it cannot be made is no failure of the comparison.
void leave_unasked(const Context& context, const report::Document& document, const fs::path& folder) {
    try {
        std::error_code error;
        fs::create_directories(folder, error);
        if (error) throw core::RunError(folder.string() + " cannot be made: " + error.message());
        leave_report(context, document, folder.string());
        record::note("report: " + (folder / "report.html").string());
    } catch (const core::RunError& error) {
        record::warn("the comparison has no report: " + std::string(error.what()) +
                     "; --out names another place");
    }
}

/// Everything that is said of a comparison, or of the seeds of it that were finished.
void show(const Context& context, const CompareArguments& arguments, const federation::Comparison& comparison,
          const federation::CompareOptions& options, const federation::Experiment& experiment) {
    if (arguments.json) {
        context.print(comparison_json(comparison, options, experiment));
    } else {
        context.print(comparison_table(comparison, options, experiment.rounds) +
                      (options.seeds > 1
                           ? "Mean ± standard error over " + std::to_string(options.seeds) +
                                 " seeds; differences are paired, with 95% intervals (Student's t).\n"
                           : "One seed: no errors, no intervals; --seeds 3 gives them.\n"));
    }
    if (!context.is_root) return;
    const auto document = comparison_document(comparison, options, experiment);
    if (!arguments.out.empty()) {
        leave_report(context, document, arguments.out);
    } else {
        leave_unasked(context, document, free_folder(experiment.name + "-compare"));
    }
}

void compare(const Context& context, const CompareArguments& arguments) {
    const auto experiment = arguments.config.load(context);
    auto options =
        core::collectively(context.communicator, [&] { return options_of(arguments, experiment); });
    if (!arguments.csv.empty()) require_writable(context, arguments.csv);
    if (!arguments.out.empty()) require_folder(context, arguments.out);
    federation::Comparison finished;
    std::int64_t seeds = 0;
    options.after_seed = [&](const federation::Comparison& comparison) {
        finished = comparison;
        ++seeds;
        core::collectively(context.communicator, [&] {
            if (context.is_root && !arguments.csv.empty())
                core::write_atomically(arguments.csv, comparison_csv(comparison, options));
        });
    };
    try {
        federation::compare(experiment, options, context.communicator);
    } catch (const core::Error&) {
        if (seeds == 0) throw;
        options.seeds = seeds;
        if (context.is_root)
            record::note("what follows is of the " + std::to_string(seeds) + " seeds that were finished");
        show(context, arguments, finished, options, experiment);
        throw;
    }
    show(context, arguments, finished, options, experiment);
    const auto failed = std::count_if(finished.rows.begin(), finished.rows.end(),
                                      [](const CompareRow& row) { return !row.error.empty(); });
    if (failed > 0 && context.is_root && arguments.json)
        record::warn(std::to_string(failed) + " of " + std::to_string(finished.rows.size()) +
                     " rows have no numbers; their `error` says why");
    if (failed == static_cast<std::ptrdiff_t>(finished.rows.size()))
        throw core::RunError("no pipeline could be run on these models");
}

}  // namespace

void add_compare(CLI::App& program, Context& context) {
    auto* command = program.add_subcommand(
        "compare", "trains each round's clients once and fuses the same models every way, paired");
    auto arguments = std::make_shared<CompareArguments>();
    arguments->config.add_to(*command);
    command->add_option("--pipelines", arguments->pipelines,
                        "separated by ';', in the short form: \"mean; weight_matching+mean\" (default: the "
                        "configuration's compare.pipelines)");
    command->add_option("--seeds", arguments->seeds, "repetitions: the seed and those after it")
        ->check(CLI::Range(1, 10000));
    command->add_option(
        "--follow", arguments->follow,
        "the pipeline whose model the next round starts from (default: the first), or `each`");
    command
        ->add_option("--barrier-pairs", arguments->barrier_pairs,
                     "client pairs that barriers are measured on; 0: none (default: the configuration's "
                     "compare.barrier_pairs, 3)")
        ->check(CLI::Range(0, 1000));
    command->add_option("--csv", arguments->csv, "also writes every row there");
    command->add_option("--out", arguments->out,
                        "folder for report.html, result.json and the figures (default: "
                        "runs/NAME-compare, the first free number)");
    command->add_flag("--json", arguments->json, "one JSON document on stdout instead of the table");
    command->footer(
        "Example:\n  mpirun -n 2 thalweg compare configs/compare/one-shot-iid.yaml --pipelines \"mean; "
        "merge_many+mean; merge_many+mean+repair\" --seeds 3");
    command->callback(
        [&context, arguments] { context.action = [&context, arguments] { compare(context, *arguments); }; });
}

}  // namespace thalweg::app
