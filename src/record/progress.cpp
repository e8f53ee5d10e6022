#include "thalweg/record/progress.hpp"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>

#include "console.hpp"
#include "thalweg/core/text.hpp"
#include "thalweg/record/pace.hpp"
#include "thalweg/record/table.hpp"

namespace thalweg::record {

namespace {

constexpr double seconds_between_draws = 0.1;
/// Of a log: of long work a line each time it took a tenth longer.
constexpr double share_between_lines = 0.1;
constexpr std::size_t most_accuracies = 40;

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

/// What the terminal is told by the environment, in the order in which locales are looked up.
bool locale_is_utf8() {
    for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
        const char* value = std::getenv(name);
        if (value == nullptr || *value == '\0') continue;
        std::string locale(value);
        std::transform(locale.begin(), locale.end(), locale.begin(),
                       [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c; });
        return locale.find("utf-8") != std::string::npos || locale.find("utf8") != std::string::npos;
    }
    return false;
}

bool wants_colour() {
    const char* refused = std::getenv("NO_COLOR");
    return refused == nullptr || *refused == '\0';
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
    Pace pace;
    bool utf8 = true, colour = false;
    std::vector<double> accuracies;  ///< the last ones
    double best = 0;
    double last_output = -1;  ///< negative: none yet
    double said_done = 0;     ///< in the last plain line
    double seconds_between_lines = 0;
    std::string said_what;

    std::string text() const {
        return progress_text(done, total, unit, what, pace.seconds_left(static_cast<double>(total)));
    }
    std::string shown() const override {
        const std::size_t width = terminal_width();
        const std::string line = utf8 ? text() : ascii_text(text());
        std::string all =
            progress_bar(line, total > 0 ? done / static_cast<double>(total) : 0.0, width, utf8);
        if (const auto plot = progress_plot(accuracies, best, width, utf8); !plot.empty())
            all += "\n" + (colour ? "\x1b[36m" + plot + "\x1b[0m" : plot);
        return all;
    }
};

Progress::Progress(bool enabled, std::int64_t total, std::string unit, double seconds_between_lines)
    : state_(std::make_unique<State>()) {
    state_->seconds_between_lines = seconds_between_lines;
    state_->enabled = enabled;
    state_->terminal = enabled && stderr_is_terminal();
    state_->utf8 = locale_is_utf8();
    state_->colour = wants_colour();
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
    state_->pace.update(state_->done);
    if (state_->terminal) {
        if (state_->last_output >= 0 && now - state_->last_output < seconds_between_draws) return;
        console.draw(*state_);
    } else {
        const double silence = std::max(state_->seconds_between_lines, share_between_lines * now);
        if (now - std::max(state_->last_output, 0.0) < silence) return;
        // A line that says nothing new (a pause) would fill a log for as long as it lasts.
        if (state_->last_output >= 0 && state_->said_done == state_->done && state_->said_what == what)
            return;
        state_->said_done = state_->done;
        state_->said_what = what;
        std::fprintf(stderr, "%s\n", state_->text().c_str());
    }
    state_->last_output = now;
}

void Progress::accuracy(double value) {
    if (!state_->enabled) return;
    const auto lock = Console::instance().lock();
    auto& values = state_->accuracies;
    values.push_back(value);
    state_->best = std::max(state_->best, value);
    if (values.size() > most_accuracies) values.erase(values.begin());
}

void Progress::exclude(double seconds) {
    const auto lock = Console::instance().lock();
    state_->pace.exclude(seconds);
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
    if (!state_->terminal && state_->last_output < 0) return;  // nothing was said that should be ended
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

std::string progress_bar(const std::string& text, double fraction, std::size_t width, bool utf8) {
    constexpr std::size_t cells = 20;
    if (text_width(text) + cells + 3 > width) return cut(text, width);
    const double share = std::isfinite(fraction) ? std::clamp(fraction, 0.0, 1.0) : 0.0;
    const auto filled = static_cast<std::size_t>(share * static_cast<double>(cells));
    std::string bar = "[";
    for (std::size_t i = 0; i < cells; ++i) bar += i < filled ? (utf8 ? "█" : "#") : (utf8 ? "·" : ".");
    return bar + "] " + text;
}

std::string progress_plot(const std::vector<double>& accuracies, double best, std::size_t width, bool utf8) {
    static const std::array<const char*, 8> blocks{"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
    static const std::array<const char*, 8> ascii{"_", ".", "-", "~", "=", "+", "*", "#"};
    if (accuracies.empty()) return "";
    const std::string label = "accuracy ", last = percent(accuracies.back()),
                      record = (utf8 ? " · best " : " - best ") + percent(best);
    if (label.size() + last.size() > width) return cut(last, width);
    const std::size_t room = width - label.size() - last.size();
    const bool with_record = room >= text_width(record);
    const std::size_t free = with_record ? room - text_width(record) : room;
    // One value is no plot; a blank stands between plot and number.
    const std::size_t count = free < 3 ? 0 : std::min({free - 1, most_accuracies, accuracies.size()});
    std::string plot;
    if (count > 1) {
        const auto first = accuracies.end() - static_cast<std::ptrdiff_t>(count);
        const auto [low, high] = std::minmax_element(first, accuracies.end());
        const double range = *high - *low;
        for (auto value = first; value != accuracies.end(); ++value) {
            const double height = range > 0 ? (*value - *low) / range : 0.5;
            plot += (utf8 ? blocks : ascii)[std::min<std::size_t>(7, static_cast<std::size_t>(height * 8))];
        }
        plot += " ";
    }
    return label + plot + last + (with_record ? record : "");
}

std::string ascii_text(const std::string& text) {
    std::string plain;
    for (std::size_t i = 0; i < text.size();) {
        std::size_t bytes = 1;
        while (i + bytes < text.size() && (static_cast<unsigned char>(text[i + bytes]) & 0xC0) == 0x80)
            ++bytes;
        const std::string point = text.substr(i, bytes);
        if (bytes == 1) {
            plain += static_cast<unsigned char>(point[0]) < 0x80 ? point : "?";
        } else {
            plain += point == "·" ? "-" : point == "…" ? "..." : point == "×" ? "x" : "?";
        }
        i += bytes;
    }
    return plain;
}

}  // namespace thalweg::record
