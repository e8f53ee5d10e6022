#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "thalweg/live/feed.hpp"

namespace thalweg::live {

/// Brings a run's folder into a feed as it grows, whoever writes it, and says when nobody does. Reads only.
class Follower {
  public:
    /// UsageError when there is no such folder; one without a run yet is waited for. Nothing is read before look().
    /// A line of more than `most_line_bytes` is no record of a round and is left out with a warning.
    Follower(std::filesystem::path folder, Feed& feed, std::size_t most_line_bytes = std::size_t{256} << 20);
    /// Looks for what is new, until an interrupt is requested. A torn last line is left for the next look; a damaged line is skipped with a warning. A
    /// record that became shorter or another file (the run was resumed) is read anew.
    void look();

  private:
    void describe();
    bool read_lines();
    void add(const std::string& text);
    void warn_of(std::int64_t line, const std::string& why) const;
    void publish(bool is_left);

    std::filesystem::path folder_;
    Feed& feed_;
    const std::size_t most_line_bytes_;
    std::size_t piece_bytes_;  ///< read at one look; more while a line is longer
    bool skipping_ = false;    ///< the line that is being read is too long
    bool described_ = false;
    std::int64_t total_ = 0;
    std::uint64_t inode_ = 0;
    std::uint64_t offset_ = 0;
    std::int64_t line_ = 0;
    std::int64_t last_ = 0;  ///< round
    double seconds_ = 0;     ///< of the last rounds, each: a running mean
    bool grew_ = false;      ///< in this look
    bool was_free_ = false;  ///< nobody held the folder's lock at the last look
    /// When the record last grew although nobody here holds the lock: it is written elsewhere, and for a while still.
    std::optional<std::chrono::steady_clock::time_point> grew_elsewhere_{};
    std::string published_;
};

}  // namespace thalweg::live
