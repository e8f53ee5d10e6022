#pragma once

#include <filesystem>
#include <vector>

#include "thalweg/report/figure.hpp"

namespace thalweg::report {

/// What is to be shown of the run whose config.yaml, manifest.json, rounds.jsonl, analysis.jsonl and partition.json `folder`
/// holds (all but the first may be missing: a run may have just begun). It may be running: nothing is locked or changed.
/// RunError names the file that is damaged.
Document run_document(const std::filesystem::path& folder);

/// What is to be shown of a folder that the program wrote: the run in it, or its result.json where no round of a run is
/// recorded. UsageError for a folder that is not there or holds neither; RunError names the file that is damaged.
Document document_of(const std::filesystem::path& folder);

/// Several runs side by side: overlaid curves, a table of results, the differences in configuration. UsageError for fewer
/// than two folders, or one that is no run's; RunError as above.
Document side_by_side(const std::vector<std::filesystem::path>& folders);

}  // namespace thalweg::report
