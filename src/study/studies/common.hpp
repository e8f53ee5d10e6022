#pragma once

#include <string>
#include <vector>

#include "thalweg/record/record.hpp"
#include "thalweg/study/statistics.hpp"
#include "thalweg/study/study.hpp"

// What several drivers need: words for numbers, and numbers from results.
namespace thalweg::study {

/// A number of a job's result; NaN where it is null (it was not finite).
double number_in(const Json& result, const std::string& key);
std::vector<double> numbers_in(const std::vector<Json>& results, const std::string& key);

/// `0.42 [0.31, 0.52]`; the interval is left out where it is not known.
std::string estimate_text(const Estimate& estimate, int digits = 2);
/// `p = 0.003`, `p < 0.001`.
std::string p_text(double p);
/// Whether the nets are fully connected: sources make other statements on those than on convolutional ones.
bool is_mlp(const Laboratory& laboratory);
/// For labels of files: `0.05` → `0-05`; what is no letter or digit becomes `-`.
std::string label_of(const core::Value& value);
std::string fixed(double value, int digits);

/// The change `key=value` of an experiment, standing where `value` does; see changed().
core::Value assignment(const std::string& key, const core::Value& value);

}  // namespace thalweg::study
