#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <set>

#include "run_record.hpp"
#include "thalweg/core/text.hpp"
#include "thalweg/record/table.hpp"

namespace thalweg::report {

namespace {

/// The keys that lead to a number, below its measure.
using Keys = std::vector<std::string>;

/// More figures of one measure would bury the others.
constexpr std::size_t most_of_a_measure = 12;

/// What a number of a kind of measures is, by its last keys (empty: any), and its unit. The first that fits counts.
struct Unit {
    const char *kind, *keys, *label;
    double scale;
};
constexpr std::array units{Unit{"barrier", "/error", "error barrier (points)", 100},
                           Unit{"barrier", "/loss", "loss barrier (nats)", 1},
                           Unit{"layer_barriers", "/midpoint/error", "error above the line (points)", 100},
                           Unit{"layer_barriers", "/midpoint/loss", "loss above the line (nats)", 1},
                           Unit{"layer_barriers", "/error", "error barrier (points)", 100},
                           Unit{"layer_barriers", "/loss", "loss barrier (nats)", 1},
                           Unit{"sign_consistency", "", "agreeing signs (%)", 100},
                           Unit{"valley", "/asymmetry", "error, λ < 0 minus λ > 0 (points)", 100},
                           Unit{"ladder", "/accuracy", "test accuracy (%)", 100},
                           Unit{"ladder", "/loss", "test loss (nats)", 1},
                           Unit{"flatness", "/error", "error (%)", 100},
                           Unit{"flatness", "/energy", "rise of the error (points)", 100},
                           Unit{"flatness", "/loss_rise", "rise of the loss (nats)", 1},
                           Unit{"hessian", "/negative", "eigenvalues below 0 (%)", 100},
                           Unit{"hessian", "/value", "trace (nats per squared unit)", 1},
                           Unit{"hessian", "", "eigenvalue (nats per squared unit)", 1},
                           Unit{"variance_ratio", "", "variance ratio", 1},
                           Unit{"cka", "", "CKA", 1},
                           Unit{"support", "", "effective dimension", 1}};

/// How what is looked for most often is called.
struct Title {
    const char *kind, *keys, *name, *title;
};
constexpr std::array known_titles{
    Title{"barrier", "before/error", "barrier-sent", "Error barrier between clients, as sent"},
    Title{"barrier", "after/error", "barrier-aligned", "Error barrier between clients, as aligned"},
    Title{"barrier", "before/loss", "loss-barrier-sent", "Loss barrier between clients, as sent"},
    Title{"barrier", "after/loss", "loss-barrier-aligned", "Loss barrier between clients, as aligned"},
    Title{"sign_consistency", "client_client_before", "signs-clients-sent",
          "Sign consistency between clients, as sent"},
    Title{"sign_consistency", "client_client", "signs-clients",
          "Sign consistency between clients, as aligned"},
    Title{"sign_consistency", "client_global", "signs-global",
          "Sign consistency of clients and global model"},
    Title{"valley", "asymmetry", "asymmetry", "Asymmetry of the valley"},
    Title{"ladder", "ensemble/accuracy", "ensemble", "Ensemble of the clients: accuracy"},
    Title{"ladder", "ensemble/loss", "ensemble-loss", "Ensemble of the clients: loss"},
    Title{"hessian", "trace/value", "hessian-trace", "Trace of the Hessian"}};

/// Settings, counts and the uncertainty of another number are no curves.
bool is_drawn_number(const Keys& keys) {
    static const std::set<std::string> others{"pairs", "parameters", "sign_ratio", "sigma", "standard_error"};
    return !keys.empty() && others.count(keys.back()) == 0;
}

/// Lists whose places mean something become objects that name them: the k-th eigenvalue, the noise of one strength.
void name_places(RunRecord& run) {
    for (auto& entry : run.measured) {
        for (const auto& item : entry.second.items()) {
            const std::string kind = kind_of(run, item.key());
            const std::string key = kind == "hessian" ? "eigenvalues" : kind == "flatness" ? "points" : "";
            if (key.empty() || !record::json_at(item.value(), Keys{key}).is_array()) continue;
            Json named = Json::object();
            for (const Json& one : item.value()[key]) {
                const double sigma = number_at(one, {"sigma"});
                named[std::isfinite(sigma) ? "σ = " + record::number(sigma)
                                           : fmt::format("λ{}", named.size() + 1)] = one;
            }
            item.value()[key] = std::move(named);
        }
    }
}

/// A measure that runs have in common: under which name each recorded it (empty: not at all).
struct Overlaid {
    std::string kind;
    std::vector<std::string> names;

    std::string name() const {
        return *std::find_if(names.begin(), names.end(), [](const auto& one) { return !one.empty(); });
    }
    std::size_t runs() const {
        return names.size() - static_cast<std::size_t>(std::count(names.begin(), names.end(), ""));
    }
};

/// Measures of one kind belong together that have one name, and the rest in their order.
std::vector<Overlaid> overlaid_kinds(const std::vector<RunRecord>& runs) {
    std::vector<Overlaid> found;
    for (std::size_t i = 0; i < runs.size(); ++i) {
        auto left = recorded_measures(runs[i]);
        for (const bool by_name : {true, false}) {
            std::erase_if(left, [&](const auto& measure) {
                const auto fits = [&](const Overlaid& one) {
                    const auto& names = one.names;
                    return one.kind == measure.second && names[i].empty() &&
                           (!by_name || std::find(names.begin(), names.end(), measure.first) != names.end());
                };
                const auto place = std::find_if(found.begin(), found.end(), fits);
                if (place == found.end()) return false;
                place->names[i] = measure.first;
                return true;
            });
        }
        for (const auto& [name, kind] : left) {
            found.push_back({kind, std::vector<std::string>(runs.size())});
            found.back().names[i] = name;
        }
    }
    return found;
}

/// The numbers of a measure that curves show, and how many runs have each.
struct OverlaidNumbers {
    std::vector<std::pair<Keys, std::size_t>> found;
    bool has_others = false;  ///< numbers that no curve shows
};

OverlaidNumbers overlaid_numbers(const std::vector<RunRecord>& runs, const Overlaid& measure) {
    OverlaidNumbers numbers;
    auto& found = numbers.found;
    for (std::size_t i = 0; i < runs.size(); ++i) {
        if (measure.names[i].empty()) continue;
        for (Keys keys : numbers_of(runs[i], measure.names[i])) {
            keys.erase(keys.begin());
            if (!is_drawn_number(keys)) {
                numbers.has_others = numbers.has_others || !keys.empty();
                continue;
            }
            const auto place =
                std::find_if(found.begin(), found.end(), [&](const auto& one) { return one.first == keys; });
            if (place == found.end()) {
                found.emplace_back(std::move(keys), 1);
            } else {
                ++place->second;
            }
        }
    }
    return numbers;
}

/// Of too many, all that there is of some layers (or whatever the keys differ in most): of the first, the last and others
/// evenly between.
std::vector<Keys> thinned(std::vector<Keys> all) {
    if (all.size() <= most_of_a_measure) return all;
    std::vector<Keys> at_depth;
    for (const Keys& keys : all) {
        at_depth.resize(std::max(at_depth.size(), keys.size()));
        for (std::size_t d = 0; d < keys.size(); ++d) {
            if (std::find(at_depth[d].begin(), at_depth[d].end(), keys[d]) == at_depth[d].end())
                at_depth[d].push_back(keys[d]);
        }
    }
    const auto most = std::max_element(at_depth.begin(), at_depth.end(),
                                       [](const Keys& a, const Keys& b) { return a.size() < b.size(); });
    const auto depth = static_cast<std::size_t>(most - at_depth.begin());
    const std::size_t layers = most->size(), of_each = std::max<std::size_t>(1, all.size() / layers);
    const std::size_t count = std::min(layers, std::max<std::size_t>(2, most_of_a_measure / of_each));
    std::set<std::string> kept;
    for (std::size_t k = 0; k < count; ++k) kept.insert((*most)[k * (layers - 1) / (count - 1)]);
    std::erase_if(all, [&](const Keys& keys) { return keys.size() > depth && kept.count(keys[depth]) == 0; });
    if (all.size() > 2 * most_of_a_measure) all.resize(2 * most_of_a_measure);
    return all;
}

Figure titled(const Overlaid& measure, const Keys& keys) {
    Figure figure{.name = stem(measure.kind + "-" + core::join(keys, "-")),
                  .title = words(measure.kind) + ": " + words(core::join(keys, ", ")),
                  .x = {.label = "round"},
                  .y = {.label = words(keys.back())}};
    const std::string path = core::join(keys, "/");
    for (const Title& known : known_titles) {
        if (known.kind != measure.kind || known.keys != path) continue;
        figure.name = known.name;
        figure.title = known.title;
    }
    if (const std::string name = measure.name(); name != measure.kind) {
        figure.name = stem(figure.name + "-" + name);
        figure.title += " (" + words(name) + ")";
    }
    return figure;
}

Figure overlaid_number(const std::vector<RunRecord>& runs, const std::vector<std::string>& names,
                       const Overlaid& measure, const Keys& keys) {
    Figure figure = titled(measure, keys);
    double scale = 1;
    const std::string path_of_keys = "/" + core::join(keys, "/");
    const auto unit = std::find_if(units.begin(), units.end(), [&](const Unit& one) {
        return one.kind == measure.kind && path_of_keys.ends_with(one.keys);
    });
    if (unit != units.end()) {
        figure.y.label = unit->label;
        scale = unit->scale;
    }
    for (std::size_t i = 0; i < runs.size(); ++i) {
        if (measure.names[i].empty()) continue;
        Keys path{measure.names[i]};
        path.insert(path.end(), keys.begin(), keys.end());
        add_series(figure, over_measured(runs[i], names[i], [&](const Json& measures) {
                       return number_or_gap_at(measures, path, scale);
                   }));
    }
    return figure;
}

std::string counted(std::size_t count, const std::string& what) {
    return std::to_string(count) + " " + what + (count == 1 ? "" : "s");
}

}  // namespace

Section overlaid_measures(std::vector<RunRecord> runs, const std::vector<std::string>& names) {
    Section section{.title = "What was measured"};
    for (RunRecord& run : runs) name_places(run);
    std::vector<std::string> left_out;
    bool others_left_out = false;
    for (const Overlaid& measure : overlaid_kinds(runs)) {
        const std::string name = words(measure.name());
        if (measure.runs() < 2) {
            const auto i = static_cast<std::size_t>(
                std::find(measure.names.begin(), measure.names.end(), measure.name()) -
                measure.names.begin());
            left_out.push_back(name + ", which " + names[i] + " alone measured");
            continue;
        }
        std::vector<Keys> shared;
        std::size_t alone = 0;
        OverlaidNumbers numbers = overlaid_numbers(runs, measure);
        others_left_out = others_left_out || numbers.has_others;
        for (auto& [keys, count] : numbers.found) {
            if (count > 1) {
                shared.push_back(std::move(keys));
            } else {
                ++alone;
            }
        }
        const std::size_t all = shared.size();
        if (alone > 0)
            left_out.push_back(counted(alone, "number") + " of " + name + " that one run alone has");
        if (all == 0) {
            if (alone == 0) left_out.push_back(name + ", which is no number of a round");
            continue;
        }
        shared = thinned(std::move(shared));
        if (shared.size() < all)
            left_out.push_back(std::to_string(all - shared.size()) + " of the " + counted(all, "number") +
                               " of " + name);
        for (const Keys& keys : shared) add_figure(section, overlaid_number(runs, names, measure, keys));
    }
    if (others_left_out) left_out.push_back("numbers that are settings, counts or standard errors");
    if (!left_out.empty())
        section.paragraphs.push_back(
            "Left out here, in analysis.jsonl of each run: " + core::join(left_out, "; ") + ".");
    return section;
}

}  // namespace thalweg::report
