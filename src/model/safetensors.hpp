#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace thalweg::model {

/// A safetensors file in memory: 8 bytes with the header's length (little-endian), a JSON header
/// `{"__metadata__": {key: text}, name: {"dtype": …, "shape": […], "data_offsets": [begin, end]}}`, the data.
/// Everything the header says is checked against the file before anybody uses it: its length, types, shapes
/// and offsets, that the tensors cover the data without a gap or an overlap, that nothing is there twice.
/// Source: https://github.com/huggingface/safetensors (format section of its README).
class Safetensors {
  public:
    struct Tensor {
        std::string name;
        at::ScalarType type = at::kFloat;
        std::vector<std::int64_t> shape;
        std::uint64_t begin = 0, end = 0;  ///< in bytes, from the start of the data
    };

    /// `path` stands in messages. RunError for whatever is not such a file.
    Safetensors(std::string content, std::filesystem::path path);

    /// In the order of their data.
    const std::vector<Tensor>& tensors() const { return tensors_; }
    const std::map<std::string, std::string>& metadata() const { return metadata_; }
    /// A copy of the data, contiguous.
    at::Tensor read(const Tensor& tensor) const;
    /// Throws RunError("Cannot read <path>: <reason>.").
    [[noreturn]] void fail(const std::string& reason) const;

  private:
    std::string_view find_header() const;
    void check_offsets();

    std::string content_;
    std::filesystem::path path_;
    std::vector<Tensor> tensors_;
    std::map<std::string, std::string> metadata_;
    std::size_t data_begin_ = 0;
};

/// Types that stand for float32 in a model.
bool is_floating(at::ScalarType type);

/// Writes atomically; the same content gives the same bytes. Tensors of wider elements come first, which keeps
/// every one aligned; otherwise their order is kept. RunError when the place cannot be written, a text is not
/// UTF-8 or a tensor's type has no place in our files; std::logic_error for two tensors of one name.
void write_safetensors(const std::filesystem::path& path,
                       const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                       const std::map<std::string, std::string>& metadata);

}  // namespace thalweg::model
