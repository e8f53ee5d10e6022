#include "run_record.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "thalweg/core/error.hpp"
#include "thalweg/core/files.hpp"
#include "thalweg/record/json_lines.hpp"
#include "thalweg/record/run_folder.hpp"
#include "thalweg/record/table.hpp"

namespace thalweg::report {

namespace fs = std::filesystem;

namespace {

/// An object; an empty one when there is no such file.
Json object_in(const fs::path& path) {
    std::error_code error;
    if (!fs::exists(path, error)) return Json::object();
    Json json = Json::parse(core::read_file(path), nullptr, false);
    if (!json.is_object())
        throw core::RunError(
            path.string() +
            ": this is not the JSON object that the run wrote there; restore it, or remove it to "
            "have a report without it");
    return json;
}

/// Measures stand in analysis.jsonl, and in rounds.jsonl beside the round's own fields.
bool is_measure(const std::string& key) {
    const auto& others = record::round_fields();
    return std::find(others.begin(), others.end(), key) == others.end();
}

/// Recorded name and kind of what `analysis.measures` names.
std::vector<std::pair<std::string, std::string>> measures_in(const core::Value& config) {
    std::vector<std::pair<std::string, std::string>> found;
    const core::Value* at = &config;
    for (const char* key : {"analysis", "measures"}) {
        at = at->is_map() ? at->find(key) : nullptr;
        if (at == nullptr) return found;
    }
    if (!at->is_list()) return found;
    const auto text = [](const core::Value& measure, const char* key) {
        const core::Value* value = measure.is_map() ? measure.find(key) : nullptr;
        return value != nullptr && value->is_scalar() ? value->as_text() : std::string();
    };
    for (const auto& measure : at->items()) {
        const std::string kind = measure.is_scalar() ? measure.as_text() : text(measure, "kind");
        const std::string name = text(measure, "as");
        found.emplace_back(name.empty() ? kind : name, kind);
    }
    return found;
}

void take_measures(Json& line, Json& measures) {
    for (const auto& [key, value] : line.items()) {
        if (is_measure(key)) measures[key] = std::move(value);
    }
}

/// What there is of every client, shown of the last round alone: all of it would fill the memory.
class OfClients {
  public:
    OfClients(std::string measure, std::string key) : measure_(std::move(measure)), key_(std::move(key)) {}
    void take(double round, Json& measures) {
        const auto measure = measures.find(measure_);
        if (measure == measures.end() || !measure->is_object()) return;
        const auto found = measure->find(key_);
        if (found == measure->end()) return;
        if (!found->empty() && !(round < round_)) {
            round_ = round;
            last_ = std::move(*found);
        }
        measure->erase(key_);
    }
    void give_back(std::vector<std::pair<double, Json>>& measured) {
        for (auto& [round, measures] : measured) {
            if (round == round_ && record::json_at(measures, {measure_}).is_object())
                measures[measure_][key_] = std::move(last_);
        }
    }

  private:
    std::string measure_, key_;
    double round_ = std::nan("");
    Json last_{};
};

/// What there is of every pair: none of it but what is drawn, for it would fill the memory as well.
class OfPairs {
  public:
    explicit OfPairs(const RunRecord& run) : run_(run) {
        const core::Value* const analysis = run.config.is_map() ? run.config.find("analysis") : nullptr;
        const core::Value* const pairs =
            analysis != nullptr && analysis->is_map() ? analysis->find("pairs") : nullptr;
        are_chosen_ = pairs != nullptr && !pairs->items().empty();
    }
    /// Of the round `index` of `measured`.
    void thin(std::vector<std::pair<double, Json>>& measured, std::size_t index) {
        for (auto& [name, measure] : measured[index].second.items()) {
            if (!measure.is_object() || !measure.contains(key)) continue;
            const std::string kind = kind_of(run_, name);
            if (kind == "barrier") {
                if (const auto before = last_.find(name); before != last_.end() && before->second != index)
                    thin_barriers(measured[before->second].second[name]);
                last_[name] = index;
            } else if (kind != "sign_consistency" || !are_chosen_) {
                measure.erase(key);
            }
        }
    }

  private:
    static constexpr const char* key = "by_pair";

    /// Of a round that is not the last: chosen pairs are drawn over rounds, the curves between them are not.
    void thin_barriers(Json& measure) const {
        if (!are_chosen_ || !measure[key].is_object()) {
            measure.erase(key);
            return;
        }
        for (auto& [name, pair] : measure[key].items()) {
            for (const char* when : {"before", "after"}) {
                if (record::json_at(pair, {when}).is_object()) pair[when].erase("curve");
            }
        }
    }

    const RunRecord& run_;
    bool are_chosen_ = false;
    std::map<std::string, std::size_t> last_{};  ///< of each barrier measure, the round that has it
};

double round_of(const Json& line, const fs::path& path) {
    const double round = number_at(line, {"round"});
    if (!std::isfinite(round))
        throw core::RunError(path.string() +
                             ": a line has no number `round`, so the record of the run is damaged");
    return round;
}

/// A report is passed on; who may stop a run is not.
void hide_token(RunRecord& run) {
    core::Value* record = run.config.find("record");
    if (record == nullptr || !record->has("token")) return;
    record->set("token", core::Value::scalar("(hidden)", true));
    run.yaml = core::to_yaml(run.config);
}

}  // namespace

bool holds_run(const fs::path& folder) {
    std::error_code error;
    return fs::exists(folder / "config.yaml", error);
}

RunRecord read_run(const fs::path& folder) {
    RunRecord run;
    run.folder = folder;
    run.yaml = core::read_file(folder / "config.yaml");
    run.config = core::parse_yaml(run.yaml, (folder / "config.yaml").string());
    hide_token(run);
    const core::Value* name = run.config.find("name");
    run.name =
        name != nullptr && name->is_scalar() ? name->as_text() : fs::absolute(folder).filename().string();
    run.manifest = object_in(folder / "manifest.json");
    run.partition = object_in(folder / "partition.json");
    run.kinds = measures_in(run.config);
    std::vector<OfClients> of_clients;
    of_clients.emplace_back("ladder", "clients");
    of_clients.emplace_back("sign_consistency", "by_client");
    for (const auto& [name, kind] : run.kinds) {
        if (name == kind) continue;
        if (kind == "ladder") of_clients.emplace_back(name, "clients");
        if (kind == "sign_consistency") of_clients.emplace_back(name, "by_client");
    }
    record::for_each_json_line(folder / "rounds.jsonl", [&](Json line) {
        Json measures = Json::object();
        take_measures(line, measures);
        const double round = round_of(line, folder / "rounds.jsonl");
        for (auto& one : of_clients) one.take(round, measures);
        Json kept = Json::object();
        for (auto& [key, value] : line.items()) {
            if (!is_measure(key)) kept[key] = std::move(value);
        }
        if (!run.rounds.empty()) {
            run.rounds.back().erase("clients");
            run.rounds.back().erase("cohort");
        }
        run.rounds.push_back(std::move(kept));
        if (!measures.empty()) run.measured.emplace_back(round, std::move(measures));
    });
    OfPairs of_pairs(run);
    record::for_each_json_line(folder / "analysis.jsonl", [&](Json line) {
        const double round = round_of(line, folder / "analysis.jsonl");
        const auto same = [&](const auto& entry) { return entry.first == round; };
        auto found = std::find_if(run.measured.begin(), run.measured.end(), same);
        if (found == run.measured.end()) found = run.measured.insert(found, {round, Json::object()});
        take_measures(line, found->second);
        for (auto& one : of_clients) one.take(round, found->second);
        of_pairs.thin(run.measured, static_cast<std::size_t>(found - run.measured.begin()));
    });
    for (auto& one : of_clients) one.give_back(run.measured);
    std::stable_sort(run.measured.begin(), run.measured.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    return run;
}

std::vector<std::pair<std::string, std::string>> recorded_measures(const RunRecord& run) {
    std::vector<std::pair<std::string, std::string>> found;
    for (const auto& entry : run.measured) {
        for (const auto& item : entry.second.items()) {
            const std::string& name = item.key();
            const bool known =
                std::any_of(found.begin(), found.end(), [&](const auto& one) { return one.first == name; });
            if (!known) found.emplace_back(name, kind_of(run, name));
        }
    }
    return found;
}

namespace {

/// Numbers below `json`, each with the keys that lead to it.
void add_numbers(const Json& json, std::vector<std::string>& path,
                 std::vector<std::vector<std::string>>& found) {
    if (json.is_number()) {
        if (std::find(found.begin(), found.end(), path) == found.end()) found.push_back(path);
        return;
    }
    if (!json.is_object() || path.size() > 6) return;
    for (const auto& [key, value] : json.items()) {
        if (key == "by_client" || key == "by_pair") continue;  // have figures of their own, and are many
        path.push_back(key);
        add_numbers(value, path, found);
        path.pop_back();
    }
}

}  // namespace

std::vector<std::vector<std::string>> numbers_of(const RunRecord& run, const std::string& measure) {
    std::vector<std::vector<std::string>> found;
    std::vector<std::string> path{measure};
    for (const auto& entry : run.measured) {
        add_numbers(record::json_at(entry.second, path), path, found);
        if (found.size() > 500) break;
    }
    return found;
}

std::string words(std::string text) {
    std::replace(text.begin(), text.end(), '_', ' ');
    return text;
}

std::string kind_of(const RunRecord& run, const std::string& name) {
    for (const auto& [recorded, kind] : run.kinds) {
        if (recorded == name) return kind;
    }
    return name;
}

std::string name_of(const RunRecord& run, const std::string& kind) {
    for (const auto& [recorded, of] : run.kinds) {
        if (of == kind) return recorded;
    }
    return kind;
}

double number_at(const Json& json, const std::vector<std::string>& path, double scale) {
    const Json& value = record::json_at(json, path);
    return value.is_number() ? value.get<double>() * scale : std::numeric_limits<double>::quiet_NaN();
}

double number_or_gap_at(const Json& json, const std::vector<std::string>& path, double scale) {
    const Json* parent = &json;
    if (path.size() > 1)
        parent = &record::json_at(json, std::vector<std::string>(path.begin(), path.end() - 1));
    const bool lost =
        parent->is_object() && parent->contains(path.back()) && (*parent)[path.back()].is_null();
    return lost ? std::numeric_limits<double>::infinity() : number_at(json, path, scale);
}

namespace {

/// A page of a million rounds would open on no telephone: every n-th, and the last.
constexpr std::size_t most_points = 2000;

bool is_drawn(std::size_t i, std::size_t count) {
    const std::size_t step = (count + most_points - 1) / most_points;
    return step <= 1 || i % step == 0 || i + 1 == count;
}

/// Rounds without a value (NaN: not evaluated) are no points and no gaps, so they go before points are chosen: every
/// tenth round of those that were evaluated would else meet none of them.
Series drawn(Series all) {
    Series kept{.name = std::move(all.name)};
    std::vector<std::size_t> valued;
    for (std::size_t i = 0; i < all.y.size(); ++i) {
        if (!std::isnan(all.y[i])) valued.push_back(i);
    }
    for (std::size_t k = 0; k < valued.size(); ++k) {
        if (!is_drawn(k, valued.size())) continue;
        kept.x.push_back(all.x[valued[k]]);
        kept.y.push_back(all.y[valued[k]]);
    }
    return kept;
}

}  // namespace

Series over_rounds(const RunRecord& run, const std::string& name,
                   const std::function<double(const Json&)>& value) {
    Series series{.name = name};
    for (const Json& line : run.rounds) {
        series.x.push_back(number_at(line, {"round"}));
        series.y.push_back(value(line));
    }
    return drawn(std::move(series));
}

Series over_measured(const RunRecord& run, const std::string& name,
                     const std::function<double(const Json&)>& value) {
    Series series{.name = name};
    for (const auto& [round, measures] : run.measured) {
        series.x.push_back(round);
        series.y.push_back(value(measures));
    }
    return drawn(std::move(series));
}

bool has_values(const Series& series) {
    return std::any_of(series.y.begin(), series.y.end(), [](double value) { return std::isfinite(value); });
}

void add_series(Figure& figure, Series series) {
    if (has_values(series)) figure.series.push_back(std::move(series));
}

void add_figure(Section& section, Figure figure) {
    if (!figure.series.empty() || figure.grid) section.figures.push_back(std::move(figure));
}

std::string percent_or_dash(double fraction) {
    return std::isfinite(fraction) ? record::percent(fraction) : "–";
}

std::string number_or_dash(double value) {
    return std::isfinite(value) ? record::number(value) : "–";
}

}  // namespace thalweg::report
