#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>

#include "run_record.hpp"

namespace thalweg::report {

std::string stem(const std::string& text) {
    std::string result;
    for (const char c : text) {
        if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')) {
            result += c;
        } else if (c >= 'A' && c <= 'Z') {
            result += static_cast<char>(c - 'A' + 'a');
        } else if (!result.empty() && result.back() != '-') {
            result += '-';
        }
    }
    while (!result.empty() && result.back() == '-') result.pop_back();
    if (result.empty()) return "figure";
    return result.substr(0, 80);
}

namespace {

using Path = std::vector<std::string>;

/// A measure as it is drawn.
struct Measure {
    std::string name, kind;

    Path at(const char* key, const char* inner = nullptr) const {
        Path path{name, key};
        if (inner != nullptr) path.emplace_back(inner);
        return path;
    }
    /// What is recorded under another name than its kind's says so in the names of files and in the title.
    Figure named(Figure figure) const {
        if (name == kind) return figure;
        figure.name = stem(figure.name + "-" + name);
        figure.title += " (" + words(name) + ")";
        return figure;
    }
};

const Json* last_of(const RunRecord& run, const std::string& measure, double& round) {
    for (auto entry = run.measured.rbegin(); entry != run.measured.rend(); ++entry) {
        const Json& found = record::json_at(entry->second, {measure});
        if (!found.is_object()) continue;
        round = entry->first;
        return &found;
    }
    return nullptr;
}

void add_lines(Section& section, const RunRecord& run, Figure figure,
               const std::vector<std::pair<std::string, Path>>& lines, double scale) {
    for (const auto& [name, path] : lines)
        add_series(figure, over_measured(run, name, [&path = path, scale](const Json& measures) {
                       return number_or_gap_at(measures, path, scale);
                   }));
    add_figure(section, std::move(figure));
}

/// `object`: layer → number, or → {key: number}.
Series by_layer(Figure& figure, const std::string& name, const Json& object, const std::string& key,
                double scale) {
    Series series{.name = name, .style = Series::Style::points};
    if (!object.is_object()) return series;
    for (const auto& [layer, value] : object.items()) {
        const double number =
            key.empty() ? (value.is_number() ? value.get<double>() : std::nan("")) : number_at(value, {key});
        const auto found = std::find(figure.categories.begin(), figure.categories.end(), layer);
        series.x.push_back(static_cast<double>(found - figure.categories.begin()));
        series.y.push_back(number * scale);
        if (found == figure.categories.end()) figure.categories.push_back(layer);
    }
    return series;
}

void barrier(Section& section, const RunRecord& run, const Measure& measure) {
    const std::string how =
        "Mean over client pairs, as the clients sent their models and as the stages aligned them.";
    add_lines(section, run,
              measure.named({.name = "barrier-error",
                             .title = "Error barrier between clients",
                             .caption = how,
                             .x = {.label = "round"},
                             .y = {.label = "error barrier (points)"}}),
              {{"as sent", measure.at("before", "error")}, {"as aligned", measure.at("after", "error")}},
              100);
    add_lines(section, run,
              measure.named({.name = "barrier-loss",
                             .title = "Loss barrier between clients",
                             .caption = how,
                             .x = {.label = "round"},
                             .y = {.label = "loss barrier (nats)"}}),
              {{"as sent", measure.at("before", "loss")}, {"as aligned", measure.at("after", "loss")}}, 1);
}

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

void signs(Section& section, const RunRecord& run, const Measure& measure) {
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
    signs_by_client(section, run, measure);
}

void layers(Section& section, const RunRecord& run, const Measure& measure, Figure figure,
            const std::vector<std::pair<std::string, std::string>>& groups, const std::string& key,
            double scale) {
    double round = 0;
    const Json* last = last_of(run, measure.name, round);
    if (last == nullptr) return;
    figure = measure.named(std::move(figure));
    figure.title += fmt::format(", round {:.0f}", round);
    figure.x.label = "layer";
    for (const auto& [name, group] : groups) {
        Series series =
            by_layer(figure, name, group.empty() ? *last : record::json_at(*last, {group}), key, scale);
        if (has_values(series)) figure.series.push_back(std::move(series));
    }
    add_figure(section, std::move(figure));
}

std::vector<double> numbers(const Json& list, double scale = 1) {
    std::vector<double> values;
    if (!list.is_array()) return values;
    for (const Json& item : list)
        values.push_back(item.is_number() ? item.get<double>() * scale : std::nan(""));
    return values;
}

void layer_barriers(Section& section, const RunRecord& run, const Measure& measure) {
    layers(section, run, measure,
           {.name = "layer-barriers",
            .title = "Error barrier of each layer",
            .caption = "One layer goes from one client's model to the other's; the rest stays.",
            .y = {.label = "error barrier (points)"}},
           {{"as sent", "before"}, {"as aligned", "after"}}, "error", 100);
}

void variance_ratio(Section& section, const RunRecord& run, const Measure& measure) {
    layers(section, run, measure,
           {.name = "variance-ratio",
            .title = "Variance ratio",
            .caption =
                "Variance of the pre-activations in the fused model ÷ in the clients' models: 1 is healthy, "
                "near 0 is collapse.",
            .y = {.label = "variance ratio"}},
           {{"before the finishers", "before"}, {"after the finishers", "after"}}, "", 1);
}

void cka(Section& section, const RunRecord& run, const Measure& measure) {
    layers(section, run, measure,
           {.name = "cka",
            .title = "Linear CKA between clients",
            .caption = "Similarity of the clients' representations as their models go into the "
                       "reduction: 1 is the same.",
            .y = {.label = "CKA"}},
           {{"CKA", "layers"}}, "", 1);
}

void support(Section& section, const RunRecord& run, const Measure& measure) {
    layers(section, run, measure,
           {.name = "support",
            .title = "Effective dimension of the support",
            .y = {.label = "effective dimension"}},
           {{"weights", ""}}, "weights", 1);
}

/// The first and the last round that holds an object at `path`, which is enough to see what the rounds did to it.
std::vector<std::pair<double, const Json*>> first_and_last(const RunRecord& run, const Path& path) {
    std::vector<std::pair<double, const Json*>> found;
    for (const auto& [round, measures] : run.measured) {
        const Json& json = record::json_at(measures, path);
        if (!json.is_object()) continue;
        if (found.size() == 2) found.pop_back();
        found.emplace_back(round, &json);
    }
    return found;
}

void valley_curves(Section& section, const RunRecord& run, const Measure& measure) {
    Figure loss{.name = "valley-loss",
                .title = "The valley around the global model: loss",
                .caption = "Along random directions, mean over them.",
                .x = {.label = "λ (noise ÷ its length)"},
                .y = {.label = "loss (nats)"}};
    Figure accuracy = loss;
    accuracy.name = "valley-accuracy";
    accuracy.title = "The valley around the global model: accuracy";
    accuracy.y.label = "test accuracy (%)";
    for (const auto& [round, json] : first_and_last(run, {measure.name})) {
        const std::vector<double> lambdas = numbers(record::json_at(*json, {"lambdas"}));
        const std::string name = fmt::format("round {:.0f}", round);
        const auto add = [&](Figure& figure, std::vector<double> values) {
            if (values.size() == lambdas.size() && !values.empty())
                figure.series.push_back({.name = name, .x = lambdas, .y = std::move(values)});
        };
        add(loss, numbers(record::json_at(*json, {"loss"})));
        add(accuracy, numbers(record::json_at(*json, {"accuracy"}), 100));
    }
    add_figure(section, measure.named(std::move(loss)));
    add_figure(section, measure.named(std::move(accuracy)));
}

void valley(Section& section, const RunRecord& run, const Measure& measure) {
    valley_curves(section, run, measure);
    Figure asymmetry{.name = "valley-asymmetry",
                     .title = "Asymmetry of the valley",
                     .caption = "Mean difference between the two sides, with its interval over directions.",
                     .x = {.label = "round"},
                     .y = {.label = "asymmetry (points)"}};
    Series series{.name = "asymmetry"};
    for (const auto& [round, measures] : run.measured) {
        const double value = number_or_gap_at(measures, measure.at("asymmetry"), 100);
        if (std::isnan(value)) continue;
        const auto interval = numbers(record::json_at(measures, measure.at("asymmetry_interval")), 100);
        series.x.push_back(round);
        series.y.push_back(value);
        series.low.push_back(interval.size() == 2 ? interval[0] : std::nan(""));
        series.high.push_back(interval.size() == 2 ? interval[1] : std::nan(""));
    }
    if (series.x.size() == 1) series.style = Series::Style::points;
    if (has_values(series)) asymmetry.series.push_back(std::move(series));
    add_figure(section, measure.named(std::move(asymmetry)));
}

/// Of the last round that has one.
void surface(Section& section, const RunRecord& run, const Measure& measure) {
    double round = 0;
    const Json* last = last_of(run, measure.name, round);
    if (last == nullptr) return;
    const auto add = [&](const char* key, const char* label, double scale) {
        Grid grid{.rows = numbers(record::json_at(*last, {"y"})),
                  .columns = numbers(record::json_at(*last, {"x"})),
                  .label = label};
        bool sound = grid.rows.size() > 1 && grid.columns.size() > 1;
        for (const Json& row : record::json_at(*last, {key})) {
            grid.values.push_back(numbers(row, scale));
            sound = sound && grid.values.back().size() == grid.columns.size();
        }
        if (!sound || grid.values.size() != grid.rows.size()) return;
        add_figure(section,
                   measure.named({.name = std::string("surface-") + key,
                                  .title = fmt::format("The plane about the global model, round {:.0f}: {}",
                                                       round, key),
                                  .caption = "Along two random directions, the same draws in every round.",
                                  .x = {.label = "first direction (filter norms)"},
                                  .y = {.label = "second direction (filter norms)"},
                                  .grid = std::move(grid)}));
    };
    add("loss", "loss (nats)", 1);
    add("accuracy", "test accuracy (%)", 100);
}

void flatness(Section& section, const RunRecord& run, const Measure& measure) {
    double round = 0;
    const Json* last = last_of(run, measure.name, round);
    if (last == nullptr) return;
    Series series{.name = "local energy"};
    for (const Json& point : record::json_at(*last, {"points"})) {
        const double energy = number_at(point, {"energy"}, 100),
                     error = number_at(point, {"standard_error"}, 100);
        series.x.push_back(number_at(point, {"sigma"}));
        series.y.push_back(energy);
        series.low.push_back(energy - error);
        series.high.push_back(energy + error);
    }
    if (!has_values(series)) return;
    section.figures.push_back(
        measure.named({.name = "flatness",
                       .title = fmt::format("Local energy around the global model, round {:.0f}", round),
                       .caption = "Mean error of the model with noise of strength σ; the band is one "
                                  "standard error.",
                       .x = {.label = "σ (noise ÷ filter norm)"},
                       .y = {.label = "error (%)"},
                       .series = {std::move(series)}}));
}

void density(Section& section, const RunRecord& run, const Measure& measure) {
    Figure figure{.name = "hessian-density",
                  .title = "Spectral density of the Hessian",
                  .caption = "Stochastic Lanczos quadrature at the global model.",
                  .x = {.label = "eigenvalue (nats per squared unit)"},
                  .y = {.label = "density", .logarithmic = true, .low = 1e-10}};
    for (const auto& [round, json] : first_and_last(run, measure.at("density"))) {
        Series series{.name = fmt::format("round {:.0f}", round),
                      .x = numbers(record::json_at(*json, {"grid"})),
                      .y = numbers(record::json_at(*json, {"density"}))};
        if (series.x.size() == series.y.size() && has_values(series))
            figure.series.push_back(std::move(series));
    }
    add_figure(section, measure.named(std::move(figure)));
}

void hessian(Section& section, const RunRecord& run, const Measure& measure) {
    const Path path = measure.at("eigenvalues");
    Figure figure{.name = "hessian",
                  .title = "Largest eigenvalues of the Hessian",
                  .caption = "Curvature of the loss at the global model.",
                  .x = {.label = "round"},
                  .y = {.label = "eigenvalue (nats per squared unit)"}};
    std::size_t most = 0;
    for (const auto& entry : run.measured) most = std::max(most, record::json_at(entry.second, path).size());
    for (std::size_t k = 0; k < std::min<std::size_t>(most, 5); ++k)
        add_series(figure, over_measured(run, fmt::format("λ{}", k + 1), [&, k](const Json& measures) {
                       const auto values = numbers(record::json_at(measures, path));
                       if (k >= values.size()) return std::nan("");
                       // What was not finite is a gap, not a round that was not measured.
                       return std::isnan(values[k]) ? std::numeric_limits<double>::infinity() : values[k];
                   }));
    add_figure(section, measure.named(std::move(figure)));
    add_lines(section, run,
              measure.named({.name = "hessian-trace",
                             .title = "Trace of the Hessian",
                             .caption = "Hutchinson's estimate at the global model.",
                             .x = {.label = "round"},
                             .y = {.label = "trace (nats per squared unit)"}}),
              {{"trace", measure.at("trace", "value")}}, 1);
    density(section, run, measure);
}

/// Every number of a measure that has no figure of its own: numbers of the same last name share one, for they have
/// one unit.
void everything(Section& section, const RunRecord& run, const Measure& drawn) {
    const std::string& measure = drawn.name;
    const std::vector<Path> paths = numbers_of(run, measure);
    std::map<std::string, std::vector<Path>> groups;
    std::map<std::string, std::size_t> count;
    for (const Path& one : paths) ++count[one.back()];
    for (const Path& one : paths) {
        // Layers' names are all different, and stand under one name that says what they are of.
        const bool shared = count[one.back()] > 1 || one.size() <= 2;
        groups[shared ? one.back() : one[one.size() - 2]].push_back(one);
    }
    for (const auto& [name, members] : groups) {
        Figure figure{.name = stem(measure + "-" + name),
                      .title = words(measure) + (name == measure ? "" : ": " + words(name)),
                      .x = {.label = "round"},
                      .y = {.label = words(name)}};
        for (const Path& one : members) {
            if (figure.series.size() == 24) {
                figure.caption = fmt::format("The first 24 of {}; analysis.jsonl has all.", members.size());
                break;
            }
            std::string label;
            for (std::size_t i = 1; i < one.size(); ++i) {
                if (i + 1 == one.size() && one.size() > 2 && one.back() == name) break;
                label += (label.empty() ? "" : ", ") + words(one[i]);
            }
            add_series(figure, over_measured(run, label, [&](const Json& measures) {
                           return number_or_gap_at(measures, one);
                       }));
        }
        add_figure(section, std::move(figure));
    }
}

using Draw = void (*)(Section&, const RunRecord&, const Measure&);

/// How measures of each kind are drawn, and in which section, in the order in which they stand there.
struct Drawing {
    const char* kind;
    std::size_t section;
    Draw draw;
};
constexpr std::array<const char*, 4> titles{"Barriers", "Signs", "Valley and curvature", "Layer by layer"};
constexpr std::array drawings{Drawing{"barrier", 0, barrier},
                              Drawing{"layer_barriers", 0, layer_barriers},
                              Drawing{"sign_consistency", 1, signs},
                              Drawing{"valley", 2, valley},
                              Drawing{"surface", 2, surface},
                              Drawing{"flatness", 2, flatness},
                              Drawing{"hessian", 2, hessian},
                              Drawing{"variance_ratio", 3, variance_ratio},
                              Drawing{"cka", 3, cka},
                              Drawing{"support", 3, support}};

/// What was recorded, but for the ladder, which has a section of its own.
std::vector<Measure> drawn_here(const RunRecord& run) {
    const std::string ladder = name_of(run, "ladder");
    std::vector<Measure> found;
    for (const auto& [name, kind] : recorded_measures(run)) {
        if (name != ladder) found.push_back({name, kind});
    }
    return found;
}

}  // namespace

std::vector<Section> measure_sections(const RunRecord& run) {
    auto measures = drawn_here(run);
    std::vector<Section> sections;
    for (const char* title : titles) sections.push_back({.title = title});
    for (const Drawing& drawing : drawings) {
        for (const Measure& measure : measures) {
            if (measure.kind == drawing.kind) drawing.draw(sections[drawing.section], run, measure);
        }
        std::erase_if(measures, [&](const Measure& measure) { return measure.kind == drawing.kind; });
    }
    for (const Measure& measure : measures) {
        Section section{.title = "Measure: " + words(measure.name)};
        everything(section, run, measure);
        sections.push_back(std::move(section));
    }
    return sections;
}

}  // namespace thalweg::report
