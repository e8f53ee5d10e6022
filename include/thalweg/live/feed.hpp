#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "thalweg/record/run_folder.hpp"

namespace thalweg::live {

using record::Json;

/// What the page knows of a run. The trainer writes, the server's thread reads. A text that was published never changes,
/// so that a reader shares it, and the lock is held for swapping pointers only. There are no queues: a reader has a cursor
/// into the rounds and takes the newest state when it is ready for it; who is slow misses states in between, and costs
/// nothing.
class Feed {
  public:
    using Text = std::shared_ptr<const std::string>;

    /// Rounds are kept up to so many bytes of JSON in all; older ones are dropped.
    explicit Feed(std::size_t history_bytes = std::size_t{16} << 20);

    /// Writers. `run`: what stays the same (name, configuration, …). `progress`: where it is. `control`: what was asked.
    void describe(const Json& run);
    void progress(const Json& progress);
    void control(const Json& control);
    /// A round is done: `round`, a line of rounds.jsonl or its summary. Rounds come in increasing order.
    void add_round(const Json& round);
    /// The rounds are void (the run starts over, or goes on from an earlier round): readers start over as well.
    void reset();

    /// Where a reader is. The default: it has seen nothing.
    struct Cursor {
        std::uint64_t epoch = 0;
        std::uint64_t next = 0;  ///< sequence number of the next round
        std::uint64_t state = 0;
    };
    struct News {
        bool reset = false;                                  ///< forget all rounds first
        std::vector<std::pair<std::uint64_t, Text>> rounds;  ///< with sequence numbers
        bool more = false;                                   ///< rounds beyond the limit
        std::string
            state;  ///< JSON; empty: as it was. `described` counts descriptions: after a new one, ask state()
    };
    /// What is new since `cursor`, which is moved on; rounds up to `bytes` of JSON (at least one).
    News news(Cursor& cursor, std::size_t bytes) const;
    /// The cursor of a reader whose last round had the id `epoch-sequence`; one that has seen nothing for any other text.
    static Cursor after(const std::string& last_event_id);

    /// `{"run": …, "progress": …, "control": …, "latest": …, "recorded": …}`
    std::string state() const;
    /// `{"rounds": […], "more": …}`: those from round `from` on, up to `bytes` of JSON.
    std::string rounds(std::int64_t from, std::size_t bytes) const;
    /// Bytes of JSON held for rounds.
    std::size_t history_bytes() const;

  private:
    struct Round {
        std::int64_t number;
        Text text;
    };
    void set(Text& place, const Json& json);

    const std::size_t limit_;
    mutable std::mutex mutex_;
    Text run_, progress_, control_;
    std::deque<Round> rounds_;
    std::uint64_t epoch_;
    std::uint64_t first_ = 0;  ///< sequence number of rounds_.front()
    std::uint64_t version_ = 1, described_ = 0;
    std::size_t bytes_ = 0;
};

/// The part of a rounds.jsonl line that the page shows: no more than 200 client ids, no per-client table.
Json round_summary(const Json& line);

}  // namespace thalweg::live
