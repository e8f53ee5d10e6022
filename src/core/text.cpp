#include "thalweg/core/text.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iterator>
#include <utility>

namespace thalweg::core {
namespace {

/// Edits (insert, delete, replace, swap of neighbours) from a to b: optimal string alignment.
std::size_t edit_distance(const std::string& a, const std::string& b) {
    std::vector<std::size_t> before(b.size() + 1), last(b.size() + 1), now(b.size() + 1);
    for (std::size_t j = 0; j <= b.size(); ++j) last[j] = j;
    for (std::size_t i = 1; i <= a.size(); ++i) {
        now[0] = i;
        for (std::size_t j = 1; j <= b.size(); ++j) {
            now[j] = std::min({last[j] + 1, now[j - 1] + 1, last[j - 1] + (a[i - 1] != b[j - 1])});
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
                now[j] = std::min(now[j], before[j - 2] + 1);
            }
        }
        std::swap(before, last);
        std::swap(last, now);
    }
    return last[b.size()];
}

std::string format(const char* pattern, double value, const char* unit) {
    char buffer[64];
    std::snprintf(buffer, sizeof buffer, pattern, value);
    return std::string(buffer) + unit;
}

}  // namespace

std::string without_blanks(std::string text) {
    std::erase_if(text, [](char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; });
    return text;
}

std::string nearest(const std::string& word, const std::vector<std::string>& candidates) {
    if (word.size() > 256) return {};  // nobody mistyped that; the distance costs length times length
    const std::size_t allowed = std::max<std::size_t>(2, word.size() / 3);
    std::size_t best = allowed + 1;
    std::string found;
    for (const auto& candidate : candidates) {
        const std::size_t distance = edit_distance(word, candidate);
        // A distance as long as the longer word means that nothing is shared.
        if (distance < best && distance < std::max(word.size(), candidate.size())) {
            best = distance;
            found = candidate;
        }
    }
    return found;
}

std::string join(const std::vector<std::string>& words, const std::string& separator) {
    std::string all;
    for (std::size_t i = 0; i < words.size(); ++i) all += (i > 0 ? separator : "") + words[i];
    return all;
}

std::string shape_text(const std::vector<std::int64_t>& shape) {
    std::vector<std::string> sizes;
    for (const auto size : shape) sizes.push_back(std::to_string(size));
    return "[" + join(sizes) + "]";
}

std::string bytes_text(double bytes) {
    static const char* const units[] = {" B", " kB", " MB", " GB", " TB", " PB"};
    if (std::abs(bytes) < 999.5) return format("%.0f", bytes, units[0]);
    std::size_t unit = 0;
    // 999.95 would be printed as 1000.0.
    while (std::abs(bytes) >= (unit == 0 ? 999.5 : 999.95) && unit + 1 < std::size(units)) {
        bytes /= 1000;
        ++unit;
    }
    return format("%.1f", bytes, units[unit]);
}

std::string seconds_text(double seconds) {
    if (!std::isfinite(seconds)) return format("%f", seconds, " s");
    if (seconds < 0) return "-" + seconds_text(-seconds);
    if (seconds < 0.00995) return format("%.1f", seconds * 1e3, " ms");
    if (seconds < 0.9995) return format("%.0f", seconds * 1e3, " ms");
    if (seconds < 59.95) return format("%.1f", seconds, " s");
    if (seconds < 3599.5) {
        const auto whole = std::llround(seconds);
        return std::to_string(whole / 60) + " min " + std::to_string(whole % 60) + " s";
    }
    const double minutes = std::round(seconds / 60);
    return format("%.0f", std::floor(minutes / 60), " h ") + format("%.0f", std::fmod(minutes, 60), " min");
}

}  // namespace thalweg::core
