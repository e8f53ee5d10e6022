#include "safetensors.hpp"

#include <torch/types.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>

#include "file_error.hpp"
#include "safetensors_header.hpp"
#include "thalweg/core/files.hpp"
#include "thalweg/core/text.hpp"

namespace thalweg::model {

namespace {

static_assert(std::endian::native == std::endian::little, "the data of safetensors files are little-endian");

constexpr std::uint64_t length_bytes = 8;
constexpr std::uint64_t longest_header = 100'000'000;  // the reference implementation's

struct TypeName {
    std::string_view name;
    at::ScalarType type;
};
constexpr std::array<TypeName, 5> type_names{{{"F32", at::kFloat},
                                              {"F64", at::kDouble},
                                              {"F16", at::kHalf},
                                              {"BF16", at::kBFloat16},
                                              {"I64", at::kLong}}};
constexpr const char* supported_types = "F32, F64, F16, BF16 and I64 are supported";

at::ScalarType type_of(const SafetensorsHeader::Entry& entry) {
    for (const auto& [name, type] : type_names) {
        if (name == entry.dtype) return type;
    }
    throw FormatError("tensor " + entry.name + " is of the type " + entry.dtype.substr(0, 20) +
                      ", which is not supported; " + supported_types);
}

std::string_view name_of(const std::string& tensor, at::ScalarType type) {
    for (const auto& known : type_names) {
        if (known.type == type) return known.name;
    }
    throw core::RunError("tensor " + tensor + " is of the type " + c10::toString(type) +
                         ", which our safetensors files do not hold; " + supported_types +
                         ". Name a .pt file.");
}

/// The tensor's size in bytes is that of its shape, and shape and strides can be counted in 64 bits.
Safetensors::Tensor checked(const SafetensorsHeader::Entry& entry) {
    Safetensors::Tensor tensor{entry.name, type_of(entry), entry.shape, 0, 0};
    auto bytes = static_cast<std::int64_t>(c10::elementSize(tensor.type));
    std::int64_t reach = bytes;  // what strides are made of: an empty axis counts as one there
    for (const auto size : entry.shape) {
        if (__builtin_mul_overflow(bytes, size, &bytes) ||
            __builtin_mul_overflow(reach, std::max<std::int64_t>(size, 1), &reach)) {
            throw FormatError("tensor " + entry.name + " of shape " + core::shape_text(entry.shape) +
                              " is too large to be counted");
        }
    }
    if (entry.offsets[0] > entry.offsets[1] || entry.offsets[1] - entry.offsets[0] != bytes) {
        throw FormatError("tensor " + entry.name + " of shape " + core::shape_text(entry.shape) + " takes " +
                          std::to_string(bytes) + " bytes, but its data_offsets are " +
                          std::to_string(entry.offsets[0]) + " to " + std::to_string(entry.offsets[1]));
    }
    tensor.begin = static_cast<std::uint64_t>(entry.offsets[0]);
    tensor.end = static_cast<std::uint64_t>(entry.offsets[1]);
    return tensor;
}

/// The header and its length.
std::string header_text(const std::filesystem::path& path,
                        const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                        const std::map<std::string, std::string>& metadata) {
    using Json = nlohmann::ordered_json;
    std::string text = "{";
    std::size_t end = 0;
    std::set<std::string> names{"__metadata__"};
    try {
        text += "\"__metadata__\":" + Json(metadata).dump();
        for (const auto& [name, tensor] : tensors) {
            if (!names.insert(name).second)
                throw std::logic_error("write_safetensors: two tensors named " + name);
            const auto begin = end;
            end += tensor.nbytes();
            Json entry;
            entry["dtype"] = name_of(name, tensor.scalar_type());
            entry["shape"] = tensor.sizes().vec();
            entry["data_offsets"] = std::vector<std::size_t>{begin, end};
            text.append(",").append(Json(name).dump()).append(":").append(entry.dump());
        }
    } catch (const Json::type_error&) {
        throw core::RunError("Cannot write '" + path.string() +
                             "': a text in it (the path of its data, say) is not UTF-8, which safetensors "
                             "files need. Name a .pt file.");
    }
    text += "}";
    text.append((length_bytes - text.size() % length_bytes) % length_bytes, ' ');
    std::string length(length_bytes, '\0');
    for (std::size_t i = 0; i < length_bytes; ++i)
        length[i] = static_cast<char>(std::uint64_t{text.size()} >> (8 * i) & 0xff);
    return length.append(text);
}

}  // namespace

Safetensors::Safetensors(std::string content, std::filesystem::path path)
    : content_(std::move(content)), path_(std::move(path)) {
    try {
        const auto text = find_header();
        auto header = parse_safetensors_header(text);
        metadata_ = std::move(header.metadata);
        data_begin_ = length_bytes + text.size();
        tensors_.reserve(header.entries.size());
        for (const auto& entry : header.entries) tensors_.push_back(checked(entry));
        check_offsets();
    } catch (const FormatError& error) {
        fail(error.what());
    }
}

void Safetensors::fail(const std::string& reason) const {
    refuse_file(path_, reason);
}

std::string_view Safetensors::find_header() const {
    if (content_.starts_with("PK\x03\x04"))
        throw FormatError("it is a zip archive, as torch.save writes; the name of such a file ends in .pt");
    if (content_.size() < length_bytes) throw FormatError("it is too short for a safetensors file");
    std::uint64_t length = 0;
    for (std::size_t i = length_bytes; i-- > 0;)
        length = length << 8 | static_cast<unsigned char>(content_[i]);
    if (length > longest_header || length > content_.size() - length_bytes) {
        throw FormatError("it is cut off or not a safetensors file: it announces a header of " +
                          std::to_string(length) + " bytes and has " +
                          std::to_string(content_.size() - length_bytes) + " (at most " +
                          std::to_string(longest_header) + " are read)");
    }
    const auto header = std::string_view(content_).substr(length_bytes, length);
    if (!header.starts_with('{')) throw FormatError("it is not a safetensors file: its header is not JSON");
    return header;
}

void Safetensors::check_offsets() {
    std::stable_sort(tensors_.begin(), tensors_.end(), [](const Tensor& a, const Tensor& b) {
        return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
    });
    std::uint64_t next = 0;
    for (const auto& tensor : tensors_) {
        if (tensor.begin != next) {
            throw FormatError(
                "the data of tensor " + tensor.name + " begin at byte " + std::to_string(tensor.begin) +
                (tensor.begin > next ? ", after a gap from " : ", inside another's that end at ") +
                std::to_string(next));
        }
        next = tensor.end;
    }
    if (next != content_.size() - data_begin_) {
        throw FormatError("its tensors take " + std::to_string(next) + " bytes, but " +
                          std::to_string(content_.size() - data_begin_) +
                          " follow the header: the file is cut off or damaged");
    }
}

at::Tensor Safetensors::read(const Tensor& tensor) const {
    auto values = at::empty(tensor.shape, tensor.type);
    if (tensor.end > tensor.begin)
        std::memcpy(values.data_ptr(), content_.data() + data_begin_ + tensor.begin,
                    tensor.end - tensor.begin);
    return values;
}

bool is_floating(at::ScalarType type) {
    return type == at::kFloat || type == at::kDouble || type == at::kHalf || type == at::kBFloat16;
}

void write_safetensors(const std::filesystem::path& path,
                       const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                       const std::map<std::string, std::string>& metadata) {
    auto ordered = tensors;
    std::stable_sort(ordered.begin(), ordered.end(), [](const auto& a, const auto& b) {
        return a.second.element_size() > b.second.element_size();
    });
    auto file = header_text(path, ordered, metadata);
    std::size_t size = file.size();
    for (const auto& [name, tensor] : ordered) size += tensor.nbytes();
    file.reserve(size);
    for (const auto& [name, tensor] : ordered) {
        const auto values = tensor.detach().cpu().contiguous();
        if (values.nbytes() > 0) file.append(static_cast<const char*>(values.data_ptr()), values.nbytes());
    }
    core::write_atomically(path, file);
}

}  // namespace thalweg::model
