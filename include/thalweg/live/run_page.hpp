#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "thalweg/live/server.hpp"
#include "thalweg/record/pace.hpp"
#include "thalweg/record/stopwatch.hpp"

namespace thalweg::live {

/// The live page of a run, on rank 0: what the trainer says, and what it is asked. Says on stderr where the page is.
class RunPage {
  public:
    /// `run`: name, rounds, ranks, configuration (YAML) and the like. Throws what Server throws.
    RunPage(const Json& run, std::int64_t rounds, const Address& address, const std::string& token);
    /// The rounds that a resumed run has behind it.
    void begin(const std::vector<Json>& lines);
    /// At most five times a second something is made of it. `done` may have a fraction.
    void progress(double done, const std::string& what);
    /// A line of rounds.jsonl.
    void round(const Json& line);
    /// `running` or `paused`, with what is to be read beside it.
    void phase(const std::string& phase, const std::string& what);
    /// `finished`, `stopped`, `interrupted` or `failed`: from now on nothing can be asked for.
    void end(const std::string& phase, const std::string& what);
    /// The pause that is over does not count as work.
    void waited(double seconds) { pace_.exclude(seconds); }
    void checkpoint_done();
    const Control& control() const { return control_; }

  private:
    void publish();
    void tell();

    const std::int64_t rounds_;
    Feed feed_;
    Control control_;
    record::Pace pace_;
    record::Stopwatch clock_;
    std::string phase_ = "running", what_;
    double done_ = 0, published_ = -1;
    Server server_;
};

}  // namespace thalweg::live
