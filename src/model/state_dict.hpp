#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "thalweg/model/graph.hpp"
#include "zip_archive.hpp"

namespace thalweg::model {

/// The sorts of file that models and tensors are kept in; a file's name says which it is.
enum class FileFormat {
    pickled,      ///< what torch.save writes
    safetensors,  ///< names that end in `.safetensors`
};
FileFormat format_of(const std::filesystem::path& path);

/// What a model file holds, whatever its format: described, with nothing of the data read yet.
struct StateDict {
    struct Item {
        std::string sort;  ///< `a tensor`, or what it is instead
        std::vector<std::int64_t> shape;
        bool floating = true;
        std::function<at::Tensor()> read;
        bool is_tensor() const { return sort == "a tensor"; }
    };
    std::filesystem::path path;
    std::uint64_t file_size = 0;
    std::map<std::string, Item> items;
    /// The `model` section as YAML text, and text facts; only what this program wrote has them.
    std::optional<std::string> model;
    std::map<std::string, std::string> meta;
};

/// `content` is that of the file `path`, whose name says the format. RunError.
StateDict read_state_dict(std::string content, const std::filesystem::path& path);
/// The same of what torch.save wrote.
StateDict read_state_dict(ZipArchive zip, const std::filesystem::path& path);

/// RunError unless names, shapes and sorts of number are those of the graph. Before anything is allocated, so
/// that a damaged description cannot ask for memory.
void check_state_dict(const StateDict& state, const ModelGraph& graph);

}  // namespace thalweg::model
