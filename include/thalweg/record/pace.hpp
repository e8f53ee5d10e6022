#pragma once

#include <algorithm>
#include <optional>

#include "thalweg/record/stopwatch.hpp"

namespace thalweg::record {

/// How long the rest will take, from what was done since the first `update`: a resumed run does not count the rounds it did
/// not compute.
class Pace {
  public:
    void update(double done) {
        done_ = done;
        if (!first_) {
            first_ = done;
            clock_.restart();
            excluded_ = 0;
        }
    }
    /// Leaves out seconds in which nothing was done on purpose (a pause).
    void exclude(double seconds) { excluded_ += seconds; }
    /// Negative: not known yet.
    double seconds_left(double total) const {
        const double gained = done_ - first_.value_or(done_), spent = clock_.seconds() - excluded_;
        if (gained <= 0 || spent < 0.5) return -1;
        return std::max(0.0, (total - done_) * spent / gained);
    }

  private:
    Stopwatch clock_;
    std::optional<double> first_;
    double done_ = 0, excluded_ = 0;
};

}  // namespace thalweg::record
