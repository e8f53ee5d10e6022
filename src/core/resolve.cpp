// Checks a configuration against a schema and fills the defaults in.
#include <algorithm>
#include <cctype>
#include <limits>
#include <stdexcept>

#include "schema_text.hpp"
#include "thalweg/core/registry.hpp"
#include "thalweg/core/schema.hpp"
#include "thalweg/core/text.hpp"
#include "yaml.hpp"

namespace thalweg::core {
namespace {

// Everything below works on values whose paths are set already and keeps places and paths in what it returns.
Value resolve_option(const Option& option, const Value& given);

Value like(Value made, const Value& origin) {
    made.place_like(origin);
    made.set_path(origin.path());
    return made;
}

std::string child_path(const Value& map, const std::string& key) {
    return map.path().empty() ? key : map.path() + "." + key;
}

std::vector<std::string> names_of(const std::vector<Option>& options) {
    std::vector<std::string> names;
    for (const auto& option : options) names.push_back(option.name);
    return names;
}

/// "; did you mean 'alpha'? Valid: …" or "; valid: …".
std::string with_suggestion(const std::string& near, std::string valid) {
    if (near.empty()) return "; " + valid;
    valid[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(valid[0])));
    return "; did you mean '" + near + "'? " + valid;
}

void check_range(const Option& option, double value, const Value& given) {
    const bool above_low = option.low_open ? value > option.low : value >= option.low;
    const bool below_high = option.high_open ? value < option.high : value <= option.high;
    if (above_low && below_high) return;
    given.reject("must be " + range_text(option) + ", but is " + given.as_text());
}

/// Numbers are written anew, so that `0.10` and `0.1` resolve to the same text.
Value resolve_number(const Option& option, const Value& given) {
    const double value = given.as_number();
    check_range(option, value, given);
    return like(Value::of(value), given);
}

Value resolve_integer(const Option& option, const Value& given) {
    const std::int64_t value = given.as_int();
    check_range(option, static_cast<double>(value), given);
    return like(Value::of(value), given);
}

Value resolve_choice(const Option& option, const Value& given) {
    const std::string& word = given.as_text();
    if (std::find(option.choices.begin(), option.choices.end(), word) != option.choices.end()) {
        return like(Value::scalar(word, true), given);
    }
    const std::string near = nearest(word, option.choices);
    given.reject("must be one of " + join(option.choices) + ", but is '" + word + "'" +
                 (near.empty() ? "" : "; did you mean '" + near + "'?"));
}

template <class ResolveItem>
Value resolve_list(const Option& option, const Value& given, const ResolveItem& resolve_item) {
    if (!given.is_list()) reject_type(option, given);
    if (given.items().size() < option.min_items) {
        given.reject("must have at least " + std::to_string(option.min_items) +
                     (option.min_items == 1 ? " item" : " items") + ", but has " +
                     std::to_string(given.items().size()));
    }
    Value list = like(Value::list(), given);
    for (const auto& item : given.items()) list.items().push_back(resolve_item(item));
    return list;
}

void check_keys(const std::vector<Option>& options, const Value& given,
                const std::vector<std::string>& ignore) {
    const auto valid = names_of(options);
    for (const auto& [key, value] : given.fields()) {
        if (std::find(valid.begin(), valid.end(), key) != valid.end()) continue;
        if (std::find(ignore.begin(), ignore.end(), key) != ignore.end()) continue;
        auto all = ignore;
        all.insert(all.end(), valid.begin(), valid.end());
        const std::string near = nearest(key, all);
        const std::string valid_ones =
            all.empty() ? "no keys are allowed here" : "valid keys here: " + join(all);
        value.reject("unknown key '" + key + "'" + with_suggestion(near, valid_ones));
    }
}

[[noreturn]] void reject_missing(const Option& option, const Value& map) {
    Value place = like(Value(), map);
    place.set_path(child_path(map, option.name));
    place.reject("the key '" + option.name + "' is missing; it must be given (" + option.describe() + ": " +
                 option.help + "). For example `" + option.name + ": " + example(option) + "`");
}

Value default_of(const Option& option, const Value& map) {
    const std::string path = child_path(map, option.name);
    const bool is_word = option.type == Option::Type::text || option.type == Option::Type::choice;
    Value given = is_word && option.fallback->empty()
                      ? Value::scalar("", true)
                      : parse_yaml_value(*option.fallback, "default of " + path);
    given.place_like(map, true);
    given.set_path(path);
    return resolve_option(option, given);
}

/// The schema's keys in its order, after those of `ignore` that are there.
Value resolve_map(const std::vector<Option>& options, const Value& given,
                  const std::vector<std::string>& ignore) {
    check_keys(options, given, ignore);
    Value map = like(Value::map(), given);
    for (const auto& key : ignore) {
        if (const Value* value = given.find(key)) map.set(key, *value);
    }
    for (const auto& option : options) {
        const Value* value = given.find(option.name);
        if (value != nullptr && !(value->is_null() && option.nullable)) {
            map.set(option.name, resolve_option(option, *value));
        } else if (value == nullptr && option.fallback) {
            map.set(option.name, default_of(option, given));
        } else if (option.nullable) {
            Value null = like(Value(), value != nullptr ? *value : given);
            null.set_path(child_path(given, option.name));
            map.set(option.name, std::move(null));
        } else {
            reject_missing(option, given);
        }
    }
    return map;
}

Value resolve_object(const Option& option, const Value& given) {
    if (given.is_null()) return resolve_map(option.fields, like(Value::map(), given), {});
    if (!given.is_map()) reject_type(option, given);
    return resolve_map(option.fields, given, {});
}

/// `given` brought into the form {selector: name, option: value…}.
Value with_selector(const std::string& kind, const std::string& selector, const Value& given) {
    if (given.is_scalar()) {  // the name keeps its path: it was not written below the selector
        Value map = like(Value::map(), given);
        map.set(selector, given);
        return map;
    }
    if (!given.is_map() || given.fields().empty()) reject_plugin_type(kind, selector, given);
    if (given.find(selector) != nullptr) return given;
    const auto& [name, options] = given.fields().front();
    if (given.fields().size() == 1 && (options.is_map() || options.is_null())) {
        Value map = like(Value::map(), given);
        map.set(selector, like(Value::scalar(name), options));
        for (const auto& [key, value] : options.fields()) {
            if (key == selector)
                value.reject("the name of the " + kind + " is given twice, '" + name + "' above it");
            map.set(key, value);
        }
        return map;
    }
    if (find_plugin(kind, name) != nullptr) {
        given.reject("the options of '" + name + "' must stand below it: write {" + name +
                     ": {option: value}} or {" + selector + ": " + name + ", option: value}");
    }
    reject_plugin_type(kind, selector, given);
}

Value resolve_plugin_at(const std::string& kind, const std::string& selector, const Value& given) {
    const Value map = with_selector(kind, selector, given);
    const Value& name = map[selector];
    const PluginInfo* info = find_plugin(kind, name.as_text());
    if (info == nullptr) name.reject(unknown_name(kind, name.as_text(), plugin_names(kind)));
    Value resolved = resolve_map(info->options.options(), map, {selector});
    resolved.set(selector, like(Value::scalar(info->name, true), name));
    return resolved;
}

Value resolve_option(const Option& option, const Value& given) {
    if (given.is_null() && option.type != Option::Type::object) reject_type(option, given);
    switch (option.type) {
        case Option::Type::boolean:
            return like(Value::of(given.as_bool()), given);
        case Option::Type::integer:
            return resolve_integer(option, given);
        case Option::Type::number:
            return resolve_number(option, given);
        case Option::Type::text:
            return like(Value::scalar(given.as_text(), true), given);
        case Option::Type::choice:
            return resolve_choice(option, given);
        case Option::Type::integers:
            return resolve_list(option, given,
                                [&](const Value& item) { return resolve_integer(option, item); });
        case Option::Type::numbers:
            return resolve_list(option, given,
                                [&](const Value& item) { return resolve_number(option, item); });
        case Option::Type::texts:
            return resolve_list(option, given, [](const Value& item) {
                return like(Value::scalar(item.as_text(), true), item);
            });
        case Option::Type::object:
            return resolve_object(option, given);
        case Option::Type::objects:
            return resolve_list(option, given,
                                [&](const Value& item) { return resolve_object(option, item); });
        case Option::Type::plugin:
            return resolve_plugin_at(option.plugin_kind, option.selector, given);
        case Option::Type::plugins:
            return resolve_list(option, given, [&](const Value& item) {
                return resolve_plugin_at(option.plugin_kind, option.selector, item);
            });
    }
    throw std::logic_error("an option of no type");
}

}  // namespace

Value resolve(const Schema& schema, const Value& given, const std::string& path,
              const std::vector<std::string>& ignore) {
    Value at = given;
    at.set_path(path);
    if (at.is_null()) at = like(Value::map(), at);
    if (!at.is_map()) {
        at.reject("expected a map with the keys " + join(names_of(schema.options())) + ", but found " +
                  describe_found(at));
    }
    Value resolved = resolve_map(schema.options(), at, ignore);
    resolved.set_path(path);
    return resolved;
}

Value resolve_plugin(const std::string& kind, const std::string& selector, const Value& given,
                     const std::string& path) {
    Value at = given;
    at.set_path(path);
    Value resolved = resolve_plugin_at(kind, selector, at);
    resolved.set_path(path);
    return resolved;
}

Value example_options(const PluginInfo& info, const std::string& selector) {
    Value given = Value::map();
    given.set(selector, Value::scalar(info.name, true));
    for (const auto& option : info.options.options()) {
        if (!option.fallback && !option.nullable)
            given.set(option.name, parse_yaml_value(example(option), "example of " + option.name));
    }
    return resolve_plugin(info.kind, selector, given, info.name);
}

std::string unknown_name(const std::string& what, const std::string& given,
                         const std::vector<std::string>& valid) {
    const std::string near = nearest(given, valid);
    return "unknown " + what + " '" + given + "'" +
           with_suggestion(near, valid.empty() ? "this program has none" : "valid: " + join(valid));
}

}  // namespace thalweg::core
