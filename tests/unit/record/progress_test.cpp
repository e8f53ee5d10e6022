#include "thalweg/record/progress.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pty.h>
#include <spdlog/spdlog.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <thread>

#include "thalweg/record/log.hpp"
#include "thalweg/record/pace.hpp"
#include "thalweg/record/stopwatch.hpp"
#include "thalweg/record/table.hpp"

namespace thalweg::record::progress_test {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::StartsWith;

/// What is written to stderr when it is not a terminal.
template <class Act>
std::string plain(Act&& act) {
    ::testing::internal::CaptureStderr();
    act();
    return ::testing::internal::GetCapturedStderr();
}

/// What is written to stderr when it is a terminal of so many columns.
template <class Act>
std::string on_terminal(unsigned short columns, Act&& act, const char* locale = "C.UTF-8",
                        const char* no_color = "1") {
    ::setenv("TERM", "xterm", 1);
    ::setenv("LC_ALL", locale, 1);
    ::setenv("NO_COLOR", no_color, 1);
    winsize size{.ws_row = 24, .ws_col = columns, .ws_xpixel = 0, .ws_ypixel = 0};
    int terminal = -1, screen = -1;
    if (::openpty(&screen, &terminal, nullptr, nullptr, &size) != 0) return "no terminal";
    const int saved = ::dup(STDERR_FILENO);
    ::dup2(terminal, STDERR_FILENO);
    act();
    std::fflush(stderr);
    ::dup2(saved, STDERR_FILENO);
    ::close(saved);
    ::fcntl(screen, F_SETFL, O_NONBLOCK);
    std::string text;
    char buffer[4096];
    for (ssize_t n = ::read(screen, buffer, sizeof buffer); n > 0;
         n = ::read(screen, buffer, sizeof buffer)) {
        text.append(buffer, static_cast<std::size_t>(n));
    }
    ::close(terminal);
    ::close(screen);
    return text;
}

/// The lines that remain on the screen after carriage returns and erasures, as a terminal would show them.
std::string screen_of(const std::string& text) {
    std::string screen, line;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] == '\n') {
            screen += line + "\n";
            line.clear();
        } else if (text.compare(i, 4, "\r\x1b[K") == 0) {
            line.clear();
            i += 3;
        } else if (text[i] != '\r') {
            line += text[i];
        }
    }
    return screen + line;
}

class ProgressOnATerminal : public ::testing::Test {
  protected:
    void SetUp() override {
        int terminal = -1, screen = -1;
        if (::openpty(&screen, &terminal, nullptr, nullptr, nullptr) != 0)
            GTEST_SKIP() << "there are no pseudo-terminals here (is /dev/pts mounted?)";
        ::close(terminal);
        ::close(screen);
    }
};

TEST(Progress, TextNamesTheUnitInWorkAndTheTimeLeft) {
    EXPECT_EQ(progress_text(2.4, 10, "round", "clients 40%", 62),
              "round 3/10 · clients 40% · 1 min 2 s left");
    EXPECT_EQ(progress_text(0, 10, "round", "", -1), "round 1/10");
    EXPECT_EQ(progress_text(10, 10, "round", "", -1), "round 10/10");
    EXPECT_EQ(progress_text(0, 0, "round", "", -1), "round 0/0");
}

TEST(Progress, BarFitsTheWidth) {
    EXPECT_EQ(progress_bar("x", 0.5, 79), "[██████████··········] x");
    EXPECT_EQ(progress_bar("x", 7, 79), "[████████████████████] x");
    EXPECT_EQ(progress_bar("x", -1, 79), "[····················] x");
    EXPECT_EQ(progress_bar("round 3/10 · λ", 0.5, 12),
              "round 3/10 ·");  // too narrow for a bar: cut, not broken
    for (std::size_t width = 1; width < 60; ++width) {
        EXPECT_LE(text_width(progress_bar("round 3/10 · λ = ½ · left", 0.3, width)), width);
    }
}

TEST(Progress, ElsewhereThanOnATerminalShortWorkIsSilent) {
    const std::string text = plain([] {
        Progress progress(true, 10, "round");
        for (int i = 0; i <= 100; ++i) progress.update(i / 10.0, "clients");
        progress.line("a line of its own");
        progress.finish();
        progress.finish();
    });
    EXPECT_EQ(text, "a line of its own\n");
}

TEST(Progress, LongWorkHasALineNowAndThenAndALastOne) {
    constexpr double between = 0.05;
    const std::string text = plain([&] {
        Progress progress(true, 10, "round", between);
        progress.update(1, "too early");
        std::this_thread::sleep_for(std::chrono::duration<double>(2 * between));
        progress.update(2, "clients");
        progress.update(3, "too soon");
        std::this_thread::sleep_for(std::chrono::duration<double>(2 * between));
        progress.update(2, "clients");  // nothing new
        progress.finish();
    });
    EXPECT_THAT(text, MatchesRegex("round 3/10 · clients[^\n]*\nround 10/10 · [^\n]+\n"));
}

TEST(Progress, OtherRanksAreSilent) {
    EXPECT_EQ(plain([] {
                  Progress progress(false, 10, "round");
                  progress.update(3, "clients");
                  progress.line("text");
                  progress.finish();
              }),
              "");
}

TEST_F(ProgressOnATerminal, TerminalLineIsRewrittenAndTheCursorNeverStandsMidLine) {
    const std::string text = on_terminal(60, [] {
        Progress progress(true, 10, "round");
        progress.update(0, "start");
        std::this_thread::sleep_for(std::chrono::milliseconds(150));
        progress.update(5.5, "clients 50%");
        progress.line("something happened");
        progress.finish();
    });
    EXPECT_THAT(text, HasSubstr("] round 1/10 · start\r"));
    EXPECT_THAT(text, HasSubstr("[███████████·········] round 6/10 · clients 50%\r"));
    EXPECT_THAT(screen_of(text), MatchesRegex("something happened\nround 10/10 · [^\n]+\n"));
}

TEST_F(ProgressOnATerminal, TerminalIsDrawnAtMostTenTimesASecond) {
    double seconds = 0;
    const std::string text = on_terminal(60, [&] {
        const Stopwatch watch;
        Progress progress(true, 1000, "step");
        for (int i = 0; i < 1000; ++i) progress.update(i, "");
        seconds = watch.seconds();
    });
    const auto draws = std::count(text.begin(), text.end(), '[') / 2;  // one in the bar, one in the escape
    EXPECT_GE(draws, 1);
    EXPECT_LE(draws, 1 + static_cast<int>(seconds / 0.1));
}

TEST_F(ProgressOnATerminal, AnUnfinishedBarIsWipedAndWarningsStandAboveIt) {
    const std::string text = on_terminal(60, [] {
        Progress progress(true, 10, "round");
        progress.update(2, "clients");
        warn("a client diverged");
        note("and another");
    });
    EXPECT_EQ(screen_of(text), "thalweg: warning: a client diverged\nthalweg: note: and another\n");
    EXPECT_THAT(text, HasSubstr("diverged\r\n\r\x1b[K["));  // drawn anew below it
    EXPECT_THAT(text, EndsWith("\r\x1b[K"));
}

TEST_F(ProgressOnATerminal, TheBarIsNeverWiderThanTheWindow) {
    const std::string text = on_terminal(15, [] {
        Progress progress(true, 1000, "round");
        progress.update(2, "a long story that does not fit");
    });
    EXPECT_THAT(text, StartsWith("\r\x1b[Kround 3/1000 ·\r"));
}

TEST(Progress, ThePlotGoesFromTheLowestToTheHighest) {
    EXPECT_EQ(progress_plot({}, 0, 79), "");
    EXPECT_EQ(progress_plot({0.5}, 0.5, 79), "accuracy 50.00% · best 50.00%");
    EXPECT_EQ(progress_plot({0.1, 0.8, 0.5}, 0.8, 79), "accuracy ▁█▅ 50.00% · best 80.00%");
    EXPECT_EQ(progress_plot({0.5, 0.5, 0.5}, 0.5, 79), "accuracy ▅▅▅ 50.00% · best 50.00%");
    EXPECT_EQ(progress_plot({0.1, 0.8, 0.5}, 0.8, 79, false), "accuracy _#= 50.00% - best 80.00%");
    std::vector<double> many;
    for (int i = 0; i < 100; ++i) many.push_back(i / 100.0);
    EXPECT_EQ(text_width(progress_plot(many, 0.99, 500)), 9U + 40 + 1 + 6 + 14);
    for (std::size_t width = 1; width < 90; ++width) {
        EXPECT_LE(text_width(progress_plot(many, 0.99, width)), width);
        EXPECT_LE(progress_plot(many, 0.99, width, false).size(), width);  // ASCII: a byte a column
    }
}

TEST(Progress, AsciiTextHasNoOtherCharacters) {
    EXPECT_EQ(ascii_text("round 1/2 · λ × … ½"), "round 1/2 - ? x ... ?");
    EXPECT_EQ(ascii_text("\x80\xff"), "??");
}

TEST_F(ProgressOnATerminal, TheLastAccuraciesStandBelowTheBarAndAreWipedWithIt) {
    const auto act = [] {
        Progress progress(true, 10, "round");
        progress.accuracy(0.25);
        progress.accuracy(0.75);
        progress.update(2, "clients");
        progress.line("something happened");
        progress.stop();
    };
    const std::string text = on_terminal(60, act);
    // Down to the plot and up again: the cursor rests at the beginning of the first line.
    EXPECT_THAT(text, HasSubstr("] round 3/10 · clients\r\naccuracy ▁█ 75.00% · best 75.00%\r\x1b[1A"));
    EXPECT_THAT(text, HasSubstr("\r\x1b[Jsomething happened\r\n"));
    EXPECT_THAT(text, EndsWith("\r\x1b[J"));
    EXPECT_THAT(text, ::testing::Not(HasSubstr("\x1b[36m")));
    EXPECT_THAT(on_terminal(60, act, "C.UTF-8", ""),
                HasSubstr("\x1b[36maccuracy ▁█ 75.00% · best 75.00%\x1b[0m"));
    for (const char byte : on_terminal(60, act, "C")) EXPECT_LT(static_cast<unsigned char>(byte), 0x80);
    EXPECT_THAT(on_terminal(12, act), HasSubstr("\r\n75.00%\r"));  // no room for more
}

TEST(Progress, APauseIsNoWork) {
    Pace pace;
    const Stopwatch watch;
    pace.update(0);
    std::this_thread::sleep_for(std::chrono::milliseconds(600));
    pace.update(1);
    const double left = pace.seconds_left(3);
    EXPECT_GE(left, 1.2);
    EXPECT_LE(left, 2 * watch.seconds() + 0.01);
    pace.exclude(watch.seconds());
    EXPECT_LT(pace.seconds_left(3), 0);  // nothing is known of work that took no time
}

TEST(Progress, APauseBeforeTheFirstRoundIsForgotten) {
    Pace pace;
    pace.exclude(100);
    pace.update(0);
    std::this_thread::sleep_for(std::chrono::milliseconds(600));
    pace.update(1);
    EXPECT_GE(pace.seconds_left(2), 0.6);
}

TEST(Log, WarningsAndNotesGoToStderrAndHaveALevel) {
    EXPECT_EQ(plain([] { warn("x {} y"); }), "thalweg: warning: x {} y\n");
    EXPECT_EQ(plain([] { note("so"); }), "thalweg: note: so\n");
    ASSERT_NE(spdlog::get("thalweg"), nullptr);
    spdlog::get("thalweg")->set_level(spdlog::level::warn);
    EXPECT_EQ(plain([] { note("so"); }), "");
    spdlog::get("thalweg")->set_level(spdlog::level::info);
}

TEST(Stopwatch, CountsSeconds) {
    Stopwatch watch;
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    EXPECT_GE(watch.seconds(), 0.1);
    watch.restart();
    EXPECT_LT(watch.seconds(), 0.1);
}

}  // namespace
}  // namespace thalweg::record::progress_test
