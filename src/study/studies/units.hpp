#pragma once

#include <vector>

#include "thalweg/study/statistics.hpp"
#include "thalweg/study/study.hpp"

// Effects of units (models, pairs), as drivers judge them by a test.
namespace thalweg::study {

/// One number of every row; a row is a unit.
std::vector<double> column(const std::vector<std::vector<double>>& rows, std::size_t index);
/// Settled when p < 0.01: a positive value is yes.
Finding::Seen seen_by(double p, double value);
/// For a finding's `numbers`: the estimate with its p.
Json json_of(const Estimate& estimate, double p);

}  // namespace thalweg::study
