#pragma once

#include <mutex>
#include <string>

namespace thalweg::record {

/// Lines at the bottom of the terminal that are rewritten.
class Bar {
  public:
    virtual ~Bar() = default;
    /// The lines as they are to be shown now, separated by newlines; none wider than the terminal.
    virtual std::string shown() const = 0;
};

/// Who may write to stderr. One a process, as stderr is: a warning has to get past the bar that is being drawn. All
/// calls but `instance` and `lock` are made with the lock held.
class Console {
  public:
    static Console& instance();
    std::unique_lock<std::mutex> lock() { return std::unique_lock(mutex_); }

    /// Draws the bar over the one on the screen. The cursor goes back to the beginning of its first line, so that
    /// whatever another program prints, or the shell after a kill, does not begin in the middle of a line, and all
    /// below is erased at the next drawing, however a resized window has broken the lines.
    void draw(const Bar& bar);
    /// Takes the bar off the screen if it is there.
    void wipe(const Bar& bar);
    /// `write` prints whole lines; the bar on the screen, if any, is drawn anew below them.
    template <class Write>
    void above_bar(Write&& write) {
        const Bar* bar = bar_;
        if (bar) wipe(*bar);
        write();
        if (bar) draw(*bar);
    }

  private:
    std::mutex mutex_;
    const Bar* bar_ = nullptr;
    bool has_lines_ = false;  ///< more than one of the bar's is on the screen
};

}  // namespace thalweg::record
