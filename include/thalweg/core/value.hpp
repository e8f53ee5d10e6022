#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace thalweg::core {

/// A piece of a configuration: a null, a scalar, a list or a map that keeps the order it was written in, with the place
/// it was written at and its full path (`server.fusion[2].mode`), so that whoever finds fault with it later can say
/// where it is. Plain data, free of yaml-cpp. Scalars are text; the typed getters parse them.
class Value {
  public:
    enum class Kind { null, scalar, list, map };

    Value() = default;
    /// A scalar from the program's own text is read like one from a file: `quoted` keeps `5` or `yes` a text.
    static Value scalar(std::string text, bool quoted = false);
    static Value of(bool value);
    static Value of(std::int64_t value);
    static Value of(int value) { return of(static_cast<std::int64_t>(value)); }
    static Value of(double value);  ///< shortest text that reads back as the same double
    static Value of(const char* text) { return scalar(text); }
    static Value of(std::string text) { return scalar(std::move(text)); }
    static Value of(const std::vector<std::int64_t>& values);
    static Value list(std::vector<Value> items = {});
    static Value map(std::vector<std::pair<std::string, Value>> items = {});

    Kind kind() const { return kind_; }
    bool is_null() const { return kind_ == Kind::null; }
    bool is_scalar() const { return kind_ == Kind::scalar; }
    bool is_list() const { return kind_ == Kind::list; }
    bool is_map() const { return kind_ == Kind::map; }
    bool quoted() const { return quoted_; }

    /// The typed getters throw UsageError (with place and path) when the text is not of that type.
    bool as_bool() const;
    std::int64_t as_int() const;
    double as_number() const;
    const std::string& as_text() const;
    std::vector<std::int64_t> as_ints() const;
    std::vector<double> as_numbers() const;

    /// List items (empty unless a list) and map items in order (empty unless a map).
    const std::vector<Value>& items() const { return items_; }
    std::vector<Value>& items() { return items_; }
    const std::vector<std::pair<std::string, Value>>& fields() const { return fields_; }
    std::vector<std::pair<std::string, Value>>& fields() { return fields_; }

    /// The field's value or nullptr.
    const Value* find(std::string_view key) const;
    Value* find(std::string_view key);
    /// The field's value; std::logic_error when there is none (validation has filled every default in, so a missing
    /// key is a mistake in the program, not in the configuration).
    const Value& operator[](std::string_view key) const;
    /// True when the field is there and not null.
    bool has(std::string_view key) const;
    /// Adds or replaces a field.
    void set(std::string key, Value value);

    /// Where it was written; empty file and line 0 when the program made it. A map's field stands where its key
    /// does, a list's item where it begins itself. A default that resolve() filled in stands where the map does that
    /// lacks it, so that complaints about it lead somewhere.
    const std::string& path() const { return path_; }
    const std::string& file() const;
    int line() const { return line_; }
    int column() const { return column_; }
    void place(std::shared_ptr<const std::string> file, int line, int column);
    /// Takes the place (not the path) of `other`; with `below`, for everything below this value as well.
    void place_like(const Value& other, bool below = false);
    /// Sets this value's path and those of everything below it.
    void set_path(std::string path);

    /// `configs/x.yaml:12:5: data.partition.alpha` — as much of it as is known.
    std::string where() const;
    /// Throws UsageError("<where>: <message>").
    [[noreturn]] void reject(const std::string& message) const;

  private:
    Kind kind_ = Kind::null;
    bool quoted_ = false;
    std::string text_;
    std::vector<Value> items_;
    std::vector<std::pair<std::string, Value>> fields_;
    std::string path_;
    std::shared_ptr<const std::string> file_;
    int line_ = 0;
    int column_ = 0;
};

/// Equal in kind, text and structure (the order of a map's fields included); places, paths and quotes do not count.
bool operator==(const Value& a, const Value& b);

/// Reads YAML. `name` stands in messages for the file. A syntax error, a duplicate key, an anchor or a tag is a
/// UsageError with line and column. Input over 1 MiB or nested deeper than 64 is refused.
Value parse_yaml(const std::string& text, const std::string& name);
/// Reads a YAML file; UsageError names the file when it cannot be read.
Value read_yaml(const std::string& path);
/// Block-style YAML that parse_yaml reads back as an equal Value; maps of scalars below the second level are written
/// in flow style.
std::string to_yaml(const Value& value);
/// One line of flow-style YAML: `{kind: mlp, hidden: [200, 200]}`.
std::string to_flow(const Value& value);

/// Sets `a.b.c` (list items as `a[1]` or `a.1`) to the YAML text `value`, as on the command line `a.b.c=value`.
void apply_override(Value& root, const std::string& assignment);
/// The same with an assignment that stands in a configuration: complaints lead to its place.
void apply_override(Value& root, const Value& assignment);

/// The lines in which two resolved configurations differ: `key.path: old → new`.
std::vector<std::string> differences(const Value& before, const Value& after);

}  // namespace thalweg::core
