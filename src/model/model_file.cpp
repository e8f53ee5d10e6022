#include "thalweg/model/model_file.hpp"

#include <torch/types.h>

#include <algorithm>
#include <stdexcept>

#include "archive.hpp"
#include "file_error.hpp"
#include "safetensors.hpp"
#include "state_dict.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/files.hpp"
#include "thalweg/core/text.hpp"
#include "thalweg/model/torchscript.hpp"

namespace thalweg::model {

namespace {

ModelGraph graph_of(const StateDict& state, const std::optional<core::Value>& spec) {
    if (spec) return build_model_from_spec(*spec);
    if (!state.model) {
        refuse_file(
            state.path,
            "it does not say which architecture its tensors are for (a bare state_dict); give it, for "
            "instance "
            "--model \"{kind: mlp, hidden: [200, 200], input: [1, 28, 28], classes: 10}\"");
    }
    try {
        return build_model_from_spec(core::parse_yaml(*state.model, state.path.string()));
    } catch (const core::UsageError& error) {
        refuse_file(state.path,
                    std::string("its entry 'model' describes no model that can be built: ") + error.what());
    }
}

ModelFile of_state_dict(StateDict state, const std::optional<core::Value>& spec) {
    ModelFile file;
    file.graph = graph_of(state, spec);
    check_state_dict(state, file.graph);
    file.parameters = Parameters(file.graph.layout);
    std::vector<bool> read(file.graph.layout->entries().size(), false);
    for (const auto& item : file.graph.state_items()) {
        const auto tensor = state.items.at(item.name).read();
        const auto place = state_tensor(file.graph, file.parameters, item);
        const bool tied = item.kind == StateItem::Kind::entry && read[item.index];
        if (item.kind == StateItem::Kind::fixed || tied) {
            if (tensor.to(place.scalar_type()).equal(place)) continue;
            refuse_file(
                state.path,
                item.name + (tied ? " differs from the tensor that it is tied to"
                                  : " is not what the model's own file has, and training never changes it"));
        }
        place.copy_(tensor);
        if (item.kind == StateItem::Kind::entry) read[item.index] = true;
    }
    file.meta = std::move(state.meta);
    return file;
}

/// True when `spec` allows a TorchScript module. LibTorch, which runs code as it loads, sees no file otherwise.
bool describes_module(const core::Value& spec) {
    if (!spec.is_map()) return false;
    const auto* kind = spec.find("kind");
    return kind == nullptr || kind->as_text() == "torchscript";
}

/// A TorchScript file's values, of the module that `spec` names or, when it has no `kind`, of the file's own.
ModelFile read_module(const std::string& content, const std::filesystem::path& path, core::Value spec) {
    if (!spec.find("kind")) {
        if (const auto* file = spec.find("file"))
            file->reject(
                "a 'file' needs its kind, as in {kind: torchscript, file: net.pt, input: …, classes: …}");
        spec.set("kind", core::Value::of("torchscript"));
        spec.set("file", core::Value::scalar(path.string(), true));
        spec.set("checksum", core::Value::scalar(module_checksum(content), true));
    }
    ModelFile file;
    file.graph = build_model_from_spec(spec);
    auto own = import_torchscript(path, content, file.graph.input_shape(), file.graph.classes());
    require_same_architecture(file.graph, "the module of --model", own.graph, path.string());
    file.parameters = Parameters(file.graph.layout);
    file.parameters.values.copy_(own.parameters.values);
    file.parameters.counters.copy_(own.parameters.counters);
    return file;
}

/// The tensors of a dict, of any types.
TensorFile read_pickled_tensors(std::string content, const std::filesystem::path& path) {
    const auto size = content.size();
    const Archive archive(std::move(content), path);
    const auto* tensors = archive.root().find("tensors");
    const auto* meta = archive.root().find("meta");
    if (tensors == nullptr || !tensors->is(PickledObject::Kind::dict) || meta == nullptr) {
        archive.fail("it is not a file of tensors: a dict with 'tensors' and 'meta'");
    }
    TensorFile file;
    std::uint64_t bytes = 0;
    for (std::size_t i = 0; i + 1 < tensors->items.size(); i += 2) {
        const auto& key = *tensors->items[i];
        if (!key.is(PickledObject::Kind::text)) archive.fail("a tensor's name is not a text");
        file.tensors.emplace_back(key.text, archive.tensor(*tensors->items[i + 1], key.text));
        // Tensors of our own files share nothing; a small file must not ask for all the memory.
        bytes += file.tensors.back().second.nbytes();
        if (bytes > size) archive.fail("its tensors share their data, which a file of tensors never does");
    }
    file.meta = read_texts(archive, *meta);
    return file;
}

TensorFile read_safetensors_tensors(std::string content, const std::filesystem::path& path) {
    const Safetensors source(std::move(content), path);
    TensorFile file{{}, source.metadata()};
    file.meta.erase("format");
    for (const auto& tensor : source.tensors()) file.tensors.emplace_back(tensor.name, source.read(tensor));
    return file;
}

/// A safetensors file keeps all texts in one place. `format` is what Python's libraries look for there.
std::map<std::string, std::string> with_own(std::map<std::string, std::string> own,
                                            const std::map<std::string, std::string>& meta) {
    own["format"] = "pt";
    for (const auto& [key, text] : meta) {
        if (!own.emplace(key, text).second)
            throw std::logic_error("the key '" + key + "' is the format's own");
    }
    return own;
}

std::string describe(const Operation& operation) {
    std::string text = operation.name + ": " + kind_name(operation.kind);
    text += options_text(operation.kind);
    for (const int input : operation.inputs) text += " of value " + std::to_string(input);
    return text;
}

std::string describe(const Entry& entry) {
    return entry.name + " " + core::shape_text(entry.shape);
}

/// The first place at which two lists of descriptions part, or an empty text.
template <class T>
std::string first_difference(const std::vector<T>& a, const std::string& name_a, const std::vector<T>& b,
                             const std::string& name_b) {
    for (std::size_t i = 0; i < std::max(a.size(), b.size()); ++i) {
        const auto text_a = i < a.size() ? describe(a[i]) : "nothing more";
        const auto text_b = i < b.size() ? describe(b[i]) : "nothing more";
        if (text_a != text_b) return name_a + " has " + text_a + ", " + name_b + " has " + text_b;
    }
    return {};
}

}  // namespace

void save_model(const std::filesystem::path& path, const ModelGraph& graph, const Parameters& parameters,
                const std::map<std::string, std::string>& meta) {
    if (!(*graph.layout == *parameters.layout))
        throw std::logic_error("save_model: parameters of another model");
    if (parameters.is_double()) throw std::logic_error("save_model: model files hold float32");
    std::vector<std::pair<std::string, at::Tensor>> tensors;
    for (const auto& item : graph.state_items())
        tensors.emplace_back(item.name, state_tensor(graph, parameters, item));
    const auto spec = core::to_flow(graph.spec);
    if (format_of(path) == FileFormat::safetensors) {
        write_safetensors(path, tensors, with_own({{"model", spec}}, meta));
    } else {
        write_archive(path, {"state_dict", std::move(tensors), {{"model", spec}}, meta});
    }
}

ModelFile load_model(const std::filesystem::path& path, const std::optional<core::Value>& spec) {
    return parse_model(core::read_file(path), path, spec);
}

ModelFile parse_model(std::string content, const std::filesystem::path& path,
                      const std::optional<core::Value>& spec) {
    if (!spec || !describes_module(*spec) || format_of(path) != FileFormat::pickled)
        return of_state_dict(read_state_dict(std::move(content), path), spec);
    auto zip = open_zip(std::move(content), path);
    if (zip.is_torchscript()) return read_module(zip.content(), path, *spec);
    return of_state_dict(read_state_dict(std::move(zip), path), spec);
}

void save_tensors(const std::filesystem::path& path,
                  const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                  const std::map<std::string, std::string>& meta) {
    if (format_of(path) == FileFormat::safetensors) {
        write_safetensors(path, tensors, with_own({}, meta));
    } else {
        write_archive(path, {"tensors", tensors, {}, meta});
    }
}

const at::Tensor& TensorFile::at(const std::string& name) const {
    for (const auto& [other, tensor] : tensors) {
        if (other == name) return tensor;
    }
    throw core::RunError("The tensor '" + name + "' is missing from a file of tensors.");
}

TensorFile load_tensors(const std::filesystem::path& path) {
    return parse_tensors(core::read_file(path), path);
}

TensorFile parse_tensors(std::string content, const std::filesystem::path& path) {
    return format_of(path) == FileFormat::safetensors ? read_safetensors_tensors(std::move(content), path)
                                                      : read_pickled_tensors(std::move(content), path);
}

void require_same_architecture(const ModelGraph& a, const std::string& name_a, const ModelGraph& b,
                               const std::string& name_b) {
    const auto refuse = [&](const std::string& difference) {
        throw core::RunError(name_a + " (" + a.summary() + ") and " + name_b + " (" + b.summary() +
                             ") are not of the same architecture: " + difference + ".");
    };
    if (a.input_shape() != b.input_shape()) {
        refuse(name_a + " takes inputs of " + core::shape_text(a.input_shape()) + ", " + name_b + " of " +
               core::shape_text(b.input_shape()));
    }
    auto difference = first_difference(a.layout->entries(), name_a, b.layout->entries(), name_b);
    if (difference.empty()) difference = first_difference(a.operations, name_a, b.operations, name_b);
    if (!difference.empty()) refuse(difference);
    const auto same = [](const std::vector<at::Tensor>& first, const std::vector<at::Tensor>& second) {
        return std::equal(first.begin(), first.end(), second.begin(), second.end(),
                          [](const at::Tensor& x, const at::Tensor& y) {
                              return x.scalar_type() == y.scalar_type() && x.equal(y);
                          });
    };
    if (!same(a.constants, b.constants) || !same(a.fixed, b.fixed))
        refuse("constants in them, such as masks or positions, have other values");
}

}  // namespace thalweg::model
