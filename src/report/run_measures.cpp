#include <algorithm>
#include <array>

#include "measure_drawing.hpp"

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

using Draw = void (*)(Section&, const RunRecord&, const Measure&);

/// How measures of each kind are drawn, and in which section, in the order in which they stand there.
struct Drawing {
    const char* kind;
    std::size_t section;
    Draw draw;
};
constexpr std::array<const char*, 4> titles{"Barriers", "Signs", "Valley and curvature", "Layer by layer"};
constexpr std::array drawings{Drawing{"barrier", 0, draw_barrier},
                              Drawing{"layer_barriers", 0, draw_layer_barriers},
                              Drawing{"sign_consistency", 1, draw_signs},
                              Drawing{"valley", 2, draw_valley},
                              Drawing{"surface", 2, draw_surface},
                              Drawing{"flatness", 2, draw_flatness},
                              Drawing{"hessian", 2, draw_hessian},
                              Drawing{"variance_ratio", 3, draw_variance_ratio},
                              Drawing{"cka", 3, draw_cka},
                              Drawing{"support", 3, draw_support}};

/// The options that the measure recorded under `name` had: `Options: points 5, samples 2000.` Without those that say when it
/// is made, and how many pairs are drawn, where chosen ones may stand in their place.
std::string settings_of(const RunRecord& run, const std::string& name) {
    const auto found = std::find_if(run.kinds.begin(), run.kinds.end(),
                                    [&](const auto& kind) { return kind.first == name; });
    if (found == run.kinds.end()) return "";
    const auto& options =
        run.config["analysis"]["measures"].items()[static_cast<std::size_t>(found - run.kinds.begin())];
    std::string text;
    for (const auto& [key, value] : options.fields()) {
        if (key == "kind" || key == "as" || key == "every" || key == "rounds" || key == "pairs" ||
            value.is_null())
            continue;
        text += text.empty() ? "Options: " : ", ";
        text += words(key) + " " + core::to_flow(value);
    }
    return text.empty() ? text : text + ".";
}

/// What was recorded, but for the ladder, which has a section of its own.
std::vector<Measure> drawn_here(const RunRecord& run) {
    const std::string ladder = name_of(run, "ladder");
    std::vector<Measure> found;
    for (const auto& [name, kind] : recorded_measures(run)) {
        if (name != ladder) found.push_back({name, kind, settings_of(run, name)});
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
        draw_everything(section, run, measure);
        sections.push_back(std::move(section));
    }
    return sections;
}

}  // namespace thalweg::report
