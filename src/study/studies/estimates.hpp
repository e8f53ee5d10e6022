#pragma once

#include <string>
#include <vector>

#include "thalweg/report/figure.hpp"
#include "thalweg/study/statistics.hpp"
#include "thalweg/study/study.hpp"

// Estimates as drivers show and judge them.
namespace thalweg::study {

/// Over the values that are numbers (trainings that failed are NaN), times `scale`.
Estimate known_mean(const std::vector<double>& values, double scale = 1);
/// sign_flip_p of those that are numbers.
double known_p(const std::vector<double>& values);
/// a − b by index; NaN where one is.
std::vector<double> differences_of(const std::vector<double>& a, const std::vector<double>& b);

/// estimate_text, with ` (6 of 8)` behind it where fewer than all `units` are known.
std::string counted_text(const Estimate& estimate, std::size_t units, int digits = 2);
/// For captions, `8 pairs`; `6 to 8 pairs, for trainings diverged` where the least of the estimates has 6.
std::string counts_text(std::int64_t least, std::size_t units, const std::string& what);

/// Settled when the 95% interval lies on one side of `threshold`: above it is yes.
Finding::Seen seen_above(const Estimate& estimate, double threshold = 0);
/// Below it is yes.
Finding::Seen seen_below(const Estimate& estimate, double threshold = 0);

/// For a finding's `numbers`.
Json json_of(const Estimate& estimate);
/// A point of a line with its band.
void add_point(report::Series& series, double x, const Estimate& estimate);

}  // namespace thalweg::study
