#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <stdexcept>

#include "parts.hpp"
#include "run_record.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/files.hpp"
#include "thalweg/core/text.hpp"
#include "thalweg/record/table.hpp"
#include "thalweg/report/run.hpp"

namespace thalweg::report {

namespace fs = std::filesystem;

namespace {

const Json none = Json::object();

const Json& last_round(const RunRecord& run) {
    return run.rounds.empty() ? none : run.rounds.back();
}

double total_seconds(const RunRecord& run) {
    double sum = 0;
    for (const Json& line : run.rounds) {
        const double seconds = number_at(line, {"seconds", "total"});
        if (std::isfinite(seconds)) sum += seconds;
    }
    return sum;
}

std::string flow(const RunRecord& run, const std::vector<std::string>& path) {
    const core::Value* at = &run.config;
    for (const auto& key : path) {
        at = at->find(key);
        if (at == nullptr) return "";
    }
    return core::to_flow(*at);
}

/// `mean` for a plug-in's section, whatever its options.
std::string kind(const core::Value& value) {
    for (const char* key : {"kind", "scheme"}) {
        const core::Value* found = value.is_map() ? value.find(key) : nullptr;
        if (found != nullptr && found->is_scalar()) return found->as_text();
    }
    return value.is_scalar() ? value.as_text() : std::string("?");
}

std::string kind_at(const RunRecord& run, const std::string& section, const std::string& key) {
    const core::Value* at = run.config.find(section);
    if (at != nullptr && !key.empty()) at = at->find(key);
    return at == nullptr ? "?" : kind(*at);
}

std::string pipeline(const RunRecord& run) {
    std::vector<std::string> names;
    const core::Value* server = run.config.find("server");
    const core::Value* fusion = server == nullptr ? nullptr : server->find("fusion");
    if (fusion != nullptr) {
        for (const auto& item : fusion->items()) names.push_back(kind(item));
    }
    return core::join(names, " + ");
}

std::string summary(const RunRecord& run) {
    const std::string setting = kind_at(run, "model", "") + " on " + kind_at(run, "data", "dataset") + " (" +
                                kind_at(run, "data", "partition") + "), fused by " + pipeline(run);
    if (run.rounds.empty()) return "No round is finished yet: " + setting + ".";
    double best = std::nan(""), at = 0;
    for (const Json& line : run.rounds) {
        const double accuracy = number_at(line, {"test", "accuracy"});
        if (!std::isfinite(accuracy) || accuracy <= best) continue;
        best = accuracy;
        at = number_at(line, {"round"});
    }
    std::string text = percent_or_dash(number_at(last_round(run), {"test", "accuracy"})) +
                       " test accuracy after " + std::to_string(run.rounds.size()) +
                       (run.rounds.size() == 1 ? " round" : " rounds");
    if (at > 0 && run.rounds.size() > 1)
        text += fmt::format(" (best: {} after round {:.0f})", percent_or_dash(best), at);
    return text + ": " + setting + ".";
}

std::string text_at(const Json& json, const std::string& key) {
    const Json& value = record::json_at(json, {key});
    return value.is_string() ? value.get<std::string>() : value.is_null() ? "–" : value.dump();
}

/// `2026-11-22 21:19 UTC` of ISO 8601's 2026-11-22T21:19:28Z; any other text as it is.
std::string minute(const std::string& time) {
    if (time.size() != 20 || time[10] != 'T' || time[19] != 'Z') return time;
    return time.substr(0, 10) + " " + time.substr(11, 5) + " UTC";
}

Json facts(const RunRecord& run) {
    const Json& last = last_round(run);
    Json facts = {{"test accuracy", percent_or_dash(number_at(last, {"test", "accuracy"}))},
                  {"test loss (nats)", number_or_dash(number_at(last, {"test", "loss"}))},
                  {"rounds", std::to_string(run.rounds.size()) + " of " + flow(run, {"server", "rounds"})},
                  {"clients in the last round", record::json_at(last, {"cohort"}).size()},
                  {"time of all rounds", core::seconds_text(total_seconds(run))},
                  {"seed", flow(run, {"seed"})},
                  {"ranks", text_at(run.manifest, "ranks")},
                  {"machine", text_at(run.manifest, "host")},
                  {"started", minute(text_at(run.manifest, "started"))}};
    const double up = number_at(last, {"bytes", "up"});
    if (std::isfinite(up)) facts["sent by clients, last round"] = core::bytes_text(up);
    return facts;
}

Section curves(const RunRecord& run) {
    Section section{.title = "Accuracy and loss"};
    const auto at = [](const std::vector<std::string>& path, double scale) {
        return [=](const Json& line) { return number_or_gap_at(line, path, scale); };
    };
    Figure accuracy{.name = "accuracy",
                    .title = "Test accuracy",
                    .caption = "The global model on the test set after each round.",
                    .x = {.label = "round"},
                    .y = {.label = "test accuracy (%)"}};
    add_series(accuracy, over_rounds(run, "global model", at({"test", "accuracy"}, 100)));
    Series ensemble = over_measured(run, "ensemble of the clients",
                                    at({name_of(run, "ladder"), "ensemble", "accuracy"}, 100));
    ensemble.style = Series::Style::dashed;
    ensemble.note = "mean of the clients' logits: an upper mark";
    add_series(accuracy, std::move(ensemble));
    add_figure(section, std::move(accuracy));
    Figure loss{.name = "loss",
                .title = "Loss",
                .caption =
                    "Cross-entropy: of the global model on the test set, and of the clients in their last "
                    "epoch, weighted by samples.",
                .x = {.label = "round"},
                .y = {.label = "loss (nats)"}};
    add_series(loss, over_rounds(run, "test", at({"test", "loss"}, 1)));
    add_series(loss, over_rounds(run, "training", at({"train", "loss"}, 1)));
    add_figure(section, std::move(loss));
    return section;
}

/// The ladder of the last round that has one: who stands where.
void add_last_ladder(Section& section, double round, const Json& ladder) {
    Figure figure{
        .name = "ladder",
        .title = fmt::format("What each step bought in round {:.0f}", round),
        .caption =
            "Test accuracy of the clients' models alone, of the fused model after each stage, and of "
            "the ensemble of the clients' logits (an upper mark).",
        .x = {.label = "model"},
        .y = {.label = "test accuracy (%)"}};
    Series series{.name = "test accuracy", .style = Series::Style::bars};
    const auto add = [&](const std::string& name, double accuracy) {
        if (!std::isfinite(accuracy)) return;
        series.x.push_back(static_cast<double>(figure.categories.size()));
        series.y.push_back(100 * accuracy);
        figure.categories.push_back(name);
    };
    std::vector<double> alone;
    for (const Json& client : record::json_at(ladder, {"clients"}))
        alone.push_back(number_at(client, {"accuracy"}));
    const bool few = alone.size() <= 10;
    if (!few) std::erase_if(alone, [](double accuracy) { return !std::isfinite(accuracy); });
    if (few) {
        std::size_t k = 0;
        for (const Json& client : record::json_at(ladder, {"clients"}))
            add(fmt::format("client {:.0f}", number_at(client, {"client"})), alone[k++]);
    } else if (!alone.empty()) {
        std::sort(alone.begin(), alone.end());
        add("clients: lowest", alone.front());
        add("median", alone[alone.size() / 2]);
        add("highest", alone.back());
    }
    for (const Json& step : record::json_at(ladder, {"steps"}))
        add(text_at(step, "name"), number_at(step, {"accuracy"}));
    add("ensemble", number_at(ladder, {"ensemble", "accuracy"}));
    if (!has_values(series)) return;
    figure.series.push_back(std::move(series));
    section.figures.push_back(std::move(figure));
}

Section ladder(const RunRecord& run) {
    Section section{.title = "The ladder"};
    const std::string recorded = name_of(run, "ladder");
    std::vector<std::string> names;
    const Json* last = nullptr;
    double round = 0;
    for (const auto& [number, measures] : run.measured) {
        const Json& found = record::json_at(measures, {recorded});
        if (!found.is_object()) continue;
        last = &found;
        round = number;
        for (const Json& step : record::json_at(found, {"steps"})) {
            const std::string name = text_at(step, "name");
            if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
        }
    }
    if (last == nullptr) return section;
    add_last_ladder(section, round, *last);
    if (run.measured.size() < 2) return section;
    Figure figure{
        .name = "ladder-rounds",
        .title = "The fused model after each stage",
        .caption =
            "Test accuracy of what the reduction makes of the models after each alignment, and of the "
            "result after each finisher.",
        .x = {.label = "round"},
        .y = {.label = "test accuracy (%)"}};
    for (const auto& name : names)
        add_series(figure, over_measured(run, name, [&](const Json& measures) {
                       for (const Json& step : record::json_at(measures, {recorded, "steps"})) {
                           if (text_at(step, "name") == name) return number_at(step, {"accuracy"}, 100);
                       }
                       return std::nan("");
                   }));
    add_figure(section, std::move(figure));
    return section;
}

/// Rows of a table that a page and a reader can bear.
constexpr std::size_t most_rows = 1000;

Section clients(const RunRecord& run) {
    Section section{.title = "Clients"};
    const Json& last = last_round(run);
    TextTable table{.name = "clients",
                    .title = fmt::format("Clients of round {:.0f}", number_at(last, {"round"})),
                    .columns = {"client", "samples", "training loss (nats)", "steps", "time (s)", "rank",
                                "accuracy alone (%)"}};
    const Json& alone = run.measured.empty() ? none
                                             : record::json_at(run.measured.back().second,
                                                               {name_of(run, "ladder"), "clients"});
    const bool same = !run.measured.empty() && run.measured.back().first == number_at(last, {"round"});
    std::size_t k = 0;
    for (const Json& client : record::json_at(last, {"clients"})) {
        if (table.rows.size() == most_rows) break;
        double accuracy = std::nan("");
        if (same && k < alone.size() && text_at(alone[k], "client") == text_at(client, "client"))
            accuracy = number_at(alone[k], {"accuracy"}, 100);
        ++k;
        table.rows.push_back({text_at(client, "client"), text_at(client, "samples"),
                              number_or_dash(number_at(client, {"loss"})), text_at(client, "steps"),
                              number_or_dash(number_at(client, {"seconds"})), text_at(client, "rank"),
                              number_or_dash(accuracy)});
    }
    const std::size_t all = record::json_at(last, {"clients"}).size();
    if (all > most_rows)
        table.caption = fmt::format("The first {} of {}; rounds.jsonl has all.", most_rows, all);
    if (!table.rows.empty()) section.tables.push_back(std::move(table));
    TextTable failures{
        .name = "failures", .title = "Clients that failed", .columns = {"round", "client", "error"}};
    for (const Json& line : run.rounds) {
        for (const Json& failure : record::json_at(line, {"failures"})) {
            if (failures.rows.size() < most_rows)
                failures.rows.push_back(
                    {text_at(line, "round"), text_at(failure, "client"), text_at(failure, "error")});
        }
    }
    if (!failures.rows.empty()) section.tables.push_back(std::move(failures));
    return section;
}

/// partition.json: how many samples of each label the first clients have.
Section partition(const RunRecord& run) {
    Section section{.title = "Who holds what"};
    const Json& held = record::json_at(run.partition, {"clients"});
    if (!held.is_array() || held.empty()) return section;
    const Json& labels = record::json_at(run.partition, {"labels"});
    const double all = number_at(run.partition, {"number_of_clients"});
    constexpr std::size_t most_shown = 50;
    Grid grid{.label = "samples"};
    Series samples{.name = "samples", .style = Series::Style::bars};
    for (const Json& label : labels)
        grid.column_names.push_back(label.is_string() ? label.get<std::string>() : label.dump());
    for (const Json& client : held) {
        samples.x.push_back(number_at(client, {"client"}));
        samples.y.push_back(number_at(client, {"samples"}));
        if (grid.values.size() == most_shown) continue;
        const std::string name = text_at(client, "name");
        grid.row_names.push_back(text_at(client, "client") + (name == "–" ? "" : " " + name));
        grid.values.emplace_back();
        for (const Json& count : record::json_at(client, {"labels"}))
            grid.values.back().push_back(count.is_number() ? count.get<double>() : std::nan(""));
        grid.values.back().resize(grid.column_names.size(), std::nan(""));
    }
    const std::string first =
        grid.values.size() < all
            ? fmt::format(" The first {} of {:.0f} clients are shown.", grid.values.size(), all)
            : "";
    if (!grid.column_names.empty() && grid.column_names.size() <= 100)
        section.figures.push_back({.name = "partition",
                                   .title = "Samples of each label at each client",
                                   .caption = fmt::format("{} under {}.", kind_at(run, "data", "dataset"),
                                                          flow(run, {"data", "partition"})) +
                                              first,
                                   .x = {.label = "label"},
                                   .y = {.label = "client"},
                                   .grid = std::move(grid)});
    section.figures.push_back(
        {.name = "samples",
         .title = "Samples of each client",
         .caption = static_cast<double>(held.size()) < all
                        ? fmt::format("The first {} of {:.0f} clients.", held.size(), all)
                        : "",
         .x = {.label = "client"},
         .y = {.label = "training samples"},
         .series = {std::move(samples)}});
    return section;
}

Section times(const RunRecord& run) {
    Section section{.title = "Where the time goes"};
    std::vector<std::string> stages;
    for (const Json& line : run.rounds) {
        for (const Json& stage : record::json_at(line, {"fusion", "stages"})) {
            const std::string name = text_at(stage, "name");
            if (std::find(stages.begin(), stages.end(), name) == stages.end()) stages.push_back(name);
        }
    }
    Figure figure{
        .name = "times",
        .title = "Time of each round",
        .caption = "Seconds of the slowest rank, by what they were spent on; measuring is the rest.",
        .x = {.label = "round"},
        .y = {.label = "time (s)"},
        .stacked = run.rounds.size() <= 100};
    const auto style = figure.stacked ? Series::Style::bars : Series::Style::line;
    const auto add = [&](const std::string& name, const std::function<double(const Json&)>& value) {
        Series series = over_rounds(run, name, value);
        series.style = style;
        add_series(figure, std::move(series));
    };
    const auto stage_seconds = [](const Json& line, const std::string& name) {
        double sum = 0;
        for (const Json& stage : record::json_at(line, {"fusion", "stages"})) {
            if (text_at(stage, "name") == name) sum += number_at(stage, {"seconds"});
        }
        return sum;
    };
    add("clients train", [](const Json& line) { return number_at(line, {"seconds", "clients"}); });
    for (const auto& name : stages) add(name, [&](const Json& line) { return stage_seconds(line, name); });
    add("evaluation", [](const Json& line) { return number_at(line, {"seconds", "evaluation"}); });
    add("measures and the rest", [](const Json& line) {
        return std::max(0.0, number_at(line, {"seconds", "total"}) - number_at(line, {"seconds", "clients"}) -
                                 number_at(line, {"seconds", "fusion"}) -
                                 number_at(line, {"seconds", "evaluation"}));
    });
    add_figure(section, std::move(figure));
    TextTable table{.name = "stages",
                    .title = fmt::format("Stages of round {:.0f}", number_at(last_round(run), {"round"})),
                    .columns = {"stage", "time (s)", "sent between ranks", "notes"}};
    for (const Json& stage : record::json_at(last_round(run), {"fusion", "stages"})) {
        std::vector<std::string> notes;
        for (const auto& [key, value] : stage.items()) {
            if (key == "name" || key == "seconds" || key == "bytes") continue;
            notes.push_back(key + " " +
                            (value.is_number() ? record::number(value.get<double>()) : value.dump()));
        }
        table.rows.push_back({text_at(stage, "name"), number_or_dash(number_at(stage, {"seconds"})),
                              core::bytes_text(number_at(stage, {"bytes"})), core::join(notes)});
    }
    if (!table.rows.empty()) section.tables.push_back(std::move(table));
    return section;
}

bool is_empty(const Section& section) {
    return section.figures.empty() && section.tables.empty() && section.code.empty();
}

}  // namespace

void make_names_differ(std::vector<Section>& sections) {
    std::set<std::string> taken;
    const auto settle = [&](std::string& name) {
        const std::string wanted = name;
        for (int number = 2; !taken.insert(name).second; ++number)
            name = wanted + "-" + std::to_string(number);
    };
    for (Section& section : sections) {
        for (Figure& figure : section.figures) settle(figure.name);
        for (TextTable& table : section.tables) settle(table.name);
    }
}

namespace {

Document document_of_run(const RunRecord& run) {
    Document document{.kind = "run", .title = run.name, .summary = summary(run), .facts = facts(run)};
    std::vector<Section> sections{curves(run), ladder(run), clients(run), partition(run), times(run)};
    for (Section& section : measure_sections(run)) sections.push_back(std::move(section));
    sections.push_back({.title = "Configuration", .code = run.yaml, .folded = true});
    if (!run.manifest.empty())
        sections.push_back({.title = "Machine and versions", .code = run.manifest.dump(2), .folded = true});
    make_names_differ(sections);
    for (Section& section : sections) {
        if (!is_empty(section)) document.sections.push_back(std::move(section));
    }
    return document;
}

Document read_result(const fs::path& path) {
    const Json json = Json::parse(core::read_file(path), nullptr, false);
    if (json.is_discarded())
        throw core::RunError(
            path.string() +
            ": this is not the JSON that the program wrote there; restore it, or run the command "
            "again that made the folder");
    try {
        Document document = document_from_json(json);
        require_sound(document);
        return document;
    } catch (const core::RunError& error) {
        throw core::RunError(path.string() + ": " + error.what());
    } catch (const std::logic_error& error) {
        throw core::RunError(
            path.string() + ": " + error.what() +
            "; it was not written by this program, or is damaged. Run the command again that made the "
            "folder; what a study has computed there is kept");
    }
}

}  // namespace

Document run_document(const fs::path& folder) {
    return document_of_run(read_run(folder));
}

Document document_of(const fs::path& folder) {
    std::error_code error;
    if (!fs::is_directory(folder, error))
        throw core::UsageError(
            folder.string() + ": there is no such folder; give the folder of a run, a comparison or a study");
    // A run beside the result of another command is what a folder is of.
    const bool run = holds_run(folder);
    if (run && fs::exists(folder / "rounds.jsonl", error)) return run_document(folder);
    if (fs::exists(folder / "result.json", error)) return read_result(folder / "result.json");
    if (run) return run_document(folder);
    throw core::UsageError(
        folder.string() +
        ": this folder holds neither a run (config.yaml) nor a result (result.json); give the "
        "--out of thalweg run, compare or study");
}

}  // namespace thalweg::report
