#include <stdexcept>
#include <string_view>

#include "parts.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/files.hpp"
#include "thalweg/core/interrupt.hpp"
#include "thalweg/embedded/report.hpp"
#include "thalweg/record/json.hpp"

namespace thalweg::report {

namespace fs = std::filesystem;

std::string script_safe(const Json& json) {
    // `<` stands in JSON only inside texts, where \u003c is the same character; without it no </script> and no <!--.
    const std::string text = record::json_text(json);
    std::string safe;
    safe.reserve(text.size());
    for (const char c : text) {
        if (c == '<') {
            safe += "\\u003c";
        } else {
            safe += c;
        }
    }
    return safe;
}

std::string html_safe(const std::string& text) {
    std::string safe;
    for (const char c : text) {
        switch (c) {
            case '&':
                safe += "&amp;";
                break;
            case '<':
                safe += "&lt;";
                break;
            case '>':
                safe += "&gt;";
                break;
            case '"':
                safe += "&quot;";
                break;
            case '\'':
                safe += "&#39;";
                break;
            default:
                safe += c;
        }
    }
    return safe;
}

namespace {

/// The template with what its marks `@@name@@` stand for; what is put in is not looked at again.
std::string filled(std::string_view page,
                   const std::vector<std::pair<std::string_view, std::string>>& parts) {
    std::string result;
    for (std::size_t at = 0; at < page.size();) {
        const std::size_t begin = page.find("@@", at);
        const std::size_t end = begin == std::string_view::npos ? begin : page.find("@@", begin + 2);
        result += page.substr(at, std::min(begin, page.size()) - at);
        if (end == std::string_view::npos) break;
        const std::string_view name = page.substr(begin + 2, end - begin - 2);
        for (const auto& [key, text] : parts) {
            if (key == name) result += text;
        }
        at = end + 2;
    }
    return result;
}

/// Files of different figures would overwrite each other.
void require_different_names(const Document& document) {
    std::vector<std::string> names;
    const auto add = [&](const std::string& name) {
        for (const auto& other : names) {
            if (other == name)
                throw std::logic_error("two figures or tables of a report are called '" + name + "'");
        }
        names.push_back(name);
    };
    for (const auto& section : document.sections) {
        for (const auto& figure : section.figures) add(figure.name);
        for (const auto& table : section.tables) add(table.name);
    }
}

}  // namespace

std::string page_html(const Document& document, const std::string& figures) {
    namespace web = embedded::report;
    Json data = to_json(document);
    data["figures_folder"] = figures;
    return filled(web::report_html, {{"title", html_safe(document.title)},
                                     {"css", std::string(web::report_css)},
                                     {"chart", std::string(web::chart_js)},
                                     {"script", std::string(web::report_js)},
                                     {"data", script_safe(data)}});
}

void require_sound(const Document& document) {
    require_different_names(document);
    for (const auto& section : document.sections) {
        for (const auto& figure : section.figures) require_sound(figure);
        for (const auto& table : section.tables) require_sound(table);
    }
}

void write_report(const Document& document, const fs::path& folder) {
    require_sound(document);
    const fs::path figures = folder / "figures";
    std::error_code error;
    fs::create_directories(figures, error);
    if (error)
        throw core::RunError(figures.string() +
                             ": the folder of the figures cannot be created: " + error.message());
    Gnuplot gnuplot;
    for (const auto& section : document.sections) {
        for (const auto& figure : section.figures) {
            core::check_interrupt();
            write_figure(figure, figures, gnuplot);
        }
        for (const auto& table : section.tables) write_table(table, figures);
    }
    core::write_atomically(folder / "report.html", page_html(document, "figures"));
}

}  // namespace thalweg::report
