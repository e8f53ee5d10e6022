#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace thalweg::record {

using Json = nlohmann::ordered_json;

/// What a line of rounds.jsonl says besides measures, none of which may have such a name.
const std::vector<std::string>& round_fields();

/// Whether a process records into `folder` now; nothing where that cannot be told. Of a process on another machine a
/// shared file system may not say so. Takes the folder's lock for the moment of asking, which a run that begins waits out.
std::optional<bool> is_recorded_into(const std::filesystem::path& folder);

/// A run's folder: config.yaml, manifest.json, rounds.jsonl, analysis.jsonl, checkpoints/, final.pt. Used by rank 0 alone. All writes
/// are whole or not at all; RunError names the path and the reason when a place cannot be written.
class RunFolder {
  public:
    /// Creates (with parents) the folder for a fresh run. UsageError when it already holds a run (a rounds.jsonl, an
    /// analysis.jsonl or a checkpoint): "… already holds a run; --resume goes on with it, or choose another --out". RunError when the
    /// folder cannot be created or written to.
    static RunFolder create(const std::filesystem::path& path);
    /// Opens the folder of an earlier run to go on with. UsageError when there is none (no config.yaml).
    static RunFolder open(const std::filesystem::path& path);

    const std::filesystem::path& path() const { return path_; }
    std::filesystem::path checkpoint_path(std::int64_t round) const;  ///< checkpoints/round-00012.pt
    std::filesystem::path memory_path(
        std::int64_t round) const;  ///< of the server optimizer: round-00012.server.pt
    /// Rounds that have a whole checkpoint, ascending (files with the temporary name do not count).
    std::vector<std::int64_t> checkpoints() const;
    /// Removes all but the newest `keep` checkpoints (0: keeps all).
    void prune_checkpoints(std::int64_t keep) const;

    void write_config(const std::string& yaml) const;
    std::string read_config() const;
    void write_manifest(const Json& manifest) const;
    /// Adds `session`, what a resumed process says of itself, to the manifest's list `resumed`, and leaves the rest as
    /// the first process wrote it. RunError when the manifest is damaged or gone.
    void extend_manifest(const Json& session) const;
    /// Removes what a killed process left half written (names that end in .part), here and among the checkpoints.
    void sweep() const;
    /// Appends a line to rounds.jsonl and flushes it to disk. Values that are not finite become null.
    void append_round(const Json& line) const;
    /// The same for analysis.jsonl, what was measured in a round.
    void append_analysis(const Json& line) const;
    /// Drops the lines of rounds after `round` (a resumed run repeats them) and a torn last line, in rounds.jsonl and
    /// analysis.jsonl. RunError (file and line) when another line is not JSON with an integer `round`.
    void truncate_rounds(std::int64_t round) const;
    /// The recorded rounds; none when there is no rounds.jsonl yet. A torn last line (the run was killed while writing
    /// it, or is writing it now) is left out; any other line that is not JSON is a RunError that names file and line.
    std::vector<Json> read_rounds() const;
    /// The same for analysis.jsonl.
    std::vector<Json> read_analysis() const;

  private:
    explicit RunFolder(std::filesystem::path path) : path_(std::move(path)) {}
    std::filesystem::path rounds_path() const { return path_ / "rounds.jsonl"; }
    std::filesystem::path analysis_path() const { return path_ / "analysis.jsonl"; }
    std::filesystem::path path_;
    std::shared_ptr<void> lock_;  ///< one process at a time records into a folder
};

}  // namespace thalweg::record
