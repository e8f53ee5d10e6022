#include <fmt/format.h>

#include <algorithm>

#include "measure_drawing.hpp"

// Figures of what lies between clients: barriers and signs.
namespace thalweg::report {

namespace {

/// Names of pairs that any round has, in the order in which they first appear.
std::vector<std::string> pairs_of(const RunRecord& run, const Path& by_pair) {
    std::vector<std::string> found;
    for (const auto& entry : run.measured) {
        const Json& pairs = record::json_at(entry.second, by_pair);
        if (!pairs.is_object()) continue;
        for (const auto& item : pairs.items()) {
            if (std::find(found.begin(), found.end(), item.key()) == found.end()) found.push_back(item.key());
        }
    }
    return found;
}

/// Pairs of the configuration, each over the rounds. Those that are drawn anew in every round have no such line.
void chosen_pairs(Section& section, const RunRecord& run, Figure figure, const Path& by_pair,
                  const Path& before, const Path& after, double scale) {
    const core::Value* analysis = run.config.is_map() ? run.config.find("analysis") : nullptr;
    const core::Value* chosen = analysis != nullptr && analysis->is_map() ? analysis->find("pairs") : nullptr;
    if (chosen == nullptr || chosen->items().empty()) return;
    constexpr std::size_t most_pairs = 12;
    const char* const blank = figure.caption.empty() ? "" : " ";
    auto names = pairs_of(run, by_pair);
    if (names.size() > most_pairs) {
        figure.caption +=
            fmt::format("{}The first {} of {}; analysis.jsonl has all.", blank, most_pairs, names.size());
        names.resize(most_pairs);
    }
    std::vector<std::pair<std::string, Path>> lines;
    const auto add = [&](const std::string& name, const char* when, const Path& end) {
        Path path = by_pair;
        path.push_back(name);
        path.insert(path.end(), end.begin(), end.end());
        lines.emplace_back(fmt::format("{}, {}", name, when), std::move(path));
    };
    for (const auto& name : names) {
        add(name, "as sent", before);
        add(name, "as aligned", after);
    }
    add_lines(section, run, std::move(figure), lines, scale);
}

/// Mean over the pairs of the last round, as they were sent and as they were aligned.
void curves_between(Section& section, const RunRecord& run, const Measure& measure) {
    double round = 0;
    const Json* pairs = last_of(run, measure.at("by_pair"), round);
    if (pairs == nullptr) return;
    const auto add = [&](const char* key, const std::string& label, double scale) {
        Figure figure{.name = std::string("between-clients-") + key,
                      .title = fmt::format("The line between clients' models, round {:.0f}: {}", round, key),
                      .caption = fmt::format("Mean over {} {}, from one client's model to the other's.",
                                             pairs->size(), pairs->size() == 1 ? "pair" : "pairs"),
                      .x = {.label = "share of the way"},
                      .y = {.label = label}};
        for (const auto& [name, when] : {std::pair("as sent", "before"), std::pair("as aligned", "after")}) {
            Series series{.name = name};
            for (const auto& item : pairs->items()) {
                const auto values = numbers(record::json_at(item.value(), {when, "curve", key}), scale);
                if (series.y.empty()) series.y.resize(values.size());
                if (values.size() != series.y.size()) return;
                for (std::size_t i = 0; i < values.size(); ++i)
                    series.y[i] += values[i] / static_cast<double>(pairs->size());
            }
            for (std::size_t i = 0; i < series.y.size(); ++i)
                series.x.push_back(static_cast<double>(i) / static_cast<double>(series.y.size() - 1));
            add_series(figure, std::move(series));
        }
        add_figure(section, measure.named(std::move(figure)));
    };
    add("loss", "loss (nats)", 1);
    add("error", "error (%)", 100);
}

}  // namespace

void draw_barrier(Section& section, const RunRecord& run, const Measure& measure) {
    const auto figure = [&](const char* name, const char* title, const char* label) {
        return measure.named({.name = name,
                              .title = title,
                              .caption =
                                  "Mean over client pairs, as the clients sent their models and as the "
                                  "stages aligned them.",
                              .x = {.label = "round"},
                              .y = {.label = label}});
    };
    add_lines(
        section, run, figure("barrier-error", "Error barrier between clients", "error barrier (points)"),
        {{"as sent", measure.at("before", "error")}, {"as aligned", measure.at("after", "error")}}, 100);
    add_lines(section, run, figure("barrier-loss", "Loss barrier between clients", "loss barrier (nats)"),
              {{"as sent", measure.at("before", "loss")}, {"as aligned", measure.at("after", "loss")}}, 1);
    chosen_pairs(section, run,
                 measure.named({.name = "barrier-by-pair",
                                .title = "Error barrier of the chosen pairs",
                                .x = {.label = "round"},
                                .y = {.label = "error barrier (points)"}}),
                 measure.at("by_pair"), {"before", "error"}, {"after", "error"}, 100);
    curves_between(section, run, measure);
}

void draw_layer_barriers(Section& section, const RunRecord& run, const Measure& measure) {
    const auto figure = [](const char* name, const char* title, const char* label) {
        return Figure{.name = name,
                      .title = title,
                      .caption = "One layer goes from one client's model to the other's; the rest stays.",
                      .y = {.label = label}};
    };
    add_layers(section, run, measure,
               figure("layer-barriers", "Error barrier of each layer", "error barrier (points)"),
               {{"as sent", "before", "error"}, {"as aligned", "after", "error"}}, 100);
    add_layers(section, run, measure,
               figure("layer-barriers-loss", "Loss barrier of each layer", "loss barrier (nats)"),
               {{"as sent", "before", "loss"}, {"as aligned", "after", "loss"}}, 1);
}

namespace {

/// Of the last round that says it, tensors by clients.
void signs_by_client(Section& section, const RunRecord& run, const Measure& measure) {
    double round = 0;
    const Json* last = nullptr;
    for (const auto& [number, measures] : run.measured) {
        const Json& found = record::json_at(measures, measure.at("by_client"));
        if (!found.is_object() || found.empty()) continue;
        last = &found;
        round = number;
    }
    if (last == nullptr) return;
    constexpr std::size_t most_clients = 60;
    Grid grid{.label = "agreeing signs (%)"};
    for (const auto& [client, tensors] : last->items()) {
        if (!tensors.is_object() || grid.column_names.size() == most_clients) break;
        grid.column_names.push_back(client);
        for (const auto& [name, ratio] : tensors.items()) {
            if (std::find(grid.row_names.begin(), grid.row_names.end(), name) == grid.row_names.end())
                grid.row_names.push_back(name);
        }
    }
    for (const auto& name : grid.row_names) {
        grid.values.emplace_back();
        for (const auto& client : grid.column_names)
            grid.values.back().push_back(number_at(*last, {client, name}, 100));
    }
    if (grid.row_names.empty()) return;
    const bool some = last->size() > grid.column_names.size();
    section.figures.push_back(measure.named(
        {.name = "signs-by-client",
         .title = "Sign consistency by layer and client",
         .caption =
             fmt::format("Each client's model with the new global model, round {:.0f}{}.", round,
                         some ? fmt::format("; the first {} of {} clients", most_clients, last->size()) : ""),
         .x = {.label = "client"},
         .y = {.label = "tensor"},
         .grid = std::move(grid)}));
}

}  // namespace

void draw_signs(Section& section, const RunRecord& run, const Measure& measure) {
    add_lines(section, run,
              measure.named({.name = "signs",
                             .title = "Sign consistency",
                             .caption = "Share of parameters whose signs agree; 50% is chance.",
                             .x = {.label = "round"},
                             .y = {.label = "agreeing signs (%)"}}),
              {{"clients, as sent", measure.at("client_client_before")},
               {"clients, as aligned", measure.at("client_client")},
               {"client and global model", measure.at("client_global")}},
              100);
    add_lines(section, run,
              measure.named({.name = "signs-weighted",
                             .title = "Sign consistency, weighted by magnitude",
                             .caption = "Share of Σ|ab| that parameters of one sign have.",
                             .x = {.label = "round"},
                             .y = {.label = "agreeing signs (%)"}}),
              {{"clients, as sent", measure.at("weighted", "client_client_before")},
               {"clients, as aligned", measure.at("weighted", "client_client")},
               {"client and global model", measure.at("weighted", "client_global")}},
              100);
    chosen_pairs(section, run,
                 measure.named({.name = "signs-by-pair",
                                .title = "Sign consistency of the chosen pairs",
                                .x = {.label = "round"},
                                .y = {.label = "agreeing signs (%)"}}),
                 measure.at("by_pair"), {"before"}, {"after"}, 100);
    signs_by_client(section, run, measure);
}

}  // namespace thalweg::report
