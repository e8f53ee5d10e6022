#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "thalweg/core/value.hpp"

namespace thalweg::core {

class Schema;

/// One key of a configuration: its type, default, range and help. The statement that drives validation, the resolved
/// configuration, `thalweg list` and the documentation. Made by the functions below and refined by its methods:
///
///     number("lr", "learning rate").above(0).by_default(0.01)
class Option {
  public:
    enum class Type {
        boolean,
        integer,
        number,
        text,
        choice,    ///< one of `choices`
        integers,  ///< list of integers
        numbers,   ///< list of numbers
        texts,     ///< list of texts
        object,    ///< a map with a schema of its own
        objects,   ///< a list of such maps
        plugin,    ///< `name` or `{<selector>: name, option: value…}` of a registered plug-in
        plugins,   ///< a list of `name`, `{name: {option: value…}}` or `{kind: name, …}`
    };

    std::string name;
    Type type = Type::text;
    std::string help;
    std::optional<std::string> fallback;  ///< default, as YAML text; nothing: the key must be given
    bool nullable = false;                ///< may be left out or `null`; then its resolved value is null
    double low = -std::numeric_limits<double>::infinity();
    double high = std::numeric_limits<double>::infinity();
    bool low_open = false;
    bool high_open = false;
    std::vector<std::string> choices;
    std::string plugin_kind;        ///< registry kind: `dataset`, `partitioner`, `model`, …
    std::string selector = "kind";  ///< the key that holds the plug-in's name
    std::size_t min_items = 0;
    std::vector<Option> fields;  ///< of an object

    Option by_default(const std::string& yaml) &&;
    Option by_default(const char* yaml) &&;
    Option by_default(double value) &&;
    Option by_default(int value) &&;
    Option by_default(bool value) &&;
    Option optional() &&;
    Option at_least(double bound) &&;
    Option at_most(double bound) &&;
    Option above(double bound) &&;
    Option below(double bound) &&;
    Option at_least_items(std::size_t count) &&;

    /// `number > 0, default 0.01`
    std::string describe() const;
};

Option boolean(std::string name, std::string help);
Option integer(std::string name, std::string help);
Option number(std::string name, std::string help);
Option text(std::string name, std::string help);
Option choice(std::string name, std::vector<std::string> choices, std::string help);
Option integers(std::string name, std::string help);
Option numbers(std::string name, std::string help);
Option texts(std::string name, std::string help);
Option object(std::string name, std::vector<Option> fields, std::string help);
Option objects(std::string name, std::vector<Option> fields, std::string help);
Option plugin(std::string name, std::string kind, std::string help, std::string selector = "kind");
Option plugins(std::string name, std::string kind, std::string help);

/// An ordered list of options.
class Schema {
  public:
    Schema() = default;
    Schema(std::initializer_list<Option> options) : options_(options) {}
    explicit Schema(std::vector<Option> options) : options_(std::move(options)) {}
    const std::vector<Option>& options() const { return options_; }

  private:
    std::vector<Option> options_;
};

/// Checks `given` (a map, or null for "nothing given") against the schema and returns it with every default filled in,
/// keys in the schema's order, plug-ins in the form `{<selector>: name, option: value…}`. `path` is where it stands
/// (empty for the root). UsageError for the first fault: unknown key (with the nearest valid one and all valid ones),
/// missing key, wrong type, value out of range, unknown plug-in. `ignore`: keys that are passed through unchecked.
Value resolve(const Schema& schema, const Value& given, const std::string& path,
              const std::vector<std::string>& ignore = {});

/// Resolves one plug-in given by name or by map, see Option::Type::plugin.
Value resolve_plugin(const std::string& kind, const std::string& selector, const Value& given,
                     const std::string& path);

struct PluginInfo;
/// A plug-in's options with every default, and what must be given filled with an example of its kind.
Value example_options(const PluginInfo& info, const std::string& selector = "kind");

/// "unknown stage 'weigth_matching'; did you mean 'weight_matching'? Valid: …"
std::string unknown_name(const std::string& what, const std::string& given,
                         const std::vector<std::string>& valid);

}  // namespace thalweg::core
