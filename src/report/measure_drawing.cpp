#include "measure_drawing.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

namespace thalweg::report {

Path Measure::at(const char* key, const char* inner) const {
    Path path{name, key};
    if (inner != nullptr) path.emplace_back(inner);
    return path;
}

Figure Measure::named(Figure figure) const {
    if (!settings.empty()) figure.caption += (figure.caption.empty() ? "" : " ") + settings;
    if (name == kind) return figure;
    figure.name = stem(figure.name + "-" + name);
    figure.title += " (" + words(name) + ")";
    return figure;
}

const Json* last_of(const RunRecord& run, const Path& path, double& round) {
    for (auto entry = run.measured.rbegin(); entry != run.measured.rend(); ++entry) {
        const Json& found = record::json_at(entry->second, path);
        if (!found.is_object() || found.empty()) continue;
        round = entry->first;
        return &found;
    }
    return nullptr;
}

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

std::vector<double> numbers(const Json& list, double scale) {
    std::vector<double> values;
    if (!list.is_array()) return values;
    for (const Json& item : list)
        values.push_back(item.is_number() ? item.get<double>() * scale : std::nan(""));
    return values;
}

void add_lines(Section& section, const RunRecord& run, Figure figure,
               const std::vector<std::pair<std::string, Path>>& lines, double scale) {
    for (const auto& [name, path] : lines)
        add_series(figure, over_measured(run, name, [&path = path, scale](const Json& measures) {
                       return number_or_gap_at(measures, path, scale);
                   }));
    add_figure(section, std::move(figure));
}

namespace {

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

}  // namespace

void add_layers(Section& section, const RunRecord& run, const Measure& measure, Figure figure,
                const std::vector<LayerSeries>& groups, double scale) {
    double round = 0;
    const Json* last = last_of(run, {measure.name}, round);
    if (last == nullptr) return;
    figure = measure.named(std::move(figure));
    figure.title += fmt::format(", round {:.0f}", round);
    figure.x.label = "layer";
    for (const auto& [name, group, key] : groups)
        add_series(figure, by_layer(figure, name, group.empty() ? *last : record::json_at(*last, {group}),
                                    key, scale));
    add_figure(section, std::move(figure));
}

/// Numbers of the same last name share a figure, for they have one unit.
void draw_everything(Section& section, const RunRecord& run, const Measure& drawn) {
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

}  // namespace thalweg::report
