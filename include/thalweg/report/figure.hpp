#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "thalweg/record/run_folder.hpp"

namespace thalweg::report {

using record::Json;

/// One axis: what is drawn along it, with its unit in parentheses (`test accuracy (%)`); limits are found from the data
/// where they are not given.
struct Axis {
    std::string label{};
    bool logarithmic = false;
    std::optional<double> low{}, high{};
};

/// Points of one name. NaN and infinite values leave a gap.
struct Series {
    enum class Style { line, dashed, points, bars };
    std::string name;
    std::vector<double> x, y;  ///< of one length
    /// Ends of a band (lines) or of error bars (points, bars) about y; both empty: none.
    std::vector<double> low{}, high{};
    Style style = Style::line;
    std::string note{};  ///< said on hover, and in the CSV's header: how many models, seeds
};

/// Values over two axes: a heat map (cells with names) or a surface (cells at coordinates), with contour lines where
/// `contours` asks for them.
struct Grid {
    std::vector<std::string> row_names{}, column_names{};  ///< heat map; empty: a surface
    std::vector<double> rows{}, columns{};                 ///< coordinates of a surface (y and x)
    std::vector<std::vector<double>> values;               ///< [row][column]; NaN: no value
    std::string label;                                     ///< of the colour scale, with its unit
    std::vector<double> contours{};                        ///< levels
    /// Named points on a surface (the models it goes through).
    struct Mark {
        std::string name;
        double x = 0, y = 0;
    };
    std::vector<Mark> marks{};
};

/// Levels for contour lines of losses: fixed steps above the smallest, for far from the models losses span orders of
/// magnitude, where nobody looks. Empty when none is finite.
std::vector<double> loss_contours(const std::vector<std::vector<double>>& losses);
/// And of accuracies in percent.
std::vector<double> accuracy_contours();

/// A figure as data: the report draws it with hover, and `write_figure` writes what a paper needs. Either series or a
/// grid; with `categories`, x = i stands for category i.
struct Figure {
    std::string name;  ///< the files' stem: lower case, digits, `-`
    std::string title;
    std::string caption{};  ///< what is seen, and how it was measured
    Axis x{}, y{};
    std::vector<std::string> categories{};  ///< x of every series is the number of one, from 0
    std::vector<Series> series{};
    std::optional<Grid> grid{};
    bool stacked = false;  ///< bars at one x stand on each other, in the series' order
};

/// A table of text cells; columns that hold numbers are aligned to the right.
struct TextTable {
    std::string name;  ///< the CSV's stem
    std::string title;
    std::string caption{};
    std::vector<std::string> columns;
    std::vector<std::vector<std::string>> rows;
};

/// Both ways lossless (finite values; others become null and come back as NaN). RunError for JSON that is no figure.
Json to_json(const Figure& figure);
Figure figure_from_json(const Json& json);
Json to_json(const TextTable& table);
TextTable table_from_json(const Json& json);

/// Writes `name.csv`, `name.gp` (a gnuplot script that reads the CSV and draws `name.svg`) and, by running gnuplot where it
/// is installed, `name.svg` into `folder`. Returns false when gnuplot is missing or fails, with a note to the log that says
/// so once; the other files stand. std::logic_error for a figure that contradicts itself (lengths, a name that is no stem).
bool write_figure(const Figure& figure, const std::filesystem::path& folder);
/// `name.csv`.
void write_table(const TextTable& table, const std::filesystem::path& folder);

/// What a command or a study leaves to be shown: text, figures and tables in order. Kept as `result.json` in its folder, from
/// which `thalweg report` builds the page.
struct Section {
    std::string title;
    std::vector<std::string> paragraphs{};
    std::vector<Figure> figures{};
    std::vector<TextTable> tables{};
    std::string code{};   ///< shown as it is, in a typewriter face: a configuration, a log
    bool folded = false;  ///< shown when asked for
};
struct Document {
    std::string kind;  ///< `run`, `compare`, `study`
    std::string title;
    std::string summary{};  ///< one paragraph: what was found
    Json facts =
        Json::object();  ///< short name → text or number, shown at the top (seed, models, time taken)
    std::vector<Section> sections{};
};
Json to_json(const Document& document);
Document document_from_json(const Json& json);

/// Writes `report.html` (self-contained: opens from disk without a network) and `figures/` of `document` into `folder`.
/// RunError names the path that cannot be written.
void write_report(const Document& document, const std::filesystem::path& folder);

}  // namespace thalweg::report
