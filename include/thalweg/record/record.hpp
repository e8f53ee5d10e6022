#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace thalweg::record {

using Json = nlohmann::ordered_json;

/// A run's folder: config.yaml, manifest.json, rounds.jsonl, checkpoints/, final.pt. Used by rank 0 alone. All writes
/// are whole or not at all; RunError names the path and the reason when a place cannot be written.
class RunFolder {
  public:
    /// Creates (with parents) the folder for a fresh run. UsageError when it already holds a run (a rounds.jsonl):
    /// "… already holds a run; --resume goes on with it, or choose another --out".
    static RunFolder create(const std::filesystem::path& path);
    /// Opens the folder of an earlier run to go on with. UsageError when there is none.
    static RunFolder open(const std::filesystem::path& path);

    const std::filesystem::path& path() const { return path_; }
    std::filesystem::path checkpoint_path(std::int64_t round) const;  ///< checkpoints/round-00012.pt
    /// Rounds that have a whole checkpoint, ascending (files with the temporary name do not count).
    std::vector<std::int64_t> checkpoints() const;
    /// Removes all but the newest `keep` checkpoints (0: keeps all).
    void prune_checkpoints(std::int64_t keep) const;

    void write_config(const std::string& yaml) const;
    std::string read_config() const;
    void write_manifest(const Json& manifest) const;
    /// Appends a line to rounds.jsonl and flushes it to disk.
    void append_round(const Json& line) const;
    /// Drops the lines of rounds after `round` (a resumed run repeats them) and a torn last line.
    void truncate_rounds(std::int64_t round) const;
    std::vector<Json> read_rounds() const;

  private:
    explicit RunFolder(std::filesystem::path path) : path_(std::move(path)) {}
    std::filesystem::path path_;
};

/// A text table for the terminal: columns padded, numbers right-aligned, UTF-8 widths respected.
class Table {
  public:
    explicit Table(std::vector<std::string> header);
    void row(std::vector<std::string> cells);
    /// A line between what stands before and after.
    void rule();
    std::string text() const;

  private:
    std::vector<std::vector<std::string>> rows_;  ///< an empty row is a rule
};

/// 0.8612 → "86.12%"
std::string percent(double fraction, int digits = 2);
/// Four significant digits.
std::string number(double value);

/// Progress on stderr. On a terminal one line that is rewritten at most ten times a second (bar, what, ETA); elsewhere
/// plain lines, at most one every five seconds and one at each `finish`. Silent when `enabled` is false (other ranks).
class Progress {
  public:
    Progress(bool enabled, std::int64_t total, std::string unit);
    ~Progress();
    /// `done` may have a fraction (2.4 of 10 rounds).
    void update(double done, const std::string& what);
    /// Prints a whole line above the bar.
    void line(const std::string& text);
    void finish();

  private:
    struct State;
    std::unique_ptr<State> state_;
};

/// A warning or a note on stderr: `thalweg: warning: …`. Through spdlog, so that the level can be set.
void warn(const std::string& text);
void note(const std::string& text);

/// Seconds since construction.
class Stopwatch {
  public:
    double seconds() const;
    void restart();

  private:
    std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace thalweg::record
