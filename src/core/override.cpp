// Changes to a configuration from the command line, and the differences between two.
#include <algorithm>
#include <memory>

#include "thalweg/core/error.hpp"
#include "thalweg/core/text.hpp"
#include "thalweg/core/value.hpp"
#include "yaml.hpp"

namespace thalweg::core {
namespace {

[[noreturn]] void refuse(const Value& assignment, const std::string& message) {
    assignment.reject("'" + assignment.as_text() + "': " + message);
}

struct Step {
    std::string name;
    bool is_index;  // written in brackets
};

bool is_digits(const std::string& text) {
    return !text.empty() && text.find_first_not_of("0123456789") == std::string::npos;
}

/// `a.b[1].c` → a, b, [1], c.
std::vector<Step> split_path(const std::string& path, const Value& assignment) {
    std::vector<Step> steps{{"", false}};
    for (std::size_t i = 0; i < path.size(); ++i) {
        if (path[i] == '.') {
            steps.push_back({"", false});
        } else if (path[i] == '[') {
            const auto end = path.find(']', i);
            const std::string index = end == std::string::npos ? "" : path.substr(i + 1, end - i - 1);
            if (!is_digits(index)) refuse(assignment, "brackets hold the number of a list item, as in a[0]");
            steps.push_back({index, true});
            i = end;
        } else if (steps.back().is_index) {
            refuse(assignment, "after a bracket a dot must follow, as in a[0].b");
        } else {
            steps.back().name += path[i];
        }
    }
    for (const auto& step : steps) {
        if (step.name.empty()) refuse(assignment, "a key is empty; write key.path=value");
    }
    if (steps.size() > 64) refuse(assignment, "nested deeper than 64 levels");  // as in a file
    return steps;
}

Value* list_item(Value& list, const std::string& step, const std::string& path, const Value& assignment) {
    const std::size_t size = list.items().size();
    if (!is_digits(step) || step.size() > 9 || std::stoul(step) >= size) {
        refuse(assignment, "'" + path + "' is a list of " + std::to_string(size) +
                               " items, there is no item '" + step + "'" +
                               (size > 0 ? "; they are numbered from 0 to " + std::to_string(size - 1) : ""));
    }
    return &list.items()[std::stoul(step)];
}

/// One step down; maps that are not there yet are made.
Value* descend(Value& at, const Step& step, const std::string& walked, const Value& assignment) {
    if (at.is_list()) return list_item(at, step.name, walked, assignment);
    if (at.is_scalar()) {
        refuse(assignment, "'" + walked + "' is '" + at.as_text() + "', which has no keys below it");
    }
    if (step.is_index) refuse(assignment, "'" + walked + "' is not a list");
    if (at.find(step.name) == nullptr) {
        Value fresh;
        fresh.place_like(assignment);
        at.set(step.name, std::move(fresh));
    }
    return at.find(step.name);
}

void compare(const std::string& path, const Value* before, const Value* after,
             std::vector<std::string>& lines) {
    if (before != nullptr && after != nullptr) {
        if (*before == *after) return;
        const auto child = [&](const std::string& key) { return path.empty() ? key : path + "." + key; };
        if (before->is_map() && after->is_map()) {
            for (const auto& [key, value] : before->fields())
                compare(child(key), &value, after->find(key), lines);
            for (const auto& [key, value] : after->fields()) {
                if (before->find(key) == nullptr) compare(child(key), nullptr, &value, lines);
            }
            return;
        }
        const auto holds_maps = [](const Value& list) {
            return std::any_of(list.items().begin(), list.items().end(),
                               [](const Value& v) { return v.is_map(); });
        };
        if (before->is_list() && after->is_list() && (holds_maps(*before) || holds_maps(*after))) {
            const std::size_t count = std::max(before->items().size(), after->items().size());
            for (std::size_t i = 0; i < count; ++i) {
                compare(path + "[" + std::to_string(i) + "]",
                        i < before->items().size() ? &before->items()[i] : nullptr,
                        i < after->items().size() ? &after->items()[i] : nullptr, lines);
            }
            return;
        }
    }
    const auto shown = [](const Value* value) { return value == nullptr ? "(absent)" : to_flow(*value); };
    lines.push_back((path.empty() ? "" : path + ": ") + shown(before) + " → " + shown(after));
}

}  // namespace

void apply_override(Value& root, const std::string& assignment) {
    Value placed = Value::of(assignment);
    placed.place(std::make_shared<const std::string>("command line"), 0, 0);
    apply_override(root, placed);
}

void apply_override(Value& root, const Value& assignment) {
    const std::string& text = assignment.as_text();
    const auto equals = text.find('=');
    if (equals == std::string::npos) refuse(assignment, "expected key.path=value");
    const std::string path = text.substr(0, equals);
    const auto steps = split_path(path, assignment);
    const std::string place = assignment.where();
    Value value = parse_yaml_value(text.substr(equals + 1), (place.empty() ? "" : place + ": ") + path);
    value.place_like(assignment, true);

    // A copy, so that a refused override leaves the configuration as it was.
    Value changed = root;
    Value* at = &changed;
    std::string walked;
    for (const auto& step : steps) {
        const bool in_list = at->is_list();
        at = descend(*at, step, walked, assignment);
        walked += in_list ? "[" + step.name + "]" : (walked.empty() ? "" : ".") + step.name;
    }
    *at = std::move(value);
    changed.set_path(root.path());
    root = std::move(changed);
}

std::vector<std::string> differences(const Value& before, const Value& after) {
    std::vector<std::string> lines;
    compare("", &before, &after, lines);
    return lines;
}

}  // namespace thalweg::core
