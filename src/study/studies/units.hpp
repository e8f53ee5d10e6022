#pragma once

#include <string>
#include <vector>

#include "thalweg/study/statistics.hpp"
#include "thalweg/study/study.hpp"

// Effects of units (models, pairs), as drivers judge them by a test.
namespace thalweg::study {

/// One number of every row; a row is a unit.
std::vector<double> column(const std::vector<std::vector<double>>& rows, std::size_t index);
/// Settled when p < 0.01: a positive value is yes.
Finding::Seen seen_by(double p, double value);
/// The p of signs flipped over `units` units, which says so where so few cannot give less than 0.01 whatever they are.
std::string p_text(double p, std::int64_t units);
/// For a finding's `numbers`: the estimate with its p.
Json json_of(const Estimate& estimate, double p);

}  // namespace thalweg::study
