#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "thalweg/core/value.hpp"
#include "thalweg/record/json.hpp"
#include "thalweg/report/figure.hpp"

namespace thalweg::report {

/// What the folder of a run holds, with each round's measures in one place.
struct RunRecord {
    std::filesystem::path folder;
    std::string name;    ///< of the experiment
    std::string yaml;    ///< config.yaml as it is
    core::Value config;  ///< and as it is read
    Json manifest = Json::object();
    Json partition = Json::object();
    std::vector<std::pair<std::string, std::string>> kinds;  ///< of config.yaml's measures, by recorded name
    std::vector<Json> rounds;                                ///< lines of rounds.jsonl
    std::vector<std::pair<double, Json>> measured;           ///< round, and measures by name
};

bool holds_run(const std::filesystem::path& folder);
RunRecord read_run(const std::filesystem::path& folder);

/// The number at a path of keys, times `scale`; NaN when it is not there or no number.
double number_at(const Json& json, const std::vector<std::string>& path, double scale = 1);
/// The same, but infinity, a gap in a curve, for the null that stands for a value that was measured and was not finite.
double number_or_gap_at(const Json& json, const std::vector<std::string>& path, double scale = 1);

/// The kind of the measure that is recorded under `name`: another only where config.yaml renames it (`as`).
std::string kind_of(const RunRecord& run, const std::string& name);
/// Under which name the first measure of `kind` is recorded.
std::string name_of(const RunRecord& run, const std::string& kind);

/// Recorded name and kind of every measure that a round holds, in the order in which they first appear.
std::vector<std::pair<std::string, std::string>> recorded_measures(const RunRecord& run);
/// Where numbers stand in what was recorded under `measure`: the keys that lead to each, the measure's name first, in the
/// order in which they first appear; some 500 at most, and none of those there are of every client and tensor.
std::vector<std::vector<std::string>> numbers_of(const RunRecord& run, const std::string& measure);

/// `text` as a part of a file's stem.
std::string stem(const std::string& text);
/// A name of a file or a key, to be read: `_` as a blank.
std::string words(std::string text);
/// What is recorded under two names can come down to figures of one name, and their files would overwrite each other: the
/// later ones are numbered.
void make_names_differ(std::vector<Section>& sections);

/// Over the rounds of `run`: what `value` says of each line; NaN: no point. At most some thousand points.
Series over_rounds(const RunRecord& run, const std::string& name,
                   const std::function<double(const Json&)>& value);
/// The same over the rounds that were measured.
Series over_measured(const RunRecord& run, const std::string& name,
                     const std::function<double(const Json&)>& value);
bool has_values(const Series& series);
/// Adds what is not empty.
void add_series(Figure& figure, Series series);
void add_figure(Section& section, Figure figure);

/// `86.29%`, `–`.
std::string percent_or_dash(double fraction);
std::string number_or_dash(double value);

/// Sections of what was measured: barriers, signs, variance, valleys and every other number.
std::vector<Section> measure_sections(const RunRecord& run);
/// Every number that two runs or more have of a measure, over the rounds, in a figure each; of a measure with very many,
/// some. Says what is left out. `names`: of the runs.
Section overlaid_measures(std::vector<RunRecord> runs, const std::vector<std::string>& names);

}  // namespace thalweg::report
