#include "context.hpp"

#include <charconv>
#include <cstdio>
#include <filesystem>

#include "thalweg/core/error.hpp"
#include "thalweg/core/schema.hpp"
#include "thalweg/core/text.hpp"

namespace thalweg::app {

namespace fs = std::filesystem;
using core::UsageError;
using core::Value;

void Context::print(const std::string& text) const {
    if (!is_root) return;
    if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0) {
        throw core::RunError("cannot write the results to standard output");
    }
}

void ConfigArguments::add_to(CLI::App& command) {
    command.add_option("CONFIG", config, "configuration file (YAML)")->required();
    command.add_option("OVERRIDES", overrides, "key.path=value, replacing what the file says");
}

federation::Experiment ConfigArguments::load(const Context& context) const {
    return core::collectively(context.communicator,
                              [&] { return federation::load_experiment(config, overrides); });
}

void ModelArguments::add_model_to(CLI::App& command) {
    command.add_option(
        "--model", model,
        "architecture of a bare Python state_dict: '{kind: mlp, hidden: [200], input: [1, 28, 28], "
        "classes: 10}' or a file that holds it; of a TorchScript file, which is code: '{input: [1, 28, 28], "
        "classes: 10}'");
}

void ModelArguments::add_data_to(CLI::App& command) {
    command.add_option(
        "--data", data,
        "NAME[:PATH], or '{kind: NAME, option: value}' (default: the data the model file names)");
    command.add_option("--seed", seed, "for every random draw")->capture_default_str();
}

void ModelArguments::add_holdout_to(CLI::App& command, const std::string& use) {
    command
        .add_option("--holdout", holdout,
                    "training samples used for " + use + " (default: 1000, or all of a smaller set)")
        ->check(CLI::PositiveNumber);
}

void ModelArguments::add_json_to(CLI::App& command) {
    command.add_flag("--json", json, "one JSON document on stdout");
}

namespace {

std::optional<Value> architecture(const std::string& text) {
    if (text.empty()) return std::nullopt;
    std::error_code error;
    Value value = text.front() != '{' && fs::exists(text, error) ? core::read_yaml(text)
                                                                 : core::parse_yaml(text, "--model");
    if (value.is_map() && value.find("model") && !value.find("kind")) {
        Value inner = value["model"];
        value = inner;
    }
    return value;
}

Value dataset_value(const std::string& text, const std::string& source) {
    if (text.empty() || text.front() == '{') return core::parse_yaml(text, source);
    const auto colon = text.find(':');
    const std::string name = text.substr(0, colon);
    if (colon == std::string::npos) return Value::of(name);
    return Value::map({{"kind", Value::of(name)}, {"path", Value::scalar(text.substr(colon + 1), true)}});
}

/// Generated data follow the experiment's seed: two models of two seeds know different data, and measuring one on the
/// other's says nothing.
void require_same_data(const std::vector<model::ModelFile>& files, const std::vector<std::string>& paths) {
    const auto said = [](const model::ModelFile& file) {
        const auto data = file.meta.find("data");
        if (data == file.meta.end()) return std::string();
        const bool follows_seed = data->second.find("seed: null") != std::string::npos;
        const auto seed = file.meta.find("seed");
        return data->second + (follows_seed && seed != file.meta.end() ? ", seed " + seed->second : "");
    };
    for (std::size_t i = 1; i < files.size(); ++i) {
        const auto first = said(files[0]), other = said(files[i]);
        if (first.empty() || other.empty() || first == other) continue;
        throw UsageError("'" + paths[0] + "' was trained on " + first + ", but '" + paths[i] + "' on " +
                         other + "; say with --data which data to use");
    }
}

}  // namespace

std::vector<model::ModelFile> ModelArguments::load(const Context& context,
                                                   const std::vector<std::string>& paths,
                                                   bool any_architecture) const {
    return core::collectively(context.communicator, [&] {
        const auto spec = architecture(model);
        std::vector<model::ModelFile> files;
        for (const auto& path : paths) files.push_back(model::load_model(path, spec));
        for (std::size_t i = 1; i < files.size() && !any_architecture; ++i) {
            model::require_same_architecture(files[0].graph, paths[0], files[i].graph, paths[i]);
        }
        if (data.empty()) require_same_data(files, paths);
        for (std::size_t i = 0; i < files.size(); ++i) {
            if (const auto bad = files[i].parameters.first_non_finite()) {
                throw core::RunError("'" + paths[i] + "' holds values that are not finite: " + *bad +
                                     "; such a model cannot be evaluated or merged");
            }
        }
        return files;
    });
}

std::shared_ptr<const data::Dataset> ModelArguments::open(const Context& context,
                                                          const model::ModelFile& file,
                                                          const std::string& path, bool required) const {
    const auto named = file.meta.find("data");
    if (data.empty() && named == file.meta.end()) {
        if (!required) return nullptr;
        throw UsageError("'" + path + "' does not say what data it was trained on; give --data NAME[:PATH]");
    }
    const Value options = core::collectively(context.communicator, [&] {
        const bool given = !data.empty();
        return core::resolve_plugin(
            "dataset", "kind", dataset_value(given ? data : named->second, given ? "--data" : path), "data");
    });
    std::uint64_t data_seed = seed;
    if (const auto written = file.meta.find("seed"); written != file.meta.end() && data.empty()) {
        std::from_chars(written->second.data(), written->second.data() + written->second.size(), data_seed);
    }
    const auto dataset = data::open_dataset(options, {context.communicator, data_seed});
    if (dataset->sample_shape() != file.graph.input_shape() || dataset->classes() != file.graph.classes()) {
        throw UsageError("the samples of " + dataset->name() + " are " +
                         core::shape_text(dataset->sample_shape()) + " with " +
                         std::to_string(dataset->classes()) + " classes, but '" + path + "' takes " +
                         core::shape_text(file.graph.input_shape()) + " and tells " +
                         std::to_string(file.graph.classes()) + " classes apart; give other --data");
    }
    return dataset;
}

std::shared_ptr<const data::SampleSet> ModelArguments::calibration(const data::Dataset& dataset) const {
    constexpr std::int64_t usual = 1000;
    const auto train = dataset.train();
    if (!train) return dataset.natural_holdout(holdout.value_or(usual));
    if (holdout && *holdout > train->size()) {
        throw UsageError("--holdout asks for " + std::to_string(*holdout) + " training samples, but " +
                         dataset.name() + " has " + std::to_string(train->size()));
    }
    const std::int64_t count = std::min(holdout.value_or(usual), train->size());
    core::Random random(seed, "calibration");
    std::vector<std::uint32_t> indices;
    for (const auto index : random.sample(train->size(), count))
        indices.push_back(static_cast<std::uint32_t>(index));
    return std::make_shared<data::Subset>(train, std::move(indices));
}

std::map<std::string, std::string> ModelArguments::meta(const model::ModelFile& file) const {
    std::map<std::string, std::string> meta;
    for (const auto* key : {"data", "seed"}) {
        if (const auto found = file.meta.find(key); found != file.meta.end()) meta.insert(*found);
    }
    return meta;
}

void require_writable(const Context& context, const std::string& path) {
    core::collectively(context.communicator, [&] {
        if (!context.is_root) return;
        const fs::path folder =
            fs::path(path).has_parent_path() ? fs::path(path).parent_path() : fs::path(".");
        if (!fs::is_directory(folder)) {
            throw UsageError("cannot write '" + path + "': there is no folder '" + folder.string() +
                             "'; create it first");
        }
        if (fs::is_directory(path))
            throw UsageError("cannot write '" + path + "': it is a folder; name a file in it");
        if (fs::exists(path) && !fs::is_regular_file(path)) {
            throw UsageError("cannot write '" + path +
                             "': it is there and not an ordinary file; name another");
        }
        const std::string probe = path + ".part";
        if (fs::exists(probe))
            return;  // left by a killed program, or somebody's: not ours to touch before we write
        std::FILE* file = std::fopen(probe.c_str(), "wbx");
        if (!file) throw UsageError("cannot write '" + path + "': " + std::strerror(errno));
        std::fclose(file);
        std::remove(probe.c_str());
    });
}

namespace {

template <class T>
std::optional<T> number_in(const std::string& text) {
    T value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
    return value;
}

}  // namespace

Json to_json(const Value& value) {
    if (value.is_null()) return nullptr;
    if (value.is_list()) {
        Json json = Json::array();
        for (const auto& item : value.items()) json.push_back(to_json(item));
        return json;
    }
    if (value.is_map()) {
        Json json = Json::object();
        for (const auto& [key, item] : value.fields()) json[key] = to_json(item);
        return json;
    }
    const std::string& text = value.as_text();
    if (!value.quoted()) {
        if (text == "true" || text == "false") return text == "true";
        if (const auto integer = number_in<std::int64_t>(text)) return *integer;
        if (const auto real = number_in<double>(text)) return *real;
    }
    return text;
}

}  // namespace thalweg::app
