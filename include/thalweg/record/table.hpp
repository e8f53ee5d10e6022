#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace thalweg::record {

/// A text table for the terminal: columns padded and two spaces apart, no blanks at the end of a line. A column whose
/// filled cells all begin like a number is aligned to the right, heading included.
class Table {
  public:
    explicit Table(std::vector<std::string> header);
    /// Missing cells at the end stay empty; std::logic_error for more cells than the header has.
    void row(std::vector<std::string> cells);
    /// A line between what stands before and after.
    void rule();
    /// Header, line, rows; every line ends with a newline.
    std::string text() const;

  private:
    std::vector<std::vector<std::string>> rows_;  ///< an empty row is a rule
};

/// Code points of UTF-8 text: its width in a terminal as long as no character is wide or combining.
std::size_t text_width(std::string_view text);

/// 0.8612 → "86.12%"
std::string percent(double fraction, int digits = 2);
/// Four significant digits: 0.08512, 1.5, 1.234e-05; whole numbers from 10,000 to a billion in full.
std::string number(double value);

}  // namespace thalweg::record
