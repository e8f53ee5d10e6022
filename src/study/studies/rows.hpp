#pragma once

#include <string>
#include <vector>

#include "thalweg/record/record.hpp"

// Lists of numbers from results of jobs, some of which had no model to measure.
namespace thalweg::study {

using record::Json;

/// A list in a job's result; NaN where an entry is null. `count` NaNs where the list itself is null: its model's training
/// diverged.
std::vector<double> row_in(const Json& result, const std::string& key, std::size_t count);
/// The values that are numbers.
std::vector<double> known_of(const std::vector<double>& values);

}  // namespace thalweg::study
