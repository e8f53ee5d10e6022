#pragma once

#include <filesystem>
#include <functional>
#include <vector>

#include "thalweg/record/run_folder.hpp"

namespace thalweg::record {

/// The objects of a file with one JSON object a line; none when there is no such file. A torn last line (a run was killed
/// while writing it, or is writing it now) is left out; any other line that is no JSON object is a RunError that names file
/// and line.
std::vector<Json> read_json_lines(const std::filesystem::path& path);
/// The same one by one, for a record that is larger than what is wanted of it.
void for_each_json_line(const std::filesystem::path& path, const std::function<void(Json)>& take);

}  // namespace thalweg::record
