#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>

#include "parts.hpp"
#include "thalweg/core/files.hpp"
#include "thalweg/record/log.hpp"
#include "thalweg/record/table.hpp"

namespace thalweg::report {

namespace {

/// Okabe and Ito's palette, which people with any colour vision tell apart; its pale yellow last.
constexpr const char* palette[] = {"#0072B2", "#D55E00", "#009E73", "#CC79A7",
                                   "#E69F00", "#56B4E9", "#000000", "#B8A800"};
/// Beside colours: gnuplot's point types that stay apart in print.
constexpr int point_types[] = {7, 5, 9, 13, 11, 6, 4, 8, 12, 10};

/// In single quotes gnuplot knows neither escapes nor commands; a quote in the text is doubled. No line breaks.
std::string quote(const std::string& text) {
    std::string result = "'";
    for (const char c : text) {
        if (c == '\'') result += '\'';
        result += static_cast<unsigned char>(c) < ' ' ? ' ' : c;
    }
    return result + "'";
}

/// A title in lines that fit `width` pixels.
std::string title(const std::string& text, int width) {
    const auto fitting = static_cast<std::size_t>(width / 9);
    std::string result;
    for (std::size_t begin = 0; begin < text.size() || result.empty();) {
        std::size_t end = text.size();
        if (record::text_width(std::string_view(text).substr(begin)) > fitting) {
            const std::size_t blank = text.rfind(' ', begin + fitting);
            const std::size_t next = text.find(' ', begin + fitting);
            end = blank != std::string::npos && blank > begin ? blank : std::min(next, text.size());
        }
        result += (result.empty() ? "" : ".\"\\n\".") + quote(text.substr(begin, end - begin));
        begin = end + 1;
    }
    return result;
}

struct Range {
    double low = std::numeric_limits<double>::infinity(), high = -low;
    void add(double value) {
        if (!std::isfinite(value)) return;
        low = std::min(low, value);
        high = std::max(high, value);
    }
    bool empty() const { return low > high; }
};

std::string range_text(const std::optional<double>& low, const std::optional<double>& high) {
    return "[" + (low ? fmt::format("{}", *low) : "*") + ":" + (high ? fmt::format("{}", *high) : "*") + "]";
}

std::string head(const Figure& figure, int width, int height) {
    return fmt::format(
        "# Draws {0}.svg from {0}.csv beside it: gnuplot {0}.gp\n"
        "set terminal svg size {1},{2} dynamic noenhanced background '#ffffff' font 'Helvetica,14' linewidth "
        "1.2\n"
        "set output '{0}.svg'\n"
        "set encoding utf8\n"
        "set datafile separator comma\n"
        "set datafile columnheaders\n"
        "set title {3} font ',16'\n"
        "set xlabel {4}\n"
        "set ylabel {5}\n"
        "set border 3 linecolor rgb '#555555'\n"
        "set tics nomirror out scale 0.6 textcolor rgb '#222222'\n",
        figure.name, width, height, title(figure.title, width), quote(figure.x.label), quote(figure.y.label));
}

/// Names under an axis; all of them as long as they can be read, else every n-th.
std::string named_tics(const char* axis, const std::vector<std::string>& names, bool steep) {
    std::string text = fmt::format("set {}tics (", axis);
    const std::size_t step = std::max<std::size_t>(1, (names.size() + 59) / 60);
    for (std::size_t i = 0; i < names.size(); i += step)
        text += (i == 0 ? "" : ", ") + quote(names[i]) + fmt::format(" {}", i);
    return text + ")" + (steep ? " rotate by 35 right\n" : "\n");
}

std::size_t longest(const std::vector<std::string>& names) {
    std::size_t width = 0;
    for (const auto& name : names) width = std::max(width, record::text_width(name));
    return width;
}

/// What is drawn of one series: which columns of the CSV, where it stands aside of others at the same category.
struct Drawn {
    std::size_t number = 0;
    double aside = 0;

    std::string of(int column) const { return fmt::format("(column(1)=={}?column({}):NaN)", number, column); }
    std::string x() const {
        return aside == 0 ? of(2) : fmt::format("(column(1)=={}?column(2)+{:.4g}:NaN)", number, aside);
    }
};

std::string series_plot(const Figure& figure, const Drawn& drawn, const std::string& title) {
    const Series& series = figure.series[drawn.number];
    const std::string file = "'" + figure.name + ".csv'";
    const std::string color = fmt::format("linecolor rgb '{}'", palette[drawn.number % std::size(palette)]);
    const std::string points =
        fmt::format("pointtype {} pointsize 0.6", point_types[drawn.number % std::size(point_types)]);
    const bool spread = !series.low.empty();
    const std::string ends = drawn.of(4) + ":" + drawn.of(5);
    const auto plot = [&](const std::string& columns, const std::string& look, const std::string& name) {
        return "  " + file + " using " + columns + " with " + look + " " + color + " title " + name;
    };
    const std::string xy = drawn.x() + ":" + drawn.of(3);
    if (figure.stacked)
        return plot(drawn.of(2) + ":(0.5*(" + drawn.of(4) + "+" + drawn.of(5) + ")):(0.4):(0.5*(" +
                        drawn.of(5) + "-" + drawn.of(4) + "))",
                    "boxxyerror fill solid 0.8 noborder", title);
    if (series.style == Series::Style::bars) {
        std::string text = plot(xy, "boxes fill solid 0.8 noborder", title);
        if (spread)
            text += ", \\\n  " + file + " using " + drawn.x() + ":" + drawn.of(4) + ":(0):(" + drawn.of(5) +
                    "-" + drawn.of(4) +
                    ") with vectors heads size graph 0.008,90 linecolor rgb '#222222' notitle";
        return text;
    }
    if (series.style == Series::Style::points)
        return plot(xy + (spread ? ":" + ends : ""), (spread ? "yerrorbars " : "points ") + points, title);
    std::string text;
    if (spread)
        text = "  " + file + " using " + drawn.x() + ":" + ends +
               " with filledcurves fill transparent solid 0.18 noborder " + color + " notitle, \\\n";
    // a cycle of colours that begins again goes on with other dashes
    const std::size_t cycle = drawn.number / std::size(palette);
    const std::string dash =
        series.style == Series::Style::dashed || cycle > 0 ? fmt::format(" dashtype {}", 2 + cycle) : "";
    const bool few = series.x.size() <= 30;
    return text +
           plot(xy, (few ? "linespoints " + points : std::string("lines")) + " linewidth 2" + dash, title);
}

std::string series_script(const Figure& figure) {
    const bool named = !figure.categories.empty();
    Range values, positions;
    std::size_t bars = 0, points = 0;
    std::vector<std::string> names;
    for (const auto& series : figure.series) {
        for (const auto* list : {&series.y, &series.low, &series.high}) {
            for (const double value : *list) values.add(value);
        }
        for (const double x : series.x) positions.add(x);
        bars += series.style == Series::Style::bars && (!figure.stacked || bars == 0) ? 1 : 0;
        points += series.style == Series::Style::points ? 1 : 0;
        names.push_back(series.name);
    }
    const bool steep = named && longest(figure.categories) * figure.categories.size() > 55;
    const bool keyed = figure.series.size() > 1;
    const bool below = keyed && (longest(names) > 24 || figure.series.size() > 14);
    const int key_rows = below ? static_cast<int>(names.size()) : 0;
    const int width = keyed && !below ? 720 + static_cast<int>(8 * longest(names)) : 720;
    const int height = 450 + 20 * key_rows + (steep ? static_cast<int>(5 * longest(figure.categories)) : 0);
    std::string text = head(figure, width, height);
    // gnuplot leaves more room than slanted names need, and less than a key below does
    if (steep || below) text += fmt::format("set xlabel offset 0,{}\n", steep ? 1.2 : 0.4);
    text += "set grid ytics linecolor rgb '#dddddd' linetype 1\n";
    if (figure.x.logarithmic) text += "set logscale x\n";
    if (figure.y.logarithmic) text += "set logscale y\n";
    text += !keyed  ? "set key off\n"
            : below ? fmt::format("set key outside below center vertical maxrows {} Left reverse samplen 2\n",
                                  key_rows)
                    : "set key outside right top vertical Left reverse samplen 2\n";
    if (named) {
        text += named_tics("x", figure.categories, steep);
        text += fmt::format("set xrange [-0.6:{}]\n", static_cast<double>(figure.categories.size()) - 0.4);
    } else {
        text += "set xrange " + range_text(figure.x.low, figure.x.high) + "\n";
        if (bars > 0) text += "set offsets 0.6, 0.6, 0, 0\n";
    }
    auto low = figure.y.low;
    if (bars > 0 && !low && !figure.y.logarithmic && values.low >= 0) low = 0;  // a bar's length is its value
    text += "set yrange " + range_text(low, figure.y.high) + "\n";
    if (values.empty() || positions.empty())
        return text +
               "set xrange [0:1]\nset yrange [0:1]\nset label 'no values' at 0.5,0.5 center\n"
               "plot NaN notitle\n";
    const double bar = 0.8 / static_cast<double>(std::max<std::size_t>(1, bars));
    if (bars > 0) text += fmt::format("set boxwidth {:.4g}\n", bar * 0.92);
    text += "plot \\\n";
    std::size_t bar_number = 0, point_number = 0;
    for (std::size_t s = 0; s < figure.series.size(); ++s) {
        Drawn drawn{.number = s};
        if (figure.series[s].style == Series::Style::bars)
            drawn.aside = (static_cast<double>(bar_number++) - 0.5 * static_cast<double>(bars - 1)) * bar;
        if (named && figure.series[s].style == Series::Style::points)
            drawn.aside = (static_cast<double>(point_number++) - 0.5 * static_cast<double>(points - 1)) *
                          0.5 / static_cast<double>(points);
        text += (s == 0 ? "" : ", \\\n") + series_plot(figure, drawn, quote(figure.series[s].name));
    }
    return text + "\n";
}

/// viridis, dark to bright, read in grey and by any colour vision.
constexpr const char* colors =
    "set palette defined (0 '#440154', 0.125 '#472d7b', 0.25 '#3b528b', 0.375 '#2c728e', 0.5 '#21918c', "
    "0.625 '#28ae80', 0.75 '#5ec962', 0.875 '#addc30', 1 '#fde725')\n";

/// ColorBrewer's GnBu: bright where values are low, so that lines and names on it can be read.
constexpr const char* bright_colors =
    "set palette defined (0 '#f7fcf0', 0.25 '#ccebc5', 0.5 '#7bccc4', 0.75 '#2b8cbe', 1 '#084081')\n";

Range values_of(const Grid& grid) {
    Range range;
    for (const auto& row : grid.values) {
        for (const double value : row) range.add(value);
    }
    return range;
}

std::string heat_script(const Figure& figure, const Grid& grid) {
    const std::size_t rows = grid.row_names.size(), columns = grid.column_names.size();
    const bool steep = longest(grid.column_names) * columns > 60;
    const auto names_width = static_cast<int>(std::min<std::size_t>(300, 7 * longest(grid.row_names)));
    const int width = std::clamp(260 + names_width + static_cast<int>(columns) * 46, 520, 1600);
    const int height = std::clamp(150 + static_cast<int>(rows) * 28, 260, 1600) +
                       (steep ? static_cast<int>(5 * longest(grid.column_names)) : 0);
    std::string text = head(figure, width, height) + colors;
    text += "set border 0\nset tics scale 0\nset key off\n";
    text += "set cblabel " + quote(grid.label) + "\n";
    text += named_tics("x", grid.column_names, steep) + named_tics("y", grid.row_names, false);
    text += fmt::format("set xrange [-0.5:{}]\nset yrange [{}:-0.5]\n", static_cast<double>(columns) - 0.5,
                        static_cast<double>(rows) - 0.5);
    const Range range = values_of(grid);
    if (range.empty()) return text + "set label 'no values' at graph 0.5,0.5 center\nplot NaN notitle\n";
    if (range.low == range.high)
        text += fmt::format("set cbrange [{}:{}]\n", range.low - 0.5, range.high + 0.5);
    text += fmt::format("plot '{}.csv' using 2:1:3 with image pixels", figure.name);
    if (columns <= 20 && rows <= 40) {
        const double middle = 0.5 * (range.low + range.high);
        for (const auto& [comparison, color] : {std::pair{"<", "#ffffff"}, std::pair{">=", "#000000"}})
            text += fmt::format(
                ", \\\n  '' using (column(3){}{}?column(2):NaN):1:(sprintf('%.3g',column(3))) with labels "
                "font ',11' textcolor rgb '{}'",
                comparison, middle, color);
    }
    return text + "\n";
}

std::string surface_script(const Figure& figure, const Grid& grid) {
    std::string text = head(figure, 720, 560) + bright_colors;
    text += "set view map\nset key off\nset cblabel " + quote(grid.label) + "\n";
    if (figure.x.logarithmic) text += "set logscale x\n";
    if (figure.y.logarithmic) text += "set logscale y\n";
    text += "set xrange " + range_text(figure.x.low, figure.x.high) + " noextend\n";
    text += "set yrange " + range_text(figure.y.low, figure.y.high) + " noextend\n";
    const Range range = values_of(grid);
    if (range.empty())
        return text + "set label 'no values' at graph 0.5,0.5 center\nplot [0:1][0:1] NaN notitle\n";
    if (range.low == range.high)
        text += fmt::format("set cbrange [{}:{}]\n", range.low - 0.5, range.high + 0.5);
    text += "set style textbox opaque fillcolor rgb '#ffffff' noborder margins 0.6,0.3\n";
    for (const auto& mark : grid.marks)
        text += fmt::format(
            "set label {} at {},{} front boxed point pointtype 7 pointsize 1 linecolor rgb '#000000' offset "
            "0.8,0.6\n",
            quote(mark.name), mark.x, mark.y);
    std::string lines;
    if (!grid.contours.empty()) {
        std::string levels;
        for (const double level : grid.contours)
            levels += fmt::format("{}{}", levels.empty() ? "" : ",", level);
        text += "set contour base\nset cntrparam levels discrete " + levels +
                "\nset cntrlabel onecolor font ',11' start 5 interval 40\n";
        lines = fmt::format(
            ", \\\n  '{0}.csv' using 2:1:3 with lines nosurface linewidth 1 linecolor rgb '#000000'"
            ", \\\n  '{0}.csv' using 2:1:3 with labels nosurface textcolor rgb '#000000'",
            figure.name);
    }
    return text + fmt::format("splot '{}.csv' using 2:1:3 with pm3d nocontour", figure.name) + lines + "\n";
}

}  // namespace

std::string gnuplot_script(const Figure& figure) {
    if (!figure.grid) return series_script(figure);
    return figure.grid->row_names.empty() ? surface_script(figure, *figure.grid)
                                          : heat_script(figure, *figure.grid);
}

bool write_figure(const Figure& figure, const std::filesystem::path& folder) {
    Gnuplot gnuplot;
    return write_figure(figure, folder, gnuplot);
}

bool write_figure(const Figure& figure, const std::filesystem::path& folder, Gnuplot& gnuplot) {
    require_sound(figure);
    core::write_atomically(folder / (figure.name + ".csv"), figure_csv(figure));
    const std::string script = figure.name + ".gp";
    core::write_atomically(folder / script, gnuplot_script(figure));
    const auto picture = folder / (figure.name + ".svg");
    std::error_code error;
    std::filesystem::remove(picture, error);  // an older one would not show this data
    const std::string wrong = gnuplot.run(folder, script, 60);
    if (wrong.empty()) return true;
    std::filesystem::remove(picture, error);
    static std::atomic<bool> said = false;
    if (!said.exchange(true))
        record::note("the figures were written without their SVG pictures: " + wrong +
                     ". `gnuplot NAME.gp` in " + folder.string() + " draws one from its CSV");
    return false;
}

}  // namespace thalweg::report
