#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "run_record.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/text.hpp"
#include "thalweg/record/table.hpp"
#include "thalweg/report/run.hpp"

namespace thalweg::report {

namespace fs = std::filesystem;

namespace {

/// Every setting of a configuration by its path; a plug-in's options one by one, a list as one text.
void settings(const core::Value& value, const std::string& path,
              std::vector<std::pair<std::string, std::string>>& found) {
    if (!value.is_map()) {
        found.emplace_back(path, core::to_flow(value));
        return;
    }
    for (const auto& [key, field] : value.fields())
        settings(field, path.empty() ? key : path + "." + key, found);
}

/// Names that tell the runs apart: their experiments', or the folders' where two are alike.
std::vector<std::string> labels(const std::vector<RunRecord>& runs) {
    const auto alike = [](const std::vector<std::string>& names) {
        auto sorted = names;
        std::sort(sorted.begin(), sorted.end());
        return std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end();
    };
    std::vector<std::string> names, folders, paths;
    for (const auto& run : runs) {
        names.push_back(run.name);
        folders.push_back(fs::weakly_canonical(run.folder).filename().string());
        paths.push_back(run.folder.string());
    }
    return !alike(names) ? names : !alike(folders) ? folders : paths;
}

Section differences(const std::vector<RunRecord>& runs, const std::vector<std::string>& names) {
    Section section{.title = "Where the configurations differ"};
    TextTable table{.name = "differences", .columns = {"setting"}};
    table.columns.insert(table.columns.end(), names.begin(), names.end());
    std::vector<std::vector<std::pair<std::string, std::string>>> all(runs.size());
    std::vector<std::string> paths;
    for (std::size_t i = 0; i < runs.size(); ++i) {
        settings(runs[i].config, "", all[i]);
        for (const auto& [path, text] : all[i]) {
            if (std::find(paths.begin(), paths.end(), path) == paths.end()) paths.push_back(path);
        }
    }
    for (const auto& path : paths) {
        std::vector<std::string> row{path};
        for (const auto& one : all) {
            const auto found =
                std::find_if(one.begin(), one.end(), [&](const auto& entry) { return entry.first == path; });
            row.push_back(found == one.end() ? "–" : found->second);
        }
        const bool differs =
            std::any_of(row.begin() + 1, row.end(), [&](const auto& cell) { return cell != row[1]; });
        if (differs) table.rows.push_back(std::move(row));
    }
    if (table.rows.empty()) {
        section.paragraphs.emplace_back("The configurations are the same.");
    } else {
        section.tables.push_back(std::move(table));
    }
    return section;
}

struct Curve {
    const char *name, *title, *label;
    std::vector<std::string> path;
    double scale = 1;
};

Section overlaid(const std::vector<RunRecord>& runs, const std::vector<std::string>& names, std::string title,
                 const std::vector<Curve>& curves) {
    Section section{.title = std::move(title)};
    for (const Curve& curve : curves) {
        Figure figure{
            .name = curve.name, .title = curve.title, .x = {.label = "round"}, .y = {.label = curve.label}};
        for (std::size_t i = 0; i < runs.size(); ++i) {
            add_series(figure, over_rounds(runs[i], names[i], [&](const Json& line) {
                           return number_at(line, curve.path, curve.scale);
                       }));
        }
        add_figure(section, std::move(figure));
    }
    return section;
}

TextTable results(const std::vector<RunRecord>& runs, const std::vector<std::string>& names) {
    TextTable table{.name = "results",
                    .title = "Results",
                    .columns = {"run", "test accuracy (%)", "best (%)", "test loss (nats)", "rounds",
                                "time (s)", "ranks", "folder"}};
    for (std::size_t i = 0; i < runs.size(); ++i) {
        double best = std::nan(""), seconds = 0;
        for (const Json& line : runs[i].rounds) {
            best = std::fmax(best, number_at(line, {"test", "accuracy"}, 100));
            const double time = number_at(line, {"seconds", "total"});
            if (std::isfinite(time)) seconds += time;
        }
        const Json last = runs[i].rounds.empty() ? Json::object() : runs[i].rounds.back();
        const auto points = [](double value) {
            return std::isfinite(value) ? fmt::format("{:.2f}", value) : "–";
        };
        table.rows.push_back({names[i], points(number_at(last, {"test", "accuracy"}, 100)), points(best),
                              number_or_dash(number_at(last, {"test", "loss"})),
                              std::to_string(runs[i].rounds.size()), fmt::format("{:.1f}", seconds),
                              number_or_dash(number_at(runs[i].manifest, {"ranks"})),
                              runs[i].folder.string()});
    }
    return table;
}

std::vector<RunRecord> read_runs(const std::vector<fs::path>& folders) {
    if (folders.size() < 2) throw core::UsageError("two runs or more can be put side by side, not one");
    std::vector<RunRecord> runs;
    for (const auto& folder : folders) {
        std::error_code error;
        for (const auto& earlier : runs) {
            if (fs::equivalent(earlier.folder, folder, error))
                throw core::UsageError(folder.string() + " is given twice; leave one out");
        }
        if (!fs::is_directory(folder, error))
            throw core::UsageError(folder.string() + ": there is no such folder; give the folders of runs");
        if (!holds_run(folder))
            throw core::UsageError(
                folder.string() +
                ": this folder holds no run (it has no config.yaml); several folders are put "
                "side by side only where each is a run's");
        runs.push_back(read_run(folder));
    }
    return runs;
}

std::vector<Curve> of_rounds() {
    return {{"accuracy", "Test accuracy", "test accuracy (%)", {"test", "accuracy"}, 100},
            {"loss", "Test loss", "test loss (nats)", {"test", "loss"}},
            {"training-loss", "Training loss of the clients", "training loss (nats)", {"train", "loss"}},
            {"times", "Time of each round", "time (s)", {"seconds", "total"}}};
}

}  // namespace

Document side_by_side(const std::vector<fs::path>& folders) {
    auto runs = read_runs(folders);
    const auto names = labels(runs);
    Document document{.kind = "runs", .title = core::join(names, ", ")};
    if (names.size() > 4) document.title = std::to_string(names.size()) + " runs side by side";
    Section first{.title = "Results", .tables = {results(runs, names)}};
    document.sections = {std::move(first), differences(runs, names),
                         overlaid(runs, names, "Accuracy and loss", of_rounds())};
    Section measured = overlaid_measures(std::move(runs), names);
    if (!measured.figures.empty() || !measured.paragraphs.empty())
        document.sections.push_back(std::move(measured));
    make_names_differ(document.sections);
    return document;
}

}  // namespace thalweg::report
