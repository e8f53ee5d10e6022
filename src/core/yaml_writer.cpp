// Writes configurations; independent of yaml-cpp's emitter, so that the same value gives the same text everywhere.
#include <algorithm>
#include <cstdio>
#include <string_view>

#include "thalweg/core/value.hpp"
#include "yaml.hpp"

namespace thalweg::core {
namespace {

constexpr std::size_t line_length = 100;

bool is_alphanumeric(char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/// Far fewer texts than YAML allows without quotes: those that no reader can misunderstand, in block and flow style.
bool is_plain(const std::string& text) {
    if (text.empty() || text.front() == ' ' || text.back() == ' ') return false;
    const auto starts_well = [](char c) {
        return is_alphanumeric(c) || c == '_' || c == '/' || c == '.' ||
               static_cast<unsigned char>(c) >= 0x80;
    };
    const bool is_signed =
        text.size() > 1 && (text[0] == '-' || text[0] == '+') && (is_alphanumeric(text[1]) || text[1] == '.');
    if (!starts_well(text[0]) && !is_signed) return false;
    // The first would end the document; the second is dropped at the start of a text.
    if (text.starts_with("...") || text.starts_with("\xEF\xBB\xBF")) return false;
    return std::all_of(text.begin(), text.end(), [](char c) {
        return is_alphanumeric(c) || static_cast<unsigned char>(c) >= 0x80 ||
               std::string_view("_-+./() ").find(c) != std::string_view::npos;
    });
}

std::string quoted(const std::string& text) {
    std::string all = "\"";
    for (const char c : text) {
        const auto code = static_cast<unsigned char>(c);
        if (c == '"' || c == '\\') {
            all += '\\';
            all += c;
        } else if (c == '\n') {
            all += "\\n";
        } else if (c == '\t') {
            all += "\\t";
        } else if (code < 0x20 || code == 0x7f) {
            char escape[8];
            std::snprintf(escape, sizeof escape, "\\x%02x", static_cast<unsigned>(code));
            all += escape;
        } else {
            all += c;
        }
    }
    return all + "\"";
}

bool is_null_word(const std::string& text) {
    return text == "~" || text == "null" || text == "Null" || text == "NULL";
}

std::string scalar_text(const Value& value) {
    if (value.is_null()) return "null";
    const std::string& text = value.as_text();
    const bool misread = is_null_word(text) || (value.quoted() && reads_as_other_than_text(text));
    return is_plain(text) && !misread ? text : quoted(text);
}

std::string key_text(const std::string& key) {
    return is_plain(key) && !reads_as_other_than_text(key) ? key : quoted(key);
}

/// Nothing but scalars, lists of such, and one map around them.
bool is_flat(const Value& value, bool map_allowed = true) {
    if (value.is_map() && !map_allowed && !value.fields().empty()) return false;
    const auto flat = [](const Value& item) { return is_flat(item, false); };
    return std::all_of(value.items().begin(), value.items().end(), flat) &&
           std::all_of(value.fields().begin(), value.fields().end(),
                       [&](const auto& field) { return flat(field.second); });
}

class BlockWriter {
  public:
    std::string text;

    /// `value` after `key:` or at the top; `level` counts the maps and lists around it.
    void write(const Value& value, std::size_t indent, int level) {
        for (const auto& [key, item] : value.fields()) {
            begin_line(indent);
            text += key_text(key) + ":";
            write_item(item, indent, level, false);
        }
        for (const auto& item : value.items()) {
            begin_line(indent);
            text += "-";
            write_item(item, indent, level, true);
        }
    }

  private:
    void write_item(const Value& item, std::size_t indent, int level, bool in_list) {
        const bool is_container = item.is_list() || item.is_map();
        const bool shallow_map = item.is_map() && !item.fields().empty() && level < 1;
        const bool one_line = !is_container || (is_flat(item) && !shallow_map);
        if (one_line) {
            const std::string flow = to_flow(item);
            const bool is_empty = item.items().empty() && item.fields().empty();
            if (is_empty || column() + 1 + flow.size() <= line_length) {
                text += " " + flow + "\n";
                return;
            }
        }
        if (in_list && item.is_map()) {
            text += " ";
            same_line_ = true;  // the first key stands beside the dash
        } else {
            text += "\n";
        }
        write(item, indent + 2, level + 1);
    }

    void begin_line(std::size_t indent) {
        if (!same_line_) text.append(indent, ' ');
        same_line_ = false;
    }

    std::size_t column() const {
        const auto line = text.rfind('\n');
        return text.size() - (line == std::string::npos ? 0 : line + 1);
    }

    bool same_line_ = false;
};

}  // namespace

std::string to_flow(const Value& value) {
    std::string text;
    if (value.is_list()) {
        for (const auto& item : value.items()) text += (text.empty() ? "" : ", ") + to_flow(item);
        return "[" + text + "]";
    }
    if (value.is_map()) {
        for (const auto& [key, item] : value.fields()) {
            text += (text.empty() ? "" : ", ") + key_text(key) + ": " + to_flow(item);
        }
        return "{" + text + "}";
    }
    return scalar_text(value);
}

std::string to_yaml(const Value& value) {
    if (value.items().empty() && value.fields().empty()) return to_flow(value) + "\n";
    BlockWriter writer;
    writer.write(value, 0, 0);
    return writer.text;
}

}  // namespace thalweg::core
