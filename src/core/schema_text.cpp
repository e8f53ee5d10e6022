// The words of options: what they expect, a value they would take.
#include "schema_text.hpp"

#include <algorithm>
#include <cmath>

#include "thalweg/core/registry.hpp"
#include "thalweg/core/text.hpp"

namespace thalweg::core {
namespace {

std::string article(const std::string& word) {
    return (std::string("aeiou").find(word[0]) == std::string::npos ? "a " : "an ") + word;
}

std::string type_text(const Option& option) {
    switch (option.type) {
        case Option::Type::boolean:
            return "true or false";
        case Option::Type::integer:
            return "integer";
        case Option::Type::number:
            return "number";
        case Option::Type::text:
            return "text";
        case Option::Type::choice:
            return "one of " + join(option.choices);
        case Option::Type::integers:
            return "list of integers";
        case Option::Type::numbers:
            return "list of numbers";
        case Option::Type::texts:
            return "list of texts";
        case Option::Type::object:
            return "map";
        case Option::Type::objects:
            return "list of maps";
        case Option::Type::plugin:
            return option.plugin_kind;
        case Option::Type::plugins:
            return "list of " + option.plugin_kind + "s";
    }
    return {};
}

/// A number inside the range, a whole one where there is one.
double number_inside(const Option& option) {
    const double first = option.low_open ? std::floor(option.low) + 1 : std::ceil(option.low);
    const double last = option.high_open ? std::ceil(option.high) - 1 : std::floor(option.high);
    if (std::isfinite(first) && first <= last) return first;
    if (std::isfinite(first)) return (option.low + option.high) / 2;
    return std::isfinite(last) ? last : 1;
}

std::string object_example(const std::vector<Option>& fields) {
    std::vector<std::string> parts;
    for (const auto& field : fields) {
        if (!field.fallback && !field.nullable) parts.push_back(field.name + ": " + example(field));
    }
    return "{" + join(parts) + "}";
}

std::string plugin_example(const std::string& kind, const std::string& selector) {
    const auto plugins = plugins_of(kind);
    if (plugins.empty()) return "name";
    const std::string options = object_example(plugins.front().options.options());
    const std::string& name = plugins.front().name;
    return options == "{}" ? name : "{" + selector + ": " + name + ", " + options.substr(1);
}

}  // namespace

std::string describe_found(const Value& value) {
    switch (value.kind()) {
        case Value::Kind::null:
            return "nothing (null)";
        case Value::Kind::list:
            return value.items().empty() ? "an empty list"
                                         : "a list of " + std::to_string(value.items().size()) +
                                               (value.items().size() == 1 ? " item" : " items");
        case Value::Kind::map:
            return value.fields().empty() ? "an empty map"
                                          : "a map with the key '" + value.fields()[0].first + "'";
        case Value::Kind::scalar:
            break;
    }
    const std::string& text = value.as_text();
    const std::string shown = text.size() <= 60 ? text : text.substr(0, 57) + "...";
    return (value.quoted() ? "the quoted text '" : "'") + shown + "'";
}

std::string range_text(const Option& option) {
    std::string text;
    if (std::isfinite(option.low)) text = (option.low_open ? "> " : ">= ") + Value::of(option.low).as_text();
    if (std::isfinite(option.high)) {
        text += std::string(text.empty() ? "" : " and ") + (option.high_open ? "< " : "<= ") +
                Value::of(option.high).as_text();
    }
    return text;
}

std::string Option::describe() const {
    std::string description = type_text(*this);
    const std::string range = range_text(*this);
    if (!range.empty()) description += " " + range;
    if (min_items > 0) {
        description += ", at least " + std::to_string(min_items) + (min_items == 1 ? " item" : " items");
    }
    if (fallback) {
        description += ", default " + (fallback->empty() ? "\"\"" : *fallback);
        if (nullable) description += ", or null";
    } else {
        description += nullable ? ", optional" : ", required";
    }
    return description;
}

std::string example(const Option& option) {
    const double inside = number_inside(option);
    const std::size_t items = std::max<std::size_t>(option.min_items, 1);
    switch (option.type) {
        case Option::Type::boolean:
            return "true";
        case Option::Type::integer:
        case Option::Type::number:
            return Value::of(inside).as_text();
        case Option::Type::text:
            return "some text";
        case Option::Type::choice:
            return option.choices.empty() ? "name" : option.choices.front();
        case Option::Type::integers:
        case Option::Type::numbers:
            return "[" + join(std::vector<std::string>(items, Value::of(inside).as_text())) + "]";
        case Option::Type::texts:
            return "[" + join(std::vector<std::string>(items, "name")) + "]";
        case Option::Type::object:
            return object_example(option.fields);
        case Option::Type::objects:
            return "[" + object_example(option.fields) + "]";
        case Option::Type::plugin:
            return plugin_example(option.plugin_kind, option.selector);
        case Option::Type::plugins:
            return "[" + plugin_example(option.plugin_kind, option.selector) + "]";
    }
    return {};
}

std::vector<std::string> plugin_names(const std::string& kind) {
    std::vector<std::string> names;
    for (const auto& info : plugins_of(kind)) names.push_back(info.name);
    return names;
}

void reject_type(const Option& option, const Value& given) {
    const bool takes_any = option.type == Option::Type::boolean || option.type == Option::Type::choice;
    const std::string what = takes_any ? type_text(option) : article(type_text(option));
    const std::string range = range_text(option);
    given.reject("expected " + what + (range.empty() ? "" : " " + range) + ", but found " +
                 describe_found(given) + "; for example `" + option.name + ": " + example(option) + "`");
}

void reject_plugin_type(const std::string& kind, const std::string& selector, const Value& given) {
    given.reject("expected " + article(kind) + ": its name, or a map {" + selector +
                 ": name, option: value}, but found " + describe_found(given) +
                 ". Valid names: " + join(plugin_names(kind)));
}

}  // namespace thalweg::core
