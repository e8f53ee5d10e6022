#pragma once

#include <string>
#include <utility>
#include <vector>

#include "run_record.hpp"

// How a measure of a run becomes figures: one function a kind of measure, and what they share.
namespace thalweg::report {

using Path = std::vector<std::string>;

/// A measure as it is drawn.
struct Measure {
    std::string name, kind;
    std::string settings{};  ///< its options, as captions say them

    Path at(const char* key, const char* inner = nullptr) const;
    /// With the options in the caption; what is recorded under another name than its kind's says so in the names of files and
    /// in the title.
    Figure named(Figure figure) const;
};

/// The object at `path` of the last round that has one, and that round; null: there is none.
const Json* last_of(const RunRecord& run, const Path& path, double& round);
/// Of the first and the last round that has one, which is enough to see what the rounds did to it.
std::vector<std::pair<double, const Json*>> first_and_last(const RunRecord& run, const Path& path);
/// A list's numbers times `scale`; NaN for what is none.
std::vector<double> numbers(const Json& list, double scale = 1);
/// Adds `figure` with a line over rounds for each name and path.
void add_lines(Section& section, const RunRecord& run, Figure figure,
               const std::vector<std::pair<std::string, Path>>& lines, double scale);

/// Numbers of layers: under `group` of the measure's record (empty: the record itself) stands layer → number or, with `key`,
/// layer → {key: number}.
struct LayerSeries {
    std::string name, group, key;
};
/// Adds `figure` with points over the layers, of the last round.
void add_layers(Section& section, const RunRecord& run, const Measure& measure, Figure figure,
                const std::vector<LayerSeries>& groups, double scale);

void draw_barrier(Section& section, const RunRecord& run, const Measure& measure);
void draw_layer_barriers(Section& section, const RunRecord& run, const Measure& measure);
void draw_signs(Section& section, const RunRecord& run, const Measure& measure);
void draw_valley(Section& section, const RunRecord& run, const Measure& measure);
void draw_surface(Section& section, const RunRecord& run, const Measure& measure);
void draw_flatness(Section& section, const RunRecord& run, const Measure& measure);
void draw_hessian(Section& section, const RunRecord& run, const Measure& measure);
void draw_variance_ratio(Section& section, const RunRecord& run, const Measure& measure);
void draw_cka(Section& section, const RunRecord& run, const Measure& measure);
void draw_support(Section& section, const RunRecord& run, const Measure& measure);
/// Every number of a measure that has no drawing of its own.
void draw_everything(Section& section, const RunRecord& run, const Measure& measure);

}  // namespace thalweg::report
