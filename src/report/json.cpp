#include <cmath>
#include <limits>

#include "thalweg/core/error.hpp"
#include "thalweg/report/figure.hpp"

namespace thalweg::report {

namespace {

/// Reads one object; whatever is missing or of another type is a RunError that says which and where.
class Reader {
  public:
    Reader(const Json& json, std::string what) : json_(json), what_(std::move(what)) {
        if (!json.is_object()) fail("is no JSON object");
    }
    [[noreturn]] void fail(const std::string& why) const {
        throw core::RunError(what_ + " " + why + "; it was not written by this program, or is damaged");
    }
    bool has(const char* key) const {
        const auto found = json_.find(key);
        return found != json_.end() && !found->is_null();
    }
    const Json& at(const char* key) const {
        if (!json_.contains(key)) fail(std::string("has no `") + key + "`");
        return json_[key];
    }
    std::string text(const char* key) const {
        if (!at(key).is_string()) fail(std::string("has a `") + key + "` that is no text");
        return at(key).get<std::string>();
    }
    std::string text_or_empty(const char* key) const { return has(key) ? text(key) : std::string(); }
    bool flag(const char* key) const {
        if (!has(key)) return false;
        if (!at(key).is_boolean()) fail(std::string("has a `") + key + "` that is neither true nor false");
        return at(key).get<bool>();
    }
    double number(const Json& value, const char* key) const {
        if (value.is_null()) return std::numeric_limits<double>::quiet_NaN();
        if (!value.is_number()) fail(std::string("has something in `") + key + "` that is no number");
        return value.get<double>();
    }
    double number(const char* key) const { return number(at(key), key); }
    std::optional<double> number_if(const char* key) const {
        return has(key) ? std::optional(number(key)) : std::nullopt;
    }
    /// Items of a list; none when the key is missing.
    const Json& list(const char* key) const {
        static const Json none = Json::array();
        if (!has(key)) return none;
        if (!at(key).is_array()) fail(std::string("has a `") + key + "` that is no list");
        return at(key);
    }
    std::vector<double> numbers(const Json& items, const char* key) const {
        if (!items.is_array()) fail(std::string("has something in `") + key + "` that is no list");
        std::vector<double> values;
        for (const Json& item : items) values.push_back(number(item, key));
        return values;
    }
    std::vector<double> numbers(const char* key) const { return numbers(list(key), key); }
    std::vector<std::string> texts(const Json& items, const char* key) const {
        if (!items.is_array()) fail(std::string("has something in `") + key + "` that is no list");
        std::vector<std::string> values;
        for (const Json& item : items) {
            if (!item.is_string()) fail(std::string("has something in `") + key + "` that is no text");
            values.push_back(item.get<std::string>());
        }
        return values;
    }
    std::vector<std::string> texts(const char* key) const { return texts(list(key), key); }

  private:
    const Json& json_;
    std::string what_;
};

Json numbers_json(const std::vector<double>& values) {
    Json json = Json::array();
    for (const double value : values) json.push_back(std::isfinite(value) ? Json(value) : Json());
    return json;
}

/// Only what is not the default is written: a page holds many figures.
void add(Json& json, const char* key, const std::string& text) {
    if (!text.empty()) json[key] = text;
}
void add(Json& json, const char* key, const std::vector<double>& values) {
    if (!values.empty()) json[key] = numbers_json(values);
}
void add(Json& json, const char* key, const std::vector<std::string>& values) {
    if (!values.empty()) json[key] = values;
}

Json axis_json(const Axis& axis) {
    Json json = {{"label", axis.label}};
    if (axis.logarithmic) json["logarithmic"] = true;
    if (axis.low && std::isfinite(*axis.low)) json["low"] = *axis.low;
    if (axis.high && std::isfinite(*axis.high)) json["high"] = *axis.high;
    return json;
}

Axis axis_from(const Json& json, const std::string& what) {
    const Reader reader(json, what);
    return {.label = reader.text_or_empty("label"),
            .logarithmic = reader.flag("logarithmic"),
            .low = reader.number_if("low"),
            .high = reader.number_if("high")};
}

constexpr std::pair<Series::Style, const char*> styles[] = {{Series::Style::line, "line"},
                                                            {Series::Style::dashed, "dashed"},
                                                            {Series::Style::points, "points"},
                                                            {Series::Style::bars, "bars"}};

Json series_json(const Series& series) {
    Json json = {{"name", series.name}, {"x", numbers_json(series.x)}, {"y", numbers_json(series.y)}};
    add(json, "low", series.low);
    add(json, "high", series.high);
    for (const auto& [style, word] : styles) {
        if (style == series.style) json["style"] = word;
    }
    add(json, "note", series.note);
    return json;
}

Series series_from(const Json& json, const std::string& what) {
    const Reader reader(json, what);
    Series series{.name = reader.text("name"),
                  .x = reader.numbers("x"),
                  .y = reader.numbers("y"),
                  .low = reader.numbers("low"),
                  .high = reader.numbers("high"),
                  .note = reader.text_or_empty("note")};
    const std::string wanted = reader.has("style") ? reader.text("style") : "line";
    bool known = false;
    for (const auto& [style, word] : styles) {
        if (wanted != word) continue;
        series.style = style;
        known = true;
    }
    if (!known) reader.fail("has the unknown style '" + wanted + "'");
    return series;
}

Json grid_json(const Grid& grid) {
    Json json = Json::object();
    add(json, "row_names", grid.row_names);
    add(json, "column_names", grid.column_names);
    add(json, "rows", grid.rows);
    add(json, "columns", grid.columns);
    json["values"] = Json::array();
    for (const auto& row : grid.values) json["values"].push_back(numbers_json(row));
    json["label"] = grid.label;
    add(json, "contours", grid.contours);
    for (const auto& mark : grid.marks)
        json["marks"].push_back({{"name", mark.name},
                                 {"x", numbers_json({mark.x}).front()},
                                 {"y", numbers_json({mark.y}).front()}});
    return json;
}

Grid grid_from(const Json& json, const std::string& what) {
    const Reader reader(json, what);
    Grid grid{.row_names = reader.texts("row_names"),
              .column_names = reader.texts("column_names"),
              .rows = reader.numbers("rows"),
              .columns = reader.numbers("columns"),
              .values = {},
              .label = reader.text_or_empty("label"),
              .contours = reader.numbers("contours")};
    for (const Json& row : reader.list("values")) grid.values.push_back(reader.numbers(row, "values"));
    for (const Json& mark : reader.list("marks")) {
        const Reader one(mark, what + ": a mark");
        grid.marks.push_back({one.text("name"), one.number("x"), one.number("y")});
    }
    return grid;
}

}  // namespace

Json to_json(const Figure& figure) {
    Json json = {{"name", figure.name}, {"title", figure.title}};
    add(json, "caption", figure.caption);
    json["x"] = axis_json(figure.x);
    json["y"] = axis_json(figure.y);
    add(json, "categories", figure.categories);
    for (const auto& series : figure.series) json["series"].push_back(series_json(series));
    if (figure.grid) json["grid"] = grid_json(*figure.grid);
    if (figure.stacked) json["stacked"] = true;
    return json;
}

Figure figure_from_json(const Json& json) {
    const Reader reader(json, "the figure");
    const std::string what = "the figure '" + reader.text("name") + "'";
    Figure figure{.name = reader.text("name"),
                  .title = reader.text_or_empty("title"),
                  .caption = reader.text_or_empty("caption"),
                  .categories = reader.texts("categories")};
    if (reader.has("x")) figure.x = axis_from(json["x"], what + ": its x");
    if (reader.has("y")) figure.y = axis_from(json["y"], what + ": its y");
    for (const Json& series : reader.list("series"))
        figure.series.push_back(series_from(series, what + ": a series"));
    if (reader.has("grid")) figure.grid = grid_from(json["grid"], what + ": its grid");
    figure.stacked = reader.flag("stacked");
    return figure;
}

Json to_json(const TextTable& table) {
    Json json = {{"name", table.name}, {"title", table.title}};
    add(json, "caption", table.caption);
    json["columns"] = table.columns;
    json["rows"] = table.rows;
    return json;
}

TextTable table_from_json(const Json& json) {
    const Reader reader(json, "the table");
    TextTable table{.name = reader.text("name"),
                    .title = reader.text_or_empty("title"),
                    .caption = reader.text_or_empty("caption"),
                    .columns = reader.texts("columns"),
                    .rows = {}};
    for (const Json& row : reader.list("rows")) table.rows.push_back(reader.texts(row, "rows"));
    return table;
}

Json to_json(const Document& document) {
    Json json = {{"kind", document.kind}, {"title", document.title}};
    add(json, "summary", document.summary);
    json["facts"] = document.facts;
    json["sections"] = Json::array();
    for (const auto& section : document.sections) {
        Json item = {{"title", section.title}};
        add(item, "paragraphs", section.paragraphs);
        for (const auto& figure : section.figures) item["figures"].push_back(to_json(figure));
        for (const auto& table : section.tables) item["tables"].push_back(to_json(table));
        add(item, "code", section.code);
        if (section.folded) item["folded"] = true;
        json["sections"].push_back(std::move(item));
    }
    return json;
}

Document document_from_json(const Json& json) {
    const Reader reader(json, "the result");
    Document document{.kind = reader.text("kind"),
                      .title = reader.text("title"),
                      .summary = reader.text_or_empty("summary")};
    if (reader.has("facts")) {
        document.facts = json["facts"];
        if (!document.facts.is_object()) reader.fail("has `facts` that are no object");
    }
    for (const Json& item : reader.list("sections")) {
        const Reader section(item, "a section of the result");
        Section read{.title = section.text_or_empty("title"),
                     .paragraphs = section.texts("paragraphs"),
                     .code = section.text_or_empty("code"),
                     .folded = section.flag("folded")};
        for (const Json& figure : section.list("figures")) read.figures.push_back(figure_from_json(figure));
        for (const Json& table : section.list("tables")) read.tables.push_back(table_from_json(table));
        document.sections.push_back(std::move(read));
    }
    return document;
}

}  // namespace thalweg::report
