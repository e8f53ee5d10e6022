#include "thalweg/core/registry.hpp"

#include <cstdio>

namespace thalweg::core {
namespace {

// Inside a function: registrations run before main, in no particular order.
std::map<std::string, std::map<std::string, PluginInfo>>& registered() {
    static std::map<std::string, std::map<std::string, PluginInfo>> by_kind;
    return by_kind;
}

}  // namespace

std::vector<std::string> plugin_kinds() {
    std::vector<std::string> kinds;
    for (const auto& [kind, plugins] : registered()) kinds.push_back(kind);
    return kinds;
}

std::vector<PluginInfo> plugins_of(const std::string& kind) {
    std::vector<PluginInfo> plugins;
    const auto found = registered().find(kind);
    if (found == registered().end()) return plugins;
    for (const auto& [name, info] : found->second) plugins.push_back(info);
    return plugins;
}

const PluginInfo* find_plugin(const std::string& kind, const std::string& name) {
    const auto plugins = registered().find(kind);
    if (plugins == registered().end()) return nullptr;
    const auto found = plugins->second.find(name);
    return found == plugins->second.end() ? nullptr : &found->second;
}

void register_plugin(PluginInfo info) {
    auto& plugins = registered()[info.kind];
    if (plugins.contains(info.name)) {
        const std::string message = "the " + info.kind + " '" + info.name + "' is registered twice";
        // During static initialisation nobody catches this, and terminate() alone would not say which.
        std::fprintf(stderr, "thalweg: %s\n", message.c_str());
        throw std::logic_error(message);
    }
    const std::string name = info.name;
    plugins.emplace(name, std::move(info));
}

}  // namespace thalweg::core
