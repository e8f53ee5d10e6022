#pragma once

#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "thalweg/core/schema.hpp"

namespace thalweg::core {

/// What a plug-in states about itself, once, in the file that implements it.
struct PluginInfo {
    std::string kind;  ///< `dataset`, `partitioner`, `model`, `algorithm`, `objective`, `stage`, `sampler`, …
    std::string name;      ///< as written in configurations
    std::string help;      ///< one line
    std::string citation;  ///< source, or empty
    Schema options;
    std::string cost{};  ///< of a stage: its complexity, `O(K · d)`
};

/// The kinds and plug-ins known to this program, sorted by name.
std::vector<std::string> plugin_kinds();
std::vector<PluginInfo> plugins_of(const std::string& kind);
/// nullptr when there is none.
const PluginInfo* find_plugin(const std::string& kind, const std::string& name);
/// Registers; std::logic_error when (kind, name) is taken, so a duplicate cannot go unnoticed.
void register_plugin(PluginInfo info);

/// The factories of one interface. `Product` is what a plug-in makes, `Args` what it needs beside its options. One
/// kind name per Product type.
template <class Product, class... Args>
class Registry {
  public:
    using Factory = std::function<Product(const Value& options, Args... args)>;

    static std::map<std::string, Factory>& factories() {
        static std::map<std::string, Factory> map;
        return map;
    }

    /// `options` is resolved, i.e. has every option of the plug-in's schema and its name under `selector`.
    static Product make(const Value& options, Args... args, const std::string& selector = "kind") {
        const auto found = factories().find(options[selector].as_text());
        if (found == factories().end())
            throw std::logic_error("no factory for " + options[selector].as_text());
        return found->second(options, static_cast<Args>(args)...);
    }
};

/// A file-level constant of this type registers a plug-in:
///
///     const Registration<std::unique_ptr<Stage>> registration{{.kind = "stage", .name = "mean", …}, factory};
template <class Product, class... Args>
struct Registration {
    Registration(PluginInfo info, typename Registry<Product, Args...>::Factory factory) {
        const std::string name = info.name;
        register_plugin(std::move(info));  // first: a duplicate must not replace the other's factory
        Registry<Product, Args...>::factories()[name] = std::move(factory);
    }
};

}  // namespace thalweg::core
