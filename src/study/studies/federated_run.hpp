#pragma once

#include <string>
#include <vector>

#include "thalweg/study/workbench.hpp"

namespace thalweg::study {

/// A whole federation as one job of a study: on this rank alone, recorded in DIR/runs/`label`, from its start (what an
/// interrupted job left there is removed). Gives a line a round, of rounds.jsonl with the measures of analysis.jsonl;
/// none where the clients' training diverged. `laboratory`: whose data it takes. Not collective.
std::vector<Json> run_federation(const federation::Experiment& experiment, const Laboratory& laboratory,
                                 const std::string& label, Workbench& bench);

/// UsageError where a federation could not begin: what its sections say fits neither the data nor the model. Found before the
/// first of a study's federations, not between them. Not collective.
void require_runnable(const federation::Experiment& experiment, const Laboratory& laboratory,
                      Workbench& bench);

/// `server.fusion=[…]` of a pipeline in the short form, `merge_many+mean+repair`. UsageError.
std::string fusion_assignment(const std::string& pipeline);

/// A number inside a line, by its keys from outside in; NaN where there is none.
double number_at(const Json& line, const std::vector<std::string>& keys);
/// The mean of the numbers in a list, or of an object's values, likewise.
double mean_at(const Json& line, const std::vector<std::string>& keys);

}  // namespace thalweg::study
