#include "thalweg/record/table.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <stdexcept>

namespace thalweg::record {

namespace {

/// `12`, `-0.5%`, `−3 ± 1`, `+.5`, `3 min 2 s`, `nan`, and the dashes that stand for "no number".
bool looks_like_number(std::string_view cell) {
    if (cell == "-" || cell == "–" || cell == "—" || cell == "nan" || cell == "inf" || cell == "-inf")
        return true;
    for (const std::string_view sign : {"+", "-", "−", "±"}) {
        if (cell.starts_with(sign)) {
            cell.remove_prefix(sign.size());
            break;
        }
    }
    if (cell.starts_with('.')) cell.remove_prefix(1);
    return !cell.empty() && std::isdigit(static_cast<unsigned char>(cell.front())) != 0;
}

std::string padded(const std::string& cell, std::size_t width, bool right) {
    const std::string blanks(width - std::min(width, text_width(cell)), ' ');
    return right ? blanks + cell : cell + blanks;
}

std::string line_of(std::size_t width) {
    std::string line;
    for (std::size_t i = 0; i < width; ++i) line += "─";
    return line + "\n";
}

}  // namespace

Table::Table(std::vector<std::string> header) {
    if (header.empty()) throw std::logic_error("a table needs a column");
    rows_.push_back(std::move(header));
    rule();
}

void Table::row(std::vector<std::string> cells) {
    if (cells.size() > rows_.front().size())
        throw std::logic_error("a table row with more cells than the header");
    cells.resize(rows_.front().size());
    rows_.push_back(std::move(cells));
}

void Table::rule() {
    rows_.emplace_back();
}

std::string Table::text() const {
    const std::size_t columns = rows_.front().size();
    std::vector<std::size_t> widths(columns, 0);
    std::vector<bool> filled(columns, false), numbers(columns, true);
    for (std::size_t r = 0; r < rows_.size(); ++r) {
        for (std::size_t c = 0; c < rows_[r].size(); ++c) {
            const std::string& cell = rows_[r][c];
            widths[c] = std::max(widths[c], text_width(cell));
            if (r == 0 || cell.empty()) continue;
            filled[c] = true;
            if (!looks_like_number(cell)) numbers[c] = false;
        }
    }
    std::size_t total = 2 * (columns - 1);
    for (const std::size_t width : widths) total += width;
    std::string text;
    for (const auto& row : rows_) {
        if (row.empty()) {
            text += line_of(total);
            continue;
        }
        std::string line;
        for (std::size_t c = 0; c < columns; ++c) {
            if (c > 0) line += "  ";
            line += padded(row[c], widths[c], filled[c] && numbers[c]);
        }
        line.erase(line.find_last_not_of(' ') + 1);
        text += line + "\n";
    }
    return text;
}

std::size_t text_width(std::string_view text) {
    return static_cast<std::size_t>(std::count_if(
        text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

std::string percent(double fraction, int digits) {
    return fmt::format("{:.{}f}%", 100.0 * fraction, digits);
}

std::string number(double value) {
    const double size = std::abs(value);
    if (size >= 9999.5 && size < 1e9) return fmt::format("{:.0f}", value);
    return fmt::format("{:.4g}", value);
}

}  // namespace thalweg::record
