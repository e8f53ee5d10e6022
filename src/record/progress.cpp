#include "thalweg/record/progress.hpp"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <utility>

#include "console.hpp"
#include "thalweg/core/text.hpp"
#include "thalweg/record/stopwatch.hpp"
#include "thalweg/record/table.hpp"

namespace thalweg::record {

namespace {

constexpr double seconds_between_draws = 0.1;
constexpr double seconds_between_lines = 5.0;

bool stderr_is_terminal() {
    const char* kind = std::getenv("TERM");
    return ::isatty(STDERR_FILENO) == 1 && kind != nullptr && std::string(kind) != "dumb";
}

/// Asked anew at each drawing, because windows are resized. One column less than there are: some terminals wrap when
/// the last one is filled.
std::size_t terminal_width() {
    winsize size{};
    if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1)
        return size.ws_col - std::size_t{1};
    return 79;
}

std::string cut(const std::string& text, std::size_t width) {
    std::size_t bytes = 0, points = 0;
    for (; bytes < text.size(); ++bytes) {
        const bool starts = (static_cast<unsigned char>(text[bytes]) & 0xC0) != 0x80;
        if (starts && ++points > width) break;
    }
    return text.substr(0, bytes);
}

}  // namespace

struct Progress::State final : Bar {
    bool enabled = false;
    bool terminal = false;
    bool finished = false;
    std::int64_t total = 0;
    std::string unit;
    double done = 0;
    std::string what;
    Stopwatch clock;
    std::optional<double> first_done;  ///< where this process began
    double first_at = 0;
    double last_output = -1;  ///< negative: none yet

    double seconds_left() const {
        const double gained = done - first_done.value_or(done), spent = clock.seconds() - first_at;
        if (gained <= 0 || spent < 0.5) return -1;
        return std::max(0.0, (static_cast<double>(total) - done) * spent / gained);
    }
    std::string text() const { return progress_text(done, total, unit, what, seconds_left()); }
    std::string shown() const override {
        return progress_bar(text(), total > 0 ? done / static_cast<double>(total) : 0.0, terminal_width());
    }
};

Progress::Progress(bool enabled, std::int64_t total, std::string unit) : state_(std::make_unique<State>()) {
    state_->enabled = enabled;
    state_->terminal = enabled && stderr_is_terminal();
    state_->total = total;
    state_->unit = std::move(unit);
}

Progress::~Progress() {
    if (!state_->terminal) return;
    auto& console = Console::instance();
    const auto lock = console.lock();
    console.wipe(*state_);
}

void Progress::update(double done, const std::string& what) {
    if (!state_->enabled) return;
    auto& console = Console::instance();
    const auto lock = console.lock();
    if (state_->finished) return;
    const double now = state_->clock.seconds();
    state_->done = std::clamp(done, 0.0, static_cast<double>(state_->total));
    state_->what = what;
    if (!state_->first_done) {
        state_->first_done = state_->done;
        state_->first_at = now;
    }
    if (state_->terminal) {
        if (state_->last_output >= 0 && now - state_->last_output < seconds_between_draws) return;
        console.draw(*state_);
    } else {
        // The first line, too, comes after five seconds: short commands say nothing until they are done.
        if (now - std::max(state_->last_output, 0.0) < seconds_between_lines) return;
        std::fprintf(stderr, "%s\n", state_->text().c_str());
    }
    state_->last_output = now;
}

void Progress::line(const std::string& text) {
    if (!state_->enabled) return;
    auto& console = Console::instance();
    const auto lock = console.lock();
    console.above_bar([&] { std::fprintf(stderr, "%s\n", text.c_str()); });
}

void Progress::stop() {
    if (!state_->enabled) return;
    auto& console = Console::instance();
    const auto lock = console.lock();
    if (state_->finished) return;
    state_->finished = true;
    console.wipe(*state_);
}

void Progress::finish() {
    if (!state_->enabled) return;
    auto& console = Console::instance();
    const auto lock = console.lock();
    if (state_->finished) return;
    state_->finished = true;
    console.wipe(*state_);
    const std::string took = core::seconds_text(state_->clock.seconds());
    std::fprintf(stderr, "%s %lld/%lld · %s\n", state_->unit.c_str(), static_cast<long long>(state_->total),
                 static_cast<long long>(state_->total), took.c_str());
}

std::string progress_text(double done, std::int64_t total, const std::string& unit, const std::string& what,
                          double seconds_left) {
    const auto current = std::clamp(static_cast<std::int64_t>(std::floor(done)) + 1, std::int64_t{0}, total);
    std::string text = fmt::format("{} {}/{}", unit, current, total);
    if (!what.empty()) text += " · " + what;
    if (seconds_left >= 0) text += " · " + core::seconds_text(seconds_left) + " left";
    return text;
}

std::string progress_bar(const std::string& text, double fraction, std::size_t width) {
    constexpr std::size_t cells = 20;
    if (text_width(text) + cells + 3 > width) return cut(text, width);
    const double share = std::isfinite(fraction) ? std::clamp(fraction, 0.0, 1.0) : 0.0;
    const auto filled = static_cast<std::size_t>(share * static_cast<double>(cells));
    std::string bar = "[";
    for (std::size_t i = 0; i < cells; ++i) bar += i < filled ? "█" : "·";
    return bar + "] " + text;
}

}  // namespace thalweg::record
