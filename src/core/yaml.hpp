#pragma once

#include <string>

#include "thalweg/core/value.hpp"

namespace thalweg::core {

/// Like parse_yaml, but a text without content is a null: the right-hand side of an override, an option's default.
Value parse_yaml_value(const std::string& text, const std::string& name);

/// True when YAML reads this plain (unquoted) text as something else than a text: a number, a boolean, a null.
bool reads_as_other_than_text(const std::string& text);

}  // namespace thalweg::core
