#include "thalweg/record/log.hpp"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>

#include "console.hpp"

namespace thalweg::record {

Console& Console::instance() {
    static Console console;
    return console;
}

void Console::draw(const Bar& bar) {
    const std::string shown = bar.shown();
    const auto below = std::count(shown.begin(), shown.end(), '\n');
    std::string text = (has_lines_ ? "\r\x1b[J" : "\r\x1b[K") + shown + "\r";
    if (below > 0) text += "\x1b[" + std::to_string(below) + "A";
    std::fputs(text.c_str(), stderr);  // at once: half a drawing is not to be seen
    std::fflush(stderr);
    has_lines_ = below > 0;
    bar_ = &bar;
}

void Console::wipe(const Bar& bar) {
    if (bar_ != &bar) return;
    std::fputs(has_lines_ ? "\r\x1b[J" : "\r\x1b[K", stderr);
    std::fflush(stderr);
    has_lines_ = false;
    bar_ = nullptr;
}

namespace {

/// Registered under its name, so that spdlog::set_level and SPDLOG_LEVEL reach it.
spdlog::logger& logger() {
    static const std::shared_ptr<spdlog::logger> made = [] {
        auto found = spdlog::get("thalweg");
        if (!found) found = spdlog::stderr_logger_mt("thalweg");
        found->set_pattern("thalweg: %v");
        found->flush_on(spdlog::level::info);
        return found;
    }();
    return *made;
}

void write(spdlog::level::level_enum level, const char* label, const std::string& text) {
    auto& console = Console::instance();
    const auto lock = console.lock();
    console.above_bar([&] { logger().log(level, "{}: {}", label, text); });
}

}  // namespace

void warn(const std::string& text) {
    write(spdlog::level::warn, "warning", text);
}
void note(const std::string& text) {
    write(spdlog::level::info, "note", text);
}

}  // namespace thalweg::record
