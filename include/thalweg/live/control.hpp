#pragma once

#include <atomic>
#include <mutex>

#include "thalweg/record/run_folder.hpp"

namespace thalweg::live {

using record::Json;

/// What the people at the live page ask of a run. Set by the server's thread, read by the trainer at the beginning of a
/// round; neither waits for the other, but for the moment in which the other tells the readers of a change.
class Control {
  public:
    void pause() { pause_ = true; }
    void resume() { pause_ = false; }
    void checkpoint() { checkpoint_ = true; }
    /// A stopped run is no longer paused: it has an end to go to.
    void stop() {
        stop_ = true;
        pause_ = false;
    }

    bool pause_requested() const { return pause_; }
    bool stop_requested() const { return stop_; }
    bool checkpoint_requested() const { return checkpoint_; }
    /// The checkpoint has been written.
    void checkpoint_done() { checkpoint_ = false; }
    /// The run is over: what was asked for and not done will not be.
    void end() {
        ended_ = true;
        pause_ = checkpoint_ = false;
    }
    bool has_ended() const { return ended_; }

    /// `{"live": true, "pause": …, "checkpoint": …, "stop": …}`: what was asked and is not yet done.
    Json json() const {
        return {{"live", true},
                {"pause", pause_.load()},
                {"checkpoint", checkpoint_.load()},
                {"stop", stop_.load()}};
    }

    /// Calls `publish` with json(). Whoever changed something calls this afterwards; one at a time, so that the last one
    /// published is the newest.
    template <class Publish>
    void tell(const Publish& publish) const {
        const std::scoped_lock lock(telling_);
        publish(json());
    }

  private:
    std::atomic<bool> pause_{false}, checkpoint_{false}, stop_{false}, ended_{false};
    mutable std::mutex telling_;
};

}  // namespace thalweg::live
