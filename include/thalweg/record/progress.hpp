#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace thalweg::record {

/// Progress on stderr. On a terminal one line that is rewritten at most ten times a second (bar, what, ETA); elsewhere
/// plain lines, at most one every five seconds and one at `finish`. Silent when `enabled` is false (other ranks).
/// Safe to update from several threads. The time left is extrapolated from what was done since the first update, so
/// a resumed run does not count the rounds it did not compute.
class Progress {
  public:
    Progress(bool enabled, std::int64_t total, std::string unit);
    /// Wipes the bar of a progress that was not finished (an error is about to be printed).
    ~Progress();
    Progress(const Progress&) = delete;
    Progress& operator=(const Progress&) = delete;
    /// `done` may have a fraction (2.4 of 10 rounds); `what` is shown as it is (`clients 40%`), empty: nothing.
    void update(double done, const std::string& what);
    /// Prints a whole line above the bar.
    void line(const std::string& text);
    /// All is done: leaves a last line with the time taken (`round 10/10 · 3 min 20 s`). Later calls do nothing.
    void finish();
    /// Wipes the bar and says nothing: the work was broken off. Later calls do nothing.
    void stop();

    struct State;

  private:
    std::unique_ptr<State> state_;
};

/// `round 3/10 · clients 40% · 1 min 2 s left`; without the last part when `seconds_left` is negative (not known yet).
std::string progress_text(double done, std::int64_t total, const std::string& unit, const std::string& what,
                          double seconds_left);

/// `text` behind a bar, cut to `width` code points; a narrow terminal goes without the bar.
std::string progress_bar(const std::string& text, double fraction, std::size_t width);

}  // namespace thalweg::record
