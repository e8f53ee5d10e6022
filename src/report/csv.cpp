#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <stdexcept>

#include "parts.hpp"
#include "thalweg/core/files.hpp"

namespace thalweg::report {

namespace {

[[noreturn]] void contradicts(const std::string& name, const std::string& why) {
    throw std::logic_error("the figure or table '" + name + "' contradicts itself: " + why);
}

void require_stem(const std::string& name) {
    const auto allowed = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-'; };
    bool sound = !name.empty() && name.size() <= 100 && name.front() != '-';
    for (const char c : name) sound = sound && allowed(c);
    if (!sound)
        contradicts(name, "its name is also its files' and must be of lower-case letters, digits and '-'");
}

void require_grid(const std::string& name, const Grid& grid) {
    const bool named = !grid.row_names.empty();
    const std::size_t rows = named ? grid.row_names.size() : grid.rows.size();
    const std::size_t columns = named ? grid.column_names.size() : grid.columns.size();
    if (named && !(grid.rows.empty() && grid.columns.empty()))
        contradicts(name, "its rows have names and coordinates");
    if (rows == 0 || columns == 0) contradicts(name, "its grid has no rows or no columns");
    if (grid.values.size() != rows) contradicts(name, "its grid has not one row of values for each row");
    for (const auto& row : grid.values) {
        if (row.size() != columns) contradicts(name, "its grid has not one value for each column");
    }
}

bool is_of_categories(const Series& series, std::size_t count) {
    return std::all_of(series.x.begin(), series.x.end(), [count](double x) {
        return x >= 0 && x < static_cast<double>(count) && x == std::floor(x);
    });
}

/// NaN where there is no value, as gnuplot, NumPy and pandas read it.
std::string number(double value) {
    return std::isfinite(value) ? fmt::format("{}", value) : "NaN";
}

/// A line break inside a quoted cell is allowed, but gnuplot reads line by line.
std::string quoted(const std::string& text) {
    std::string result = "\"";
    for (const char c : text) {
        if (c == '"') {
            result += "\"\"";
        } else {
            result += static_cast<unsigned char>(c) < ' ' ? ' ' : c;
        }
    }
    return result + "\"";
}

std::string cell(const std::string& text) {
    const bool plain = text.find_first_of("\",\n\r\t") == std::string::npos && !text.starts_with('#');
    return plain ? text : quoted(text);
}

/// The ends of stacked bars: low where the one below ends.
void stack(Figure& figure) {
    std::map<double, double> reached;
    for (auto& series : figure.series) {
        series.low.clear();
        series.high.clear();
        for (std::size_t i = 0; i < series.y.size(); ++i) {
            double& top = reached[series.x[i]];
            series.low.push_back(top);
            if (std::isfinite(series.y[i])) top += series.y[i];
            series.high.push_back(top);
        }
    }
}

std::string series_csv(Figure figure) {
    if (figure.stacked) stack(figure);
    std::string text;
    for (const auto& series : figure.series) {
        if (series.note.empty()) continue;
        std::string line = "# " + series.name + ": " + series.note;
        for (char& c : line) c = static_cast<unsigned char>(c) < ' ' ? ' ' : c;
        text += line + "\n";
    }
    const bool named = !figure.categories.empty();
    // Texts come last: gnuplot, which reads the numbers, takes quotes in them for ends.
    text += std::string("number,x,y,low,high,series") + (named ? ",category\n" : "\n");
    for (std::size_t s = 0; s < figure.series.size(); ++s) {
        const Series& series = figure.series[s];
        for (std::size_t i = 0; i < series.y.size(); ++i) {
            text += fmt::format("{},{},{},", s, number(series.x[i]), number(series.y[i]));
            if (!series.low.empty()) text += number(series.low[i]);
            text += ",";
            if (!series.high.empty()) text += number(series.high[i]);
            text += "," + quoted(series.name);
            if (named) {
                const std::string& category = figure.categories.at(static_cast<std::size_t>(series.x[i]));
                text += "," + quoted(category);
            }
            text += "\n";
        }
    }
    return text;
}

std::string grid_csv(const Grid& grid) {
    const bool named = !grid.row_names.empty();
    std::string text = named ? "y,x,value,row,column\n" : "y,x,value\n";
    for (std::size_t r = 0; r < grid.values.size(); ++r) {
        // gnuplot's surfaces are scan lines with an empty line between them; other readers skip it.
        if (r > 0 && !named) text += "\n";
        for (std::size_t c = 0; c < grid.values[r].size(); ++c) {
            text += named ? fmt::format("{},{},", r, c)
                          : fmt::format("{},{},", number(grid.rows[r]), number(grid.columns[c]));
            text += number(grid.values[r][c]);
            if (named) text += "," + quoted(grid.row_names[r]) + "," + quoted(grid.column_names[c]);
            text += "\n";
        }
    }
    return text;
}

}  // namespace

void require_sound(const Figure& figure) {
    require_stem(figure.name);
    if (figure.grid && !figure.series.empty())
        contradicts(figure.name, "it has series and a grid; draw two figures");
    if (figure.grid) require_grid(figure.name, *figure.grid);
    for (const auto& series : figure.series) {
        if (figure.stacked &&
            !std::all_of(series.x.begin(), series.x.end(), [](double x) { return std::isfinite(x); }))
            contradicts(figure.name, "a bar to be stacked has no place");
        if (figure.stacked && series.style != Series::Style::bars)
            contradicts(figure.name, "only bars can be stacked");
        if (series.x.size() != series.y.size()) contradicts(figure.name, "x and y differ in length");
        if (!figure.categories.empty() && !is_of_categories(series, figure.categories.size()))
            contradicts(
                figure.name,
                "x of a series is not the number of a category; points that would hide each other are "
                "drawn side by side anyway");
        if (series.low.size() != series.high.size() ||
            !(series.low.empty() || series.low.size() == series.y.size()))
            contradicts(figure.name, "low, high and y differ in length");
    }
}

void require_sound(const TextTable& table) {
    require_stem(table.name);
    for (const auto& row : table.rows) {
        if (row.size() != table.columns.size())
            contradicts(table.name, "a row has not one cell for each column");
    }
}

std::string figure_csv(const Figure& figure) {
    return figure.grid ? grid_csv(*figure.grid) : series_csv(figure);
}

std::string table_csv(const TextTable& table) {
    std::string text;
    const auto line = [&](const std::vector<std::string>& cells) {
        for (std::size_t i = 0; i < cells.size(); ++i) text += (i == 0 ? "" : ",") + cell(cells[i]);
        text += "\n";
    };
    line(table.columns);
    for (const auto& row : table.rows) line(row);
    return text;
}

void write_table(const TextTable& table, const std::filesystem::path& folder) {
    require_sound(table);
    core::write_atomically(folder / (table.name + ".csv"), table_csv(table));
}

}  // namespace thalweg::report
