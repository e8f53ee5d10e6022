#pragma once

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

/// Settled when the 95% interval lies on one side of `threshold`: above it is yes.
Finding::Seen seen_above(const Estimate& estimate, double threshold = 0);
/// Below it is yes.
Finding::Seen seen_below(const Estimate& estimate, double threshold = 0);

/// For a finding's `numbers`.
Json json_of(const Estimate& estimate);
/// A point of a line with its band.
void add_point(report::Series& series, double x, const Estimate& estimate);

}  // namespace thalweg::study
