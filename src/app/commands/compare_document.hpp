#pragma once

#include "thalweg/federation/compare.hpp"
#include "thalweg/report/figure.hpp"

namespace thalweg::app {

/// A comparison to be looked at: accuracy of every pipeline in the last round with its spread over seeds, its way there, what
/// it costs, and all rows as a table.
report::Document comparison_document(const federation::Comparison& comparison,
                                     const federation::CompareOptions& options,
                                     const federation::Experiment& experiment);

}  // namespace thalweg::app
