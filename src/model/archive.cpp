#include "archive.hpp"

#include <ATen/core/Dict.h>
#include <ATen/core/jit_type.h>
#include <caffe2/serialize/inline_container.h>
#include <torch/csrc/jit/serialization/pickler.h>
#include <torch/types.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "thalweg/core/error.hpp"
#include "thalweg/core/files.hpp"
#include "thalweg/core/text.hpp"

namespace thalweg::model {

namespace {

using Kind = PickledObject::Kind;

constexpr std::string_view byte_order = std::endian::native == std::endian::little ? "little" : "big";

[[noreturn]] void refuse(const std::filesystem::path& path, const std::string& reason) {
    throw core::RunError("Cannot read " + path.string() + ": " + reason + ".");
}

ZipArchive open_zip(const std::filesystem::path& path) {
    std::string content = core::read_file(path);
    // How torch.save began its files before PyTorch 1.6: protocol 2 and a magic number.
    const std::string_view old_magic("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19", 14);
    if (content.starts_with(old_magic)) {
        refuse(path,
               "it was saved by PyTorch before 1.6; re-save it in Python with "
               "torch.save(torch.load(path), path) of a newer PyTorch");
    }
    try {
        return ZipArchive(std::move(content));
    } catch (const FormatError& error) {
        refuse(path, std::string(error.what()) + ". A model file is what torch.save or this program writes");
    }
}

Pickle read_pickle(const std::filesystem::path& path, const ZipArchive& zip) {
    if (zip.has(zip.folder() + "constants.pkl")) {
        refuse(path,
               "it is a TorchScript file; save the weights alone with torch.save(model.state_dict(), path)");
    }
    try {
        const auto order = zip.folder() + "byteorder";
        if (zip.has(order) && zip.record(order) != byte_order) {
            throw FormatError("it was written on a machine with another byte order");
        }
        return Pickle(zip.record(zip.folder() + "data.pkl"));
    } catch (const FormatError& error) {
        refuse(path, error.what());
    }
}

at::ScalarType scalar_type(const std::string& storage) {
    static const std::map<std::string, at::ScalarType> types{
        {"torch.FloatStorage", at::kFloat}, {"torch.DoubleStorage", at::kDouble},
        {"torch.HalfStorage", at::kHalf},   {"torch.BFloat16Storage", at::kBFloat16},
        {"torch.LongStorage", at::kLong},   {"torch.IntStorage", at::kInt},
        {"torch.ShortStorage", at::kShort}, {"torch.CharStorage", at::kChar},
        {"torch.ByteStorage", at::kByte},   {"torch.BoolStorage", at::kBool}};
    const auto found = types.find(storage);
    if (found == types.end()) throw FormatError("a tensor has the unknown type " + storage);
    return found->second;
}

/// FormatError unless sizes and strides stay inside a storage of `available` elements. Expanded tensors (more
/// elements than the storage has) are refused, so that a small file cannot ask for all the memory.
void check_bounds(const PickledObject& tensor, std::int64_t available, const std::string& name) {
    const auto outside = [&] {
        throw FormatError("tensor " + name + " of shape " + core::shape_text(tensor.sizes) +
                          " reaches outside its storage");
    };
    if (tensor.sizes.size() > 16) throw FormatError("tensor " + name + " has more than 16 axes");
    std::int64_t count = 1;
    std::int64_t last = tensor.integer;
    if (last < 0) outside();
    for (std::size_t axis = 0; axis < tensor.sizes.size(); ++axis) {
        const auto size = tensor.sizes[axis];
        std::int64_t reach = 0;
        if (size < 0 || tensor.strides[axis] < 0 || __builtin_mul_overflow(count, size, &count) ||
            __builtin_mul_overflow(std::max<std::int64_t>(size - 1, 0), tensor.strides[axis], &reach) ||
            __builtin_add_overflow(last, reach, &last)) {
            outside();
        }
    }
    if (count > 0 && (last >= available || count > available)) outside();
}

c10::impl::GenericDict new_dict() {
    return c10::impl::GenericDict(c10::StringType::get(), c10::AnyType::get());
}

}  // namespace

Archive::Archive(std::filesystem::path path)
    : path_(std::move(path)), zip_(open_zip(path_)), pickle_(read_pickle(path_, zip_)) {}

void Archive::fail(const std::string& reason) const {
    refuse(path_, reason);
}

at::Tensor Archive::tensor(const PickledObject& object, const std::string& name) const {
    if (!object.is(Kind::tensor)) fail(name + " is " + kind_name(object.kind) + ", not a tensor");
    try {
        return checked_tensor(object, name);
    } catch (const FormatError& error) {
        fail(error.what());
    }
}

at::Tensor Archive::checked_tensor(const PickledObject& object, const std::string& name) const {
    const auto& storage = *object.items.front();
    const auto type = scalar_type(storage.items.front()->text);
    // Any byte but 0 and 1 is undefined in a bool.
    const auto raw_type = type == at::kBool ? at::kByte : type;
    const auto bytes = zip_.record(zip_.folder() + "data/" + storage.text);
    const auto item = static_cast<std::int64_t>(c10::elementSize(raw_type));
    const auto available = static_cast<std::int64_t>(bytes.size()) / item;
    if (storage.integer < 0 || storage.integer > available) {
        throw FormatError("the record of tensor " + name + " is shorter than it says");
    }
    check_bounds(object, storage.integer, name);
    if (std::find(object.sizes.begin(), object.sizes.end(), 0) != object.sizes.end()) {
        return at::empty(object.sizes, type);
    }
    auto all = at::empty({storage.integer}, raw_type);
    std::memcpy(all.data_ptr(), bytes.data(), static_cast<std::size_t>(storage.integer * item));
    auto view = all.as_strided(object.sizes, object.strides, object.integer);
    // A tensor that is a small part of its storage must not keep the whole of it.
    if (!view.is_contiguous() || view.numel() != all.numel()) view = view.clone(at::MemoryFormat::Contiguous);
    return type == at::kBool ? view.ne(0) : view;
}

bool is_floating_storage(const PickledObject& tensor) {
    const auto& type = tensor.items.front()->items.front()->text;
    return type == "torch.FloatStorage" || type == "torch.DoubleStorage" || type == "torch.HalfStorage" ||
           type == "torch.BFloat16Storage";
}

std::map<std::string, std::string> read_texts(const Archive& archive, const PickledObject& dict) {
    std::map<std::string, std::string> texts;
    if (!dict.is(Kind::dict)) archive.fail("its entry 'meta' is " + kind_name(dict.kind) + ", not a dict");
    for (std::size_t i = 0; i + 1 < dict.items.size(); i += 2) {
        if (!dict.items[i]->is(Kind::text) || !dict.items[i + 1]->is(Kind::text)) {
            archive.fail("its entry 'meta' holds something that is not a text");
        }
        texts[dict.items[i]->text] = dict.items[i + 1]->text;
    }
    return texts;
}

void write_archive(const std::filesystem::path& path, const ArchiveContent& content) {
    auto tensors = new_dict();
    for (const auto& [name, tensor] : content.tensors) {
        if (tensors.contains(name)) throw std::logic_error("write_archive: two tensors named " + name);
        // A copy, because the pickler writes a tensor's whole storage, and entries are views of one.
        tensors.insert(name, tensor.detach().cpu().clone(at::MemoryFormat::Contiguous));
    }
    auto meta = new_dict();
    for (const auto& [key, text] : content.meta) meta.insert(key, text);
    auto root = new_dict();
    root.insert(content.tensors_key, tensors);
    for (const auto& [key, text] : content.texts) root.insert(key, text);
    root.insert("meta", meta);

    std::string pickled;
    torch::jit::Pickler pickler([&](const char* data, std::size_t size) { pickled.append(data, size); },
                                nullptr, nullptr, nullptr, nullptr, /*tag_aggregates=*/false);
    pickler.protocol();
    pickler.pushIValue(root);
    pickler.stop();

    std::string zip;
    {
        caffe2::serialize::PyTorchStreamWriter writer([&](const void* data, std::size_t size) {
            zip.append(static_cast<const char*>(data), size);
            return size;
        });
        writer.writeRecord("data.pkl", pickled.data(), pickled.size());
        writer.writeRecord("byteorder", byte_order.data(), byte_order.size());
        std::size_t number = 0;
        for (const auto& tensor : pickler.tensorData()) {
            const auto data = torch::jit::getWriteableTensorData(tensor);
            writer.writeRecord("data/" + std::to_string(number++), data.data(), data.sizeInBytes());
        }
        writer.writeEndOfFile();
    }
    core::write_atomically(path, zip);
}

}  // namespace thalweg::model
