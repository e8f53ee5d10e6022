#include <torch/types.h>

#include <string>
#include <utility>
#include <vector>

#include "thalweg/aggregator/stage.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/schema.hpp"

namespace thalweg::aggregator {

namespace {

std::string trimmed(const std::string& text) {
    const auto first = text.find_first_not_of(" \t\n");
    if (first == std::string::npos) return {};
    return text.substr(first, text.find_last_not_of(" \t\n") - first + 1);
}

/// Splits at `separator` outside parentheses, brackets and braces.
std::vector<std::string> split(const std::string& text, char separator) {
    std::vector<std::string> parts(1);
    int depth = 0;
    for (const char c : text) {
        if (c == '(' || c == '[' || c == '{') ++depth;
        if (c == ')' || c == ']' || c == '}') --depth;
        if (depth < 0) throw core::UsageError("a closing bracket stands where none is open");
        if (c == separator && depth == 0) {
            parts.emplace_back();
        } else {
            parts.back() += c;
        }
    }
    if (depth != 0) throw core::UsageError("a bracket is not closed");
    for (auto& part : parts) part = trimmed(part);
    return parts;
}

/// `elect` or `[1, 2]`, without the place in this one-line text, which would only puzzle.
core::Value value_of(const std::string& text) {
    core::Value value = core::parse_yaml(text, "pipeline");
    value.place_like(core::Value(), true);
    return value;
}

core::Value stage_of(const std::string& text) {
    const auto open = text.find('(');
    const std::string name = trimmed(text.substr(0, open));
    if (name.empty()) throw core::UsageError("a stage has no name");
    core::Value stage = core::Value::map();
    stage.set("kind", core::Value::scalar(name, true));
    if (open == std::string::npos) return stage;
    if (text.back() != ')') throw core::UsageError("'" + text + "' goes on after its closing parenthesis");
    const std::string inside = trimmed(text.substr(open + 1, text.size() - open - 2));
    if (inside.empty()) return stage;
    for (const std::string& setting : split(inside, ',')) {
        const auto equals = setting.find('=');
        const std::string key = trimmed(setting.substr(0, equals));
        const std::string value = equals == std::string::npos ? "" : trimmed(setting.substr(equals + 1));
        if (key.empty() || value.empty()) {
            throw core::UsageError("'" + setting + "' is no option of the form key=value");
        }
        if (stage.find(key) != nullptr) throw core::UsageError("the option '" + key + "' is given twice");
        stage.set(key, value_of(value));
    }
    return stage;
}

}  // namespace

core::Value parse_stage(const std::string& text) {
    return core::resolve_plugin("stage", "kind", stage_of(trimmed(text)), "stage");
}

Pipeline Pipeline::parse(const std::string& text) {
    try {
        core::Value stages = core::Value::list();
        for (const std::string& part : split(text, '+')) stages.items().push_back(stage_of(part));
        stages.set_path("pipeline");
        for (core::Value& stage : stages.items()) {
            stage = core::resolve_plugin("stage", "kind", stage, stage.path());
        }
        stages.set_path("pipeline");
        return Pipeline(stages);
    } catch (const core::UsageError& error) {
        throw core::UsageError(std::string(error.what()) + " (in the pipeline '" + text +
                               "'; its form is weight_matching+mean+repair, with options as in "
                               "mean(weights=uniform))");
    }
}

}  // namespace thalweg::aggregator
