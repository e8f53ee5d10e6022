#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace thalweg::core {

/// The word of `candidates` with the smallest edit distance to `word`, or an empty string when none is close
/// (distance over a third of the length, at least 2).
std::string nearest(const std::string& word, const std::vector<std::string>& candidates);

/// "a, b, c"
std::string join(const std::vector<std::string>& words, const std::string& separator = ", ");

/// The text without spaces, tabs and line breaks.
std::string without_blanks(std::string text);

/// `[784, 200]` or `784×200`.
std::string shape_text(const std::vector<std::int64_t>& shape);

/// 12.3 MB, 4.0 kB, 17 B.
std::string bytes_text(double bytes);

/// 830 ms, 12.4 s, 3 min 20 s.
std::string seconds_text(double seconds);

}  // namespace thalweg::core
