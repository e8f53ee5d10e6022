#pragma once

#include <string>
#include <vector>

#include "thalweg/core/schema.hpp"

namespace thalweg::core {

/// What stands there: `'abc'`, `a list of 3 items`, `nothing (null)`.
std::string describe_found(const Value& value);

/// `> 0 and <= 1`, or nothing.
std::string range_text(const Option& option);

/// A value that the option would take, as YAML.
std::string example(const Option& option);

std::vector<std::string> plugin_names(const std::string& kind);

/// "expected a list of integers, but found …"
[[noreturn]] void reject_type(const Option& option, const Value& given);
[[noreturn]] void reject_plugin_type(const std::string& kind, const std::string& selector,
                                     const Value& given);

}  // namespace thalweg::core
