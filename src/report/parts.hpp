#pragma once

#include <filesystem>
#include <string>

#include "thalweg/report/figure.hpp"

namespace thalweg::report {

/// std::logic_error for a figure or table that contradicts itself: lengths, a name that is no stem of files.
void require_sound(const Figure& figure);
void require_sound(const TextTable& table);
/// The same for all of a document, and for two figures or tables of one name.
void require_sound(const Document& document);

/// The data of a figure, a line a point or cell, and of a table.
std::string figure_csv(const Figure& figure);
std::string table_csv(const TextTable& table);

/// A script that reads `name.csv` beside it and draws `name.svg`. Texts are quoted so that nothing in them is a command.
std::string gnuplot_script(const Figure& figure);

/// gnuplot over the figures of one report: once it is missing or does not end, it is not started again.
class Gnuplot {
  public:
    /// Runs `gnuplot script` in `folder`, without a shell, for at most `seconds`. Returns what went wrong; empty: nothing.
    /// A Ctrl-C ends it: core::Interrupted.
    std::string run(const std::filesystem::path& folder, const std::string& script, double seconds);

  private:
    std::string hopeless_{};  ///< why it is not started again
};

/// write_figure() of figure.hpp, as one of many.
bool write_figure(const Figure& figure, const std::filesystem::path& folder, Gnuplot& gnuplot);

/// The page, whole. `figures`: the folder beside it that holds the figures' files (empty: there is none).
std::string page_html(const Document& document, const std::string& figures);

/// `json` as text inside a <script> element: nothing in it can end the element or begin a comment.
std::string script_safe(const Json& json);
/// `text` inside an element or a quoted attribute.
std::string html_safe(const std::string& text);

}  // namespace thalweg::report
