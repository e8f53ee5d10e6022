#include "thalweg/core/value.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <stdexcept>
#include <system_error>

#include "schema_text.hpp"
#include "thalweg/core/error.hpp"
#include "yaml.hpp"

namespace thalweg::core {
namespace {

[[noreturn]] void expected(const Value& value, const std::string& what) {
    value.reject("expected " + what + ", but found " + describe_found(value));
}

enum class Parse { done, malformed, too_large };

Parse read_integer(const std::string& text, std::int64_t& value) {
    const char* begin = text.data();
    const char* const end = begin + text.size();
    if (begin != end && *begin == '+' && text.size() > 1 && text[1] != '-') ++begin;
    const auto [stop, error] = std::from_chars(begin, end, value);
    if (error == std::errc::invalid_argument || stop != end) return Parse::malformed;
    // YAML 1.1 reads 010 as 8, YAML 1.2 as 10: neither can be right for everybody.
    const char* const digits = *begin == '-' ? begin + 1 : begin;
    if (*digits == '0' && end - digits > 1) return Parse::malformed;
    return error == std::errc() ? Parse::done : Parse::too_large;
}

Parse read_number(const std::string& text, double& value) {
    const char* begin = text.data();
    const char* const end = begin + text.size();
    if (begin != end && *begin == '+' && text.size() > 1 && text[1] != '-') ++begin;
    const auto [stop, error] = std::from_chars(begin, end, value, std::chars_format::general);
    if (error == std::errc::invalid_argument || stop != end) return Parse::malformed;
    return error == std::errc() ? Parse::done : Parse::too_large;
}

bool is_one_of(const std::string& text, std::initializer_list<const char*> words) {
    return std::find(words.begin(), words.end(), text) != words.end();
}

bool is_true(const std::string& text) {
    return is_one_of(text, {"true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"});
}

bool is_false(const std::string& text) {
    return is_one_of(text, {"false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"});
}

bool is_not_finite(const std::string& text) {
    std::string word = text;
    if (!word.empty() && (word[0] == '-' || word[0] == '+')) word.erase(0, 1);
    if (!word.empty() && word[0] == '.') word.erase(0, 1);
    std::transform(word.begin(), word.end(), word.begin(),
                   [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
    return is_one_of(word, {"nan", "inf", "infinity"});
}

}  // namespace

bool reads_as_other_than_text(const std::string& text) {
    if (is_true(text) || is_false(text) || is_not_finite(text)) return true;
    if (is_one_of(text, {"", "~", "null", "Null", "NULL"})) return true;
    double number = 0;
    if (read_number(text, number) != Parse::malformed) return true;
    // Other readers of YAML see octal, hexadecimal, dates and sexagesimals: whatever begins like a number and goes on
    // with its characters counts.
    const std::size_t digit = text[0] == '-' || text[0] == '+' || text[0] == '.' ? 1 : 0;
    return digit < text.size() && text[digit] >= '0' && text[digit] <= '9' &&
           text.find_first_not_of("0123456789+-._:eExXoOabcdefABCDEF") == std::string::npos;
}

Value Value::scalar(std::string text, bool quoted) {
    Value value;
    value.kind_ = Kind::scalar;
    value.text_ = std::move(text);
    value.quoted_ = quoted;
    return value;
}

Value Value::of(bool value) {
    return scalar(value ? "true" : "false");
}

Value Value::of(std::int64_t value) {
    return scalar(std::to_string(value));
}

Value Value::of(double value) {
    std::array<char, 32> buffer{};
    const auto result = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value);
    return scalar(std::string(buffer.data(), result.ptr));
}

Value Value::of(const std::vector<std::int64_t>& values) {
    std::vector<Value> items;
    for (const auto value : values) items.push_back(of(value));
    return list(std::move(items));
}

Value Value::list(std::vector<Value> items) {
    Value value;
    value.kind_ = Kind::list;
    value.items_ = std::move(items);
    return value;
}

Value Value::map(std::vector<std::pair<std::string, Value>> items) {
    Value value;
    value.kind_ = Kind::map;
    value.fields_ = std::move(items);
    return value;
}

bool Value::as_bool() const {
    if (is_scalar() && !quoted_) {
        if (is_true(text_)) return true;
        if (is_false(text_)) return false;
    }
    expected(*this, "true or false");
}

std::int64_t Value::as_int() const {
    if (!is_scalar() || quoted_) expected(*this, "an integer");
    std::int64_t value = 0;
    const Parse parse = read_integer(text_, value);
    if (parse == Parse::malformed) expected(*this, "an integer");
    if (parse == Parse::too_large) reject("'" + text_ + "' is beyond the 64-bit integers");
    return value;
}

double Value::as_number() const {
    if (!is_scalar() || quoted_) expected(*this, "a number");
    if (is_not_finite(text_)) expected(*this, "a finite number");
    double value = 0;
    const Parse parse = read_number(text_, value);
    if (parse == Parse::malformed) expected(*this, "a number");
    if (parse == Parse::too_large) reject("'" + text_ + "' is out of the range of double precision");
    return value;
}

const std::string& Value::as_text() const {
    if (!is_scalar()) expected(*this, "a text");
    return text_;
}

std::vector<std::int64_t> Value::as_ints() const {
    if (!is_list()) expected(*this, "a list of integers");
    std::vector<std::int64_t> values;
    for (const auto& item : items_) values.push_back(item.as_int());
    return values;
}

std::vector<double> Value::as_numbers() const {
    if (!is_list()) expected(*this, "a list of numbers");
    std::vector<double> values;
    for (const auto& item : items_) values.push_back(item.as_number());
    return values;
}

const Value* Value::find(std::string_view key) const {
    for (const auto& [name, value] : fields_) {
        if (name == key) return &value;
    }
    return nullptr;
}

Value* Value::find(std::string_view key) {
    return const_cast<Value*>(static_cast<const Value*>(this)->find(key));
}

const Value& Value::operator[](std::string_view key) const {
    if (const Value* value = find(key)) return *value;
    throw std::logic_error("no key '" + std::string(key) + "' in the configuration" +
                           (where().empty() ? "" : " at " + where()));
}

bool Value::has(std::string_view key) const {
    const Value* value = find(key);
    return value != nullptr && !value->is_null();
}

void Value::set(std::string key, Value value) {
    if (is_null()) kind_ = Kind::map;
    if (!is_map()) throw std::logic_error("Value::set('" + key + "') on something that is not a map");
    if (Value* old = find(key)) {
        *old = std::move(value);
    } else {
        fields_.emplace_back(std::move(key), std::move(value));
    }
}

const std::string& Value::file() const {
    static const std::string none;
    return file_ ? *file_ : none;
}

void Value::place(std::shared_ptr<const std::string> file, int line, int column) {
    file_ = std::move(file);
    line_ = line;
    column_ = column;
}

void Value::place_like(const Value& other, bool below) {
    place(other.file_, other.line_, other.column_);
    if (!below) return;
    for (auto& item : items_) item.place_like(other, true);
    for (auto& field : fields_) field.second.place_like(other, true);
}

void Value::set_path(std::string path) {
    path_ = std::move(path);
    for (std::size_t i = 0; i < items_.size(); ++i) items_[i].set_path(path_ + "[" + std::to_string(i) + "]");
    for (auto& [name, value] : fields_) value.set_path(path_.empty() ? name : path_ + "." + name);
}

std::string Value::where() const {
    std::string text = file();
    if (line_ > 0) text += ":" + std::to_string(line_) + ":" + std::to_string(column_);
    if (!text.empty() && !path_.empty()) text += ": ";
    return text + path_;
}

void Value::reject(const std::string& message) const {
    const std::string place = where();
    throw UsageError(place.empty() ? message : place + ": " + message);
}

bool operator==(const Value& a, const Value& b) {
    if (a.kind() != b.kind()) return false;
    if (a.is_scalar()) return a.as_text() == b.as_text();
    return a.items() == b.items() && a.fields() == b.fields();
}

}  // namespace thalweg::core
