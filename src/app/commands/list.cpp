#include "../context.hpp"
#include "thalweg/aggregator/stage.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/registry.hpp"

namespace thalweg::app {

namespace {

struct ListArguments {
    std::string kind, name;
    bool json = false;
};

Json option_json(const core::Option& option) {
    return {{"name", option.name},
            {"type", option.describe()},
            {"default", option.fallback ? Json(*option.fallback) : Json()},
            {"required", !option.fallback && !option.nullable},
            {"help", option.help}};
}

/// Of a stage with its default options.
std::vector<std::string> contract(const core::PluginInfo& plugin) {
    if (plugin.kind != "stage") return {};
    return aggregator::contract_of(plugin, core::example_options(plugin));
}

Json plugin_json(const core::PluginInfo& plugin) {
    Json options = Json::array();
    for (const auto& option : plugin.options.options()) options.push_back(option_json(option));
    return {{"kind", plugin.kind},         {"name", plugin.name},          {"help", plugin.help},
            {"citation", plugin.citation}, {"contract", contract(plugin)}, {"options", options}};
}

std::string overview(const std::vector<std::string>& kinds) {
    std::string text;
    for (const auto& kind : kinds) {
        text += kind + "\n";
        for (const auto& plugin : core::plugins_of(kind)) {
            const std::size_t pad = plugin.name.size() < 22 ? 22 - plugin.name.size() : 1;
            text += "  " + plugin.name + std::string(pad, ' ') + plugin.help + "\n";
        }
    }
    return text;
}

std::string details(const core::PluginInfo& plugin) {
    std::string text = plugin.kind + " " + plugin.name + ": " + plugin.help + "\n";
    if (!plugin.citation.empty()) text += "  source: " + plugin.citation + "\n";
    for (const auto& line : contract(plugin)) text += "  " + line + "\n";
    if (plugin.options.options().empty()) text += "  no options\n";
    for (const auto& option : plugin.options.options()) {
        text += "  " + option.name + ": " + option.help + "\n      " + option.describe() + "\n";
    }
    return text;
}

void list(const Context& context, const ListArguments& arguments) {
    const auto all = core::plugin_kinds();
    if (arguments.kind.empty() && !arguments.name.empty()) {
        throw core::UsageError(core::unknown_name("kind of plug-in", arguments.kind, all));
    }
    if (!arguments.kind.empty() && core::plugins_of(arguments.kind).empty()) {
        throw core::UsageError(core::unknown_name("kind of plug-in", arguments.kind, all));
    }
    const auto kinds = arguments.kind.empty() ? all : std::vector{arguments.kind};
    std::vector<core::PluginInfo> chosen;
    for (const auto& kind : kinds) {
        for (auto& plugin : core::plugins_of(kind)) {
            if (arguments.name.empty() || plugin.name == arguments.name) chosen.push_back(std::move(plugin));
        }
    }
    if (chosen.empty()) {
        std::vector<std::string> names;
        for (const auto& plugin : core::plugins_of(arguments.kind)) names.push_back(plugin.name);
        throw core::UsageError(core::unknown_name(arguments.kind, arguments.name, names));
    }
    if (arguments.json) {
        Json json = Json::array();
        for (const auto& plugin : chosen) json.push_back(plugin_json(plugin));
        context.print(json);
    } else if (arguments.kind.empty()) {
        context.print(overview(kinds) + "\nthalweg list KIND NAME shows a plug-in's options.\n");
    } else {
        std::string text;
        for (const auto& plugin : chosen) text += details(plugin) + "\n";
        context.print(text);
    }
}

}  // namespace

void add_list(CLI::App& program, Context& context) {
    auto* command =
        program.add_subcommand("list", "the registered plug-ins with options, defaults and citations");
    auto arguments = std::make_shared<ListArguments>();
    command->add_option("KIND", arguments->kind, "dataset, partitioner, model, stage, …");
    command->add_option("NAME", arguments->name, "one plug-in of that kind");
    command->add_flag("--json", arguments->json, "one JSON document on stdout");
    command->footer("Example:\n  thalweg list stage repair");
    command->callback(
        [&context, arguments] { context.action = [&context, arguments] { list(context, *arguments); }; });
}

}  // namespace thalweg::app
