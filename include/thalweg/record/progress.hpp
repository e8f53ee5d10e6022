#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace thalweg::record {

/// Progress on stderr. On a terminal a line that is rewritten at most ten times a second (bar, what, ETA), and below it,
/// once there are accuracies, a small plot of the last ones. Elsewhere it is quiet: no word in the first minute, then a plain
/// line a minute at most and each time the work took a tenth longer, and if there was one, a last one at `finish`. Where the
/// locale is not UTF-8 it keeps to ASCII; colours only without NO_COLOR. Silent when `enabled` is false (other ranks). Safe to update from several threads. The time left is extrapolated from what was done since the first update, so
/// a resumed run does not count the rounds it did not compute.
class Progress {
  public:
    /// `seconds_between_lines`: elsewhere than on a terminal, before the first and between two of them.
    Progress(bool enabled, std::int64_t total, std::string unit, double seconds_between_lines = 60);
    /// Wipes the bar of a progress that was not finished (an error is about to be printed).
    ~Progress();
    Progress(const Progress&) = delete;
    Progress& operator=(const Progress&) = delete;
    /// `done` may have a fraction (2.4 of 10 rounds); `what` is shown as it is (`clients 40%`), empty: nothing.
    void update(double done, const std::string& what);
    /// Another accuracy (a fraction), for the plot.
    void accuracy(double value);
    /// A pause that is over: those seconds do not count as work.
    void exclude(double seconds);
    /// Prints a whole line above the bar.
    void line(const std::string& text);
    /// All is done: leaves a last line with the time taken (`round 10/10 · 3 min 20 s`), elsewhere than on a terminal only
    /// after other lines. Later calls do nothing.
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
std::string progress_bar(const std::string& text, double fraction, std::size_t width, bool utf8 = true);

/// `accuracy ▁▃▅▇█ 86.12% · best 86.40%`, no wider than `width`: the newest values, as many as there is room for (40 at
/// most), lowest to highest; what does not fit is left out, plot before numbers. Empty without values.
std::string progress_plot(const std::vector<double>& accuracies, double best, std::size_t width,
                          bool utf8 = true);

/// UTF-8 text in ASCII: `·` as `-`, `…` as `...`, `×` as `x`, any other character as `?`.
std::string ascii_text(const std::string& text);

}  // namespace thalweg::record
