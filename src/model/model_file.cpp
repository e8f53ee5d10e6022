#include "thalweg/model/model_file.hpp"

#include <torch/types.h>

#include <algorithm>
#include <stdexcept>

#include "archive.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/text.hpp"

namespace thalweg::model {

namespace {

using Kind = PickledObject::Kind;
using NamedObjects = std::map<std::string, const PickledObject*>;

/// The state_dict itself: the file's object, or what it keeps under `state_dict`.
NamedObjects state_dict_of(const Archive& archive) {
    const auto& root = archive.root();
    if (!root.is(Kind::dict)) {
        archive.fail("it holds " + kind_name(root.kind) + ", not a state_dict (a dict of tensors)");
    }
    const auto* nested = root.find("state_dict");
    const auto& dict = nested != nullptr && nested->is(Kind::dict) ? *nested : root;
    NamedObjects found;
    for (std::size_t i = 0; i + 1 < dict.items.size(); i += 2) {
        if (!dict.items[i]->is(Kind::text)) archive.fail("its state_dict has a key that is not a text");
        found[dict.items[i]->text] = dict.items[i + 1];
    }
    return found;
}

ModelGraph graph_of(const Archive& archive, const std::optional<core::Value>& spec) {
    if (spec) return build_model_from_spec(*spec);
    const auto* text = archive.root().find("model");
    if (text == nullptr || !text->is(Kind::text)) {
        archive.fail(
            "it does not say which architecture its tensors are for (a bare state_dict); give it, for "
            "instance "
            "--model \"{kind: mlp, hidden: [200, 200], input: [1, 28, 28], classes: 10}\"");
    }
    try {
        return build_model_from_spec(core::parse_yaml(text->text, archive.path().string()));
    } catch (const core::UsageError& error) {
        archive.fail(std::string("its entry 'model' describes no model that can be built: ") + error.what());
    }
}

/// Collects the first few complaints of one sort.
class Complaints {
  public:
    explicit Complaints(std::string title) : title_(std::move(title)) {}
    void add(std::string complaint) {
        if (++count_ <= 3) first_.push_back(std::move(complaint));
    }
    void append_to(std::vector<std::string>& all) const {
        if (count_ == 0) return;
        const auto more = count_ > 3 ? " and " + std::to_string(count_ - 3) + " more" : std::string();
        all.push_back(title_ + ": " + core::join(first_) + more);
    }

  private:
    std::string title_;
    std::vector<std::string> first_;
    std::size_t count_ = 0;
};

/// RunError unless names, shapes and sorts of number are those of the graph. Before anything is allocated, so
/// that a damaged description cannot ask for memory.
void check_state_dict(const Archive& archive, const NamedObjects& found, const ModelGraph& graph) {
    Complaints missing("missing");
    Complaints superfluous("superfluous");
    Complaints different("different");
    NamedObjects left = found;
    const auto check = [&](const std::string& name, const std::vector<std::int64_t>& shape, bool floating) {
        const auto place = left.find(name);
        if (place == left.end()) return missing.add(name);
        const auto& object = *place->second;
        left.erase(place);
        if (!object.is(Kind::tensor)) {
            different.add(name + " is " + kind_name(object.kind) + ", not a tensor");
        } else if (object.sizes != shape) {
            different.add(name + " is " + core::shape_text(object.sizes) + " in the file, " +
                          core::shape_text(shape) + " in the architecture");
        } else if (is_floating_storage(object) != floating) {
            different.add(name + (floating ? " holds integers, not floating-point numbers"
                                           : " holds floating-point numbers, not integers"));
        }
    };
    for (const auto& item : graph.state_items()) {
        switch (item.kind) {
            case StateItem::Kind::entry:
                check(item.name, graph.layout->entries()[item.index].shape, true);
                break;
            case StateItem::Kind::counter:
                check(item.name, {}, false);
                break;
            case StateItem::Kind::fixed:
                check(item.name, graph.fixed[item.index].sizes().vec(),
                      graph.fixed[item.index].is_floating_point());
                break;
        }
    }
    for (const auto& [name, object] : left) superfluous.add(name);

    std::vector<std::string> all;
    missing.append_to(all);
    superfluous.append_to(all);
    different.append_to(all);
    if (!all.empty()) {
        archive.fail("its tensors are not those of the architecture " + graph.summary() + " — " +
                     core::join(all, "; "));
    }
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
    ArchiveContent content{"state_dict", {}, {{"model", core::to_flow(graph.spec)}}, meta};
    for (const auto& item : graph.state_items())
        content.tensors.emplace_back(item.name, state_tensor(graph, parameters, item));
    write_archive(path, content);
}

ModelFile load_model(const std::filesystem::path& path, const std::optional<core::Value>& spec) {
    const Archive archive(path);
    const auto found = state_dict_of(archive);
    ModelFile file;
    file.graph = graph_of(archive, spec);
    check_state_dict(archive, found, file.graph);
    file.parameters = Parameters(file.graph.layout);
    std::vector<bool> read(file.graph.layout->entries().size(), false);
    for (const auto& item : file.graph.state_items()) {
        const auto tensor = archive.tensor(*found.at(item.name), item.name);
        const auto place = state_tensor(file.graph, file.parameters, item);
        const bool tied = item.kind == StateItem::Kind::entry && read[item.index];
        if (item.kind == StateItem::Kind::fixed || tied) {
            if (tensor.to(place.scalar_type()).equal(place)) continue;
            archive.fail(item.name + (tied ? " differs from the tensor that it is tied to"
                                           : " is not what the model's own file has, and training never changes it"));
        }
        place.copy_(tensor);
        if (item.kind == StateItem::Kind::entry) read[item.index] = true;
    }
    // Only what this program wrote has a `meta` of texts; another program's may hold anything.
    const auto* meta = archive.root().find("meta");
    if (meta != nullptr && archive.root().find("model") != nullptr) file.meta = read_texts(archive, *meta);
    return file;
}

void save_tensors(const std::filesystem::path& path,
                  const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                  const std::map<std::string, std::string>& meta) {
    write_archive(path, {"tensors", tensors, {}, meta});
}

const at::Tensor& TensorFile::at(const std::string& name) const {
    for (const auto& [other, tensor] : tensors) {
        if (other == name) return tensor;
    }
    throw core::RunError("The tensor '" + name + "' is missing from a file of tensors.");
}

TensorFile load_tensors(const std::filesystem::path& path) {
    const Archive archive(path);
    const auto* tensors = archive.root().find("tensors");
    const auto* meta = archive.root().find("meta");
    if (tensors == nullptr || !tensors->is(Kind::dict) || meta == nullptr) {
        archive.fail("it is not a file of tensors: a dict with 'tensors' and 'meta'");
    }
    TensorFile file;
    for (std::size_t i = 0; i + 1 < tensors->items.size(); i += 2) {
        const auto& key = *tensors->items[i];
        if (!key.is(Kind::text)) archive.fail("a tensor's name is not a text");
        file.tensors.emplace_back(key.text, archive.tensor(*tensors->items[i + 1], key.text));
    }
    file.meta = read_texts(archive, *meta);
    return file;
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
}

}  // namespace thalweg::model
