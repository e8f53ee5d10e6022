#include "state_dict.hpp"

#include <torch/types.h>

#include <memory>
#include <set>
#include <utility>

#include "archive.hpp"
#include "file_error.hpp"
#include "safetensors.hpp"
#include "thalweg/core/text.hpp"

namespace thalweg::model {

namespace {

using Kind = PickledObject::Kind;

StateDict::Item item_of(const std::shared_ptr<const Archive>& archive, const PickledObject& object,
                        const std::string& name) {
    StateDict::Item item{kind_name(object.kind), {}, false, {}};
    if (!object.is(Kind::tensor)) return item;
    item.shape = object.sizes;
    item.floating = is_floating(archive->type(object));
    item.read = [archive, &object, name] { return archive->tensor(object, name); };
    return item;
}

StateDict read_safetensors(std::string content, const std::filesystem::path& path) {
    StateDict state{path, content.size(), {}, {}, {}};
    const auto file = std::make_shared<const Safetensors>(std::move(content), path);
    for (const auto& tensor : file->tensors()) {
        state.items[tensor.name] = {"a tensor", tensor.shape, is_floating(tensor.type),
                                    [file, &tensor] { return file->read(tensor); }};
    }
    if (const auto model = file->metadata().find("model"); model != file->metadata().end()) {
        state.model = model->second;
        state.meta = file->metadata();
        state.meta.erase("model");
        state.meta.erase("format");
    }
    return state;
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

/// What is wrong with an item of the right name, or an empty text.
std::string fault_of(const StateDict::Item& item, const std::vector<std::int64_t>& shape, bool floating) {
    if (!item.is_tensor()) return " is " + item.sort + ", not a tensor";
    if (item.shape != shape) {
        return " is " + core::shape_text(item.shape) + " in the file, " + core::shape_text(shape) +
               " in the architecture";
    }
    if (item.floating == floating) return {};
    return floating ? " holds integers, not floating-point numbers"
                    : " holds floating-point numbers, not integers";
}

}  // namespace

FileFormat format_of(const std::filesystem::path& path) {
    return path.extension() == ".safetensors" ? FileFormat::safetensors : FileFormat::pickled;
}

/// The file's object, or what it keeps under `state_dict`.
StateDict read_state_dict(ZipArchive zip, const std::filesystem::path& path) {
    StateDict state{path, zip.content().size(), {}, {}, {}};
    const auto archive = std::make_shared<const Archive>(std::move(zip), path);
    const auto& root = archive->root();
    if (!root.is(Kind::dict)) {
        archive->fail("it holds " + kind_name(root.kind) + ", not a state_dict (a dict of tensors)");
    }
    const auto* nested = root.find("state_dict");
    const auto& dict = nested != nullptr && nested->is(Kind::dict) ? *nested : root;
    for (std::size_t i = 0; i + 1 < dict.items.size(); i += 2) {
        if (!dict.items[i]->is(Kind::text)) archive->fail("its state_dict has a key that is not a text");
        const auto& name = dict.items[i]->text;
        state.items[name] = item_of(archive, *dict.items[i + 1], name);
    }
    if (const auto* model = root.find("model")) {
        if (model->is(Kind::text)) state.model = model->text;
        // Another program's `meta` may hold anything.
        if (const auto* meta = root.find("meta")) state.meta = read_texts(*archive, *meta);
    }
    return state;
}

StateDict read_state_dict(std::string content, const std::filesystem::path& path) {
    if (format_of(path) == FileFormat::safetensors) return read_safetensors(std::move(content), path);
    return read_state_dict(open_zip(std::move(content), path), path);
}

void check_state_dict(const StateDict& state, const ModelGraph& graph) {
    Complaints missing("missing");
    Complaints superfluous("superfluous");
    Complaints different("different");
    const auto check = [&](const std::string& name, const std::vector<std::int64_t>& shape, bool floating) {
        const auto place = state.items.find(name);
        if (place == state.items.end()) return missing.add(name);
        const auto fault = fault_of(place->second, shape, floating);
        if (!fault.empty()) different.add(name + fault);
    };
    std::set<std::string> known;
    for (const auto& item : graph.state_items()) {
        known.insert(item.name);
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
    for (const auto& [name, item] : state.items) {
        if (known.count(name) == 0) superfluous.add(name);
    }

    std::vector<std::string> all;
    missing.append_to(all);
    superfluous.append_to(all);
    different.append_to(all);
    if (!all.empty()) {
        refuse_file(state.path, "its tensors are not those of the architecture " + graph.summary() + " — " +
                                    core::join(all, "; "));
    }
    // Tensors may share their data in the file, in memory they do not: a small file must not ask for all of it.
    constexpr std::uint64_t most_shared = 64;
    const auto needed = static_cast<std::uint64_t>(graph.layout->size());
    if (needed / most_shared > state.file_size) {
        refuse_file(state.path, "its tensors share their data so often that " + std::to_string(needed) +
                                    " numbers come from a file of " + std::to_string(state.file_size) +
                                    " bytes");
    }
}

}  // namespace thalweg::model
