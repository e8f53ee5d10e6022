#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "pickle.hpp"
#include "zip_archive.hpp"

namespace thalweg::model {

/// RunError when the content is no zip archive or has no directory that can be read.
ZipArchive open_zip(std::string content, const std::filesystem::path& path);

/// A .pt file (what torch.save writes) opened for reading: its object and, on demand, its tensors.
class Archive {
  public:
    /// RunError when the file cannot be read, is not such a file, or is damaged.
    explicit Archive(const std::filesystem::path& path);
    /// The same of a file's content; `path` stands in messages.
    Archive(std::string content, std::filesystem::path path);
    Archive(ZipArchive zip, std::filesystem::path path);

    const PickledObject& root() const { return pickle_.root(); }
    const std::filesystem::path& path() const { return path_; }
    /// The tensor, with memory of its own, contiguous. RunError when the record is missing or damaged, or
    /// when sizes and strides reach outside it. `name` stands in messages.
    at::Tensor tensor(const PickledObject& object, const std::string& name) const;
    /// The type of a tensor's elements. RunError when it is none that is known.
    at::ScalarType type(const PickledObject& tensor) const;
    /// Throws RunError("Cannot read <path>: <reason>.").
    [[noreturn]] void fail(const std::string& reason) const;

  private:
    at::Tensor checked_tensor(const PickledObject& object, const std::string& name) const;
    std::filesystem::path path_;
    ZipArchive zip_;
    Pickle pickle_;
};

/// Texts and tensors beside each other, in this order, as the dict that is written.
struct ArchiveContent {
    std::string tensors_key;
    std::vector<std::pair<std::string, at::Tensor>> tensors;
    std::vector<std::pair<std::string, std::string>> texts;
    std::map<std::string, std::string> meta;
};

/// Writes `{tensors_key: {name: tensor}, text key: text, …, "meta": {…}}` atomically. The same content gives
/// the same bytes. RunError when the place cannot be written.
void write_archive(const std::filesystem::path& path, const ArchiveContent& content);

/// The dict's text values. RunError when something is not a text.
std::map<std::string, std::string> read_texts(const Archive& archive, const PickledObject& dict);

}  // namespace thalweg::model
