// How options are stated.
#include "thalweg/core/schema.hpp"

#include <utility>

namespace thalweg::core {
namespace {

Option make(Option::Type type, std::string name, std::string help) {
    Option option;
    option.type = type;
    option.name = std::move(name);
    option.help = std::move(help);
    return option;
}

}  // namespace

Option Option::by_default(const std::string& yaml) && {
    fallback = yaml;
    return std::move(*this);
}
Option Option::by_default(const char* yaml) && {
    return std::move(*this).by_default(std::string(yaml));
}
Option Option::by_default(double value) && {
    return std::move(*this).by_default(Value::of(value).as_text());
}
Option Option::by_default(int value) && {
    return std::move(*this).by_default(Value::of(value).as_text());
}
Option Option::by_default(bool value) && {
    return std::move(*this).by_default(Value::of(value).as_text());
}

Option Option::optional() && {
    nullable = true;
    return std::move(*this);
}
Option Option::at_least(double bound) && {
    low = bound;
    low_open = false;
    return std::move(*this);
}
Option Option::at_most(double bound) && {
    high = bound;
    high_open = false;
    return std::move(*this);
}
Option Option::above(double bound) && {
    low = bound;
    low_open = true;
    return std::move(*this);
}
Option Option::below(double bound) && {
    high = bound;
    high_open = true;
    return std::move(*this);
}
Option Option::at_least_items(std::size_t count) && {
    min_items = count;
    return std::move(*this);
}

Option boolean(std::string name, std::string help) {
    return make(Option::Type::boolean, std::move(name), std::move(help));
}
Option integer(std::string name, std::string help) {
    return make(Option::Type::integer, std::move(name), std::move(help));
}
Option number(std::string name, std::string help) {
    return make(Option::Type::number, std::move(name), std::move(help));
}
Option text(std::string name, std::string help) {
    return make(Option::Type::text, std::move(name), std::move(help));
}
Option choice(std::string name, std::vector<std::string> choices, std::string help) {
    Option option = make(Option::Type::choice, std::move(name), std::move(help));
    option.choices = std::move(choices);
    return option;
}
Option integers(std::string name, std::string help) {
    return make(Option::Type::integers, std::move(name), std::move(help));
}
Option numbers(std::string name, std::string help) {
    return make(Option::Type::numbers, std::move(name), std::move(help));
}

Option texts(std::string name, std::string help) {
    return make(Option::Type::texts, std::move(name), std::move(help));
}
Option object(std::string name, std::vector<Option> fields, std::string help) {
    Option option = make(Option::Type::object, std::move(name), std::move(help));
    option.fields = std::move(fields);
    return option;
}
Option objects(std::string name, std::vector<Option> fields, std::string help) {
    Option option = make(Option::Type::objects, std::move(name), std::move(help));
    option.fields = std::move(fields);
    return option;
}
Option plugin(std::string name, std::string kind, std::string help, std::string selector) {
    Option option = make(Option::Type::plugin, std::move(name), std::move(help));
    option.plugin_kind = std::move(kind);
    option.selector = std::move(selector);
    return option;
}
Option plugins(std::string name, std::string kind, std::string help) {
    Option option = make(Option::Type::plugins, std::move(name), std::move(help));
    option.plugin_kind = std::move(kind);
    return option;
}

}  // namespace thalweg::core
