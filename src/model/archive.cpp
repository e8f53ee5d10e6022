#include "archive.hpp"

#include <ATen/core/Dict.h>
#include <ATen/core/jit_type.h>
#include <caffe2/serialize/inline_container.h>
#include <torch/csrc/jit/serialization/pickler.h>
#include <torch/types.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "file_error.hpp"
#include "thalweg/core/files.hpp"
#include "thalweg/core/text.hpp"

namespace thalweg::model {

namespace {

using Kind = PickledObject::Kind;

constexpr std::string_view byte_order = std::endian::native == std::endian::little ? "little" : "big";

Pickle read_pickle(const std::filesystem::path& path, const ZipArchive& zip) {
    if (zip.is_torchscript())
        refuse_file(path,
                    "it is a TorchScript module, which is code. If you trust it, say what it reads and tells "
                    "apart, for "
                    "instance --model \"{input: [3, 32, 32], classes: 10}\"; or save its weights alone with "
                    "torch.save(model.state_dict(), path)");
    try {
        const auto order = zip.folder() + "byteorder";
        if (zip.has(order) && zip.record(order) != byte_order) {
            throw FormatError("it was written on a machine with another byte order");
        }
        return Pickle(zip.record(zip.folder() + "data.pkl"));
    } catch (const FormatError& error) {
        refuse_file(path, error.what());
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

/// The index of the last element of the storage that the tensor reaches (that of the first for an empty one).
/// FormatError unless sizes and strides stay inside a storage of `available` elements. Expanded tensors (more
/// elements than the storage has) are refused, so that a small file cannot ask for all the memory.
std::int64_t last_element(const PickledObject& tensor, std::int64_t available, const std::string& name) {
    const auto outside = [&] {
        throw FormatError("tensor " + name + " of shape " + core::shape_text(tensor.sizes) +
                          " reaches outside its storage");
    };
    std::int64_t count = 1;
    std::int64_t counted = 1;  // what strides are made of: an empty axis counts as one there
    std::int64_t last = tensor.integer;
    if (last < 0) outside();
    for (std::size_t axis = 0; axis < tensor.sizes.size(); ++axis) {
        const auto size = tensor.sizes[axis];
        std::int64_t reach = 0;
        if (size < 0 || tensor.strides[axis] < 0 || __builtin_mul_overflow(count, size, &count) ||
            __builtin_mul_overflow(counted, std::max<std::int64_t>(size, 1), &counted) ||
            __builtin_mul_overflow(std::max<std::int64_t>(size - 1, 0), tensor.strides[axis], &reach) ||
            __builtin_add_overflow(last, reach, &last)) {
            outside();
        }
    }
    // The library multiplies by the size of an element as well.
    if (counted > std::numeric_limits<std::int64_t>::max() / 16) outside();
    if (count > 0 && (last >= available || count > available)) outside();
    return last;
}

c10::impl::GenericDict new_dict() {
    return c10::impl::GenericDict(c10::StringType::get(), c10::AnyType::get());
}

}  // namespace

ZipArchive open_zip(std::string content, const std::filesystem::path& path) {
    // How torch.save began its files before PyTorch 1.6: protocol 2 and a magic number.
    const std::string_view old_magic("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19", 14);
    if (content.starts_with(old_magic)) {
        refuse_file(path,
                    "it was saved by PyTorch before 1.6; re-save it in Python with "
                    "torch.save(torch.load(path), path) of a newer PyTorch");
    }
    try {
        return ZipArchive(std::move(content));
    } catch (const FormatError& error) {
        refuse_file(path, std::string(error.what()) +
                              ". A model file is what torch.save or this program "
                              "writes, or ends in .safetensors");
    }
}

Archive::Archive(const std::filesystem::path& path) : Archive(core::read_file(path), path) {}

Archive::Archive(std::string content, std::filesystem::path path)
    : Archive(open_zip(std::move(content), path), path) {}

Archive::Archive(ZipArchive zip, std::filesystem::path path)
    : path_(std::move(path)), zip_(std::move(zip)), pickle_(read_pickle(path_, zip_)) {}

void Archive::fail(const std::string& reason) const {
    refuse_file(path_, reason);
}

at::Tensor Archive::tensor(const PickledObject& object, const std::string& name) const {
    if (!object.is(Kind::tensor)) fail(name + " is " + kind_name(object.kind) + ", not a tensor");
    try {
        return checked_tensor(object, name);
    } catch (const FormatError& error) {
        fail(error.what());
    }
}

at::ScalarType Archive::type(const PickledObject& tensor) const {
    try {
        return scalar_type(tensor.items.front()->items.front()->text);
    } catch (const FormatError& error) {
        fail(error.what());
    }
}

at::Tensor Archive::checked_tensor(const PickledObject& object, const std::string& name) const {
    const auto& storage = *object.items.front();
    const auto type = scalar_type(storage.items.front()->text);
    // Any byte but 0 and 1 is undefined in a bool.
    const auto raw_type = type == at::kBool ? at::kByte : type;
    const auto bytes = zip_.record(zip_.folder() + "data/" + storage.items[1]->text);
    const auto item = static_cast<std::int64_t>(c10::elementSize(raw_type));
    const auto available = static_cast<std::int64_t>(bytes.size()) / item;
    if (storage.integer < 0 || storage.integer > available) {
        throw FormatError("the record of tensor " + name + " is shorter than it says");
    }
    const auto last = last_element(object, storage.integer, name);
    if (std::find(object.sizes.begin(), object.sizes.end(), 0) != object.sizes.end()) {
        return at::empty(object.sizes, type);
    }
    // Only what the tensor reaches: many small tensors may share one large storage.
    auto reached = at::empty({last - object.integer + 1}, raw_type);
    std::memcpy(reached.data_ptr(), bytes.data() + object.integer * item,
                static_cast<std::size_t>(reached.numel() * item));
    auto view = reached.as_strided(object.sizes, object.strides, 0);
    if (!view.is_contiguous() || view.numel() != reached.numel())
        view = view.clone(at::MemoryFormat::Contiguous);
    return type == at::kBool ? view.ne(0) : view;
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
