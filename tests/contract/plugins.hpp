#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <map>
#include <memory>
#include <ostream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "thalweg/core/error.hpp"
#include "thalweg/core/registry.hpp"

/// Everything that is registered of a kind, with options to try it with: what the suites of contract_plugins run over.
/// A new plug-in is tested without a line about it, unless it has options that must be given.
namespace thalweg::testing {

struct PluginCase {
    std::string kind;
    std::string name;
    std::string options;  ///< in YAML, without the name
};

inline void PrintTo(const PluginCase& tested, std::ostream* out) {
    *out << tested.kind << ' ' << tested.name << ' ' << tested.options;
}

/// This folder, with a slash behind it.
inline std::string contract_folder() {
    return std::filesystem::path(__FILE__).parent_path().string() + "/";
}

/// Options by `kind/name`, for plug-ins that the defaults cannot make or do not show at work. An empty list: not tested
/// here, because it needs files that come with no package.
inline const std::map<std::string, std::vector<std::string>>& given_options() {
    static const std::map<std::string, std::vector<std::string>> table{
        {"algorithm/sgd", {"{}", "{momentum: 0.9}", "{momentum: 0.9, nesterov: true, weight_decay: 0.01}"}},
        {"algorithm/adam", {"{}", "{weight_decay: 0.01}"}},
        {"dataset/cifar10", {}},
        {"dataset/cifar100", {}},
        {"dataset/mnist", {}},
        {"dataset/gaussian_mixture",
         {"{classes: 5, dimension: 12, train: 200, test: 60}",
          "{classes: 3, dimension: 12, shape: [3, 2, 2], train: 100, test: 10, seed: 9}",
          "{classes: 3, dimension: 12, shape: [3, 4], train: 100, test: 10}"}},
        {"dataset/synthetic", {"{max_samples: 80}", "{dimension: 5, classes: 3, max_samples: 60, seed: 9}"}},
        {"dataset/text",
         {"{path: '" + contract_folder() + "play.txt', window: 8, stride: 3, min_text: 100}",
          "{path: '" + contract_folder() +
              "play.txt', window: 1, stride: 1, clients_by: speaker, min_text: 200}"}},
        {"model/mlp", {"{hidden: [9, 7]}", "{hidden: [6], norm: layer, activation: tanh}"}},
        {"model/cnn",
         {"{layers: [{conv: 5, kernel: 3, padding: 1}, {pool: 2}, {conv: 4, kernel: 3}, {linear: 8}]}",
          "{layers: [{conv: 5, kernel: 3, stride: 2}, {pool: 2, type: avg}], norm: layer, activation: tanh}",
          "{preset: niid_bench, norm: batch, activation: gelu}"}},
        {"model/densenet", {"{growth: 4, blocks: [2, 2], groups: 2}"}},
        {"model/lstm", {"{embedding: 3, hidden: 5}"}},
        {"model/mobilenet", {"{width: 0.125}"}},
        {"model/resnet", {"{width: 0.25, groups: 2}", "{width: 0.25, shortcut: pad, norm: none}"}},
        {"model/torchscript", {}},
        {"model/transformer",
         {"{depth: 1, heads: 2, dim: 8, mlp_dim: 12}",
          "{depth: 1, heads: 2, dim: 8, mlp_dim: 12, tied: true}"}},
        {"model/vgg", {"{width: 0.0625, pools: 4, groups: 2}"}},
        {"model/vit", {"{patch: 8, depth: 1, heads: 2, dim: 8, mlp_dim: 12}"}},
        {"noise/sparse", {"{}", "{fraction: 1}", "{fraction: 0.000001}"}},
        {"objective/fedprox", {"{}", "{mu: 0}"}},
        {"objective/fedsign", {"{}", "{gamma: 0}"}},
        {"partitioner/labels_per_client", {"{labels: 2}"}},
        {"partitioner/quantity", {"{}", "{sigma: 0}"}},
        {"sampler/uniform", {"{}", "{fraction: 0.3}", "{fraction: 0.001}", "{count: 4}"}},
        {"sampler/weighted", {"{}", "{fraction: 0.3}", "{fraction: 0.001}", "{count: 4}"}},
        {"schedule/step", {"{every: 3}"}},
    };
    return table;
}

/// Every plug-in of the kind with each of its options in the table (or none), and its first options with every other
/// value of every choice.
inline std::vector<PluginCase> cases_of(const std::string& kind) {
    std::vector<PluginCase> cases;
    for (const auto& plugin : core::plugins_of(kind)) {
        const auto found = given_options().find(kind + "/" + plugin.name);
        const auto given = found == given_options().end() ? std::vector<std::string>{"{}"} : found->second;
        for (const auto& options : given) cases.push_back({kind, plugin.name, options});
        if (given.empty()) continue;
        for (const auto& option : plugin.options.options()) {
            if (option.type != core::Option::Type::choice || !option.fallback) continue;
            for (const auto& choice : option.choices) {
                auto options = core::parse_yaml(given.front(), "options");
                if (choice == option.fallback || options.has(option.name)) continue;
                options.set(option.name, core::Value::of(choice));
                cases.push_back({kind, plugin.name, core::to_flow(options)});
            }
        }
    }
    return cases;
}

/// Runs `work`; a complaint about the options comes with the advice to put some into the table.
template <class Work>
auto with_advice(const PluginCase& tested, Work&& work) {
    try {
        return work();
    } catch (const core::UsageError& error) {
        throw std::runtime_error(std::string(error.what()) + " — the " + tested.kind + " '" + tested.name +
                                 "' cannot be tested with the options " + tested.options +
                                 ": add an entry with minimal ones to given_options() in "
                                 "tests/contract/plugins.hpp");
    }
}

/// The resolved section. Six clients, where their number must be given.
inline core::Value section_of(const PluginCase& tested, const std::string& selector = "kind") {
    return with_advice(tested, [&] {
        auto given = core::parse_yaml(tested.options, "options");
        for (const auto& option : core::find_plugin(tested.kind, tested.name)->options.options()) {
            if (option.name == "clients" && !option.fallback && !given.has("clients"))
                given.set("clients", core::Value::of(6));
        }
        given.set(selector, core::Value::of(tested.name));
        return core::resolve_plugin(tested.kind, selector, given, tested.kind);
    });
}

/// The plug-in itself, for kinds whose factories need no more than options.
template <class Interface>
std::unique_ptr<Interface> make_plugin(const PluginCase& tested, const std::string& selector = "kind") {
    const auto section = section_of(tested, selector);
    return with_advice(tested,
                       [&] { return core::Registry<std::unique_ptr<Interface>>::make(section, selector); });
}

/// `mlp_hidden_6_norm_layer`
inline std::string plugin_case_name(const ::testing::TestParamInfo<PluginCase>& info) {
    std::string name = info.param.name + "_";
    std::string options = info.param.options;
    if (const auto at = options.find(contract_folder()); at != std::string::npos)
        options.erase(at, contract_folder().size());  // tests are not called after the checkout they are in
    for (const char c : options) {
        if (std::isalnum(static_cast<unsigned char>(c)) != 0) {
            name += c;
        } else if (name.back() != '_') {
            name += '_';
        }
    }
    while (name.back() == '_') name.pop_back();
    return name;
}

class PluginContract : public ::testing::TestWithParam<PluginCase> {};

}  // namespace thalweg::testing
