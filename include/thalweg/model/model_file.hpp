#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "thalweg/model/graph.hpp"
#include "thalweg/model/parameters.hpp"

namespace thalweg::model {

/// A model on disk, in one of two formats that the file's name tells apart: what Python's torch.load
/// (weights_only, too) reads as `{"state_dict": {name: tensor}, "model": "<yaml>", "meta": {…}}`, or, when the name
/// ends in `.safetensors`, that format with `model` and meta among the texts of its `__metadata__`.
struct ModelFile {
    ModelGraph graph;
    Parameters parameters;
    /// Text facts: `data` (`fashion_mnist:/path`), `written_by`, `round`, …
    std::map<std::string, std::string> meta;
};

/// Writes atomically; the same content gives the same bytes. RunError when the place cannot be written.
/// float32 only (std::logic_error for double). A safetensors file's meta has no keys `model` and `format`
/// (std::logic_error) and is UTF-8 (RunError).
void save_model(const std::filesystem::path& path, const ModelGraph& graph, const Parameters& parameters,
                const std::map<std::string, std::string>& meta);

/// Reads a model file, a safetensors file of another program or a Python state_dict (also one kept under the key
/// `state_dict`) when `spec` gives the architecture: the `model` section with `input` and `classes` (`--model`); it goes
/// before what the file says. A TorchScript file, which is code (see import_torchscript), is read only when `spec` is of
/// kind torchscript (its values are taken for that module) or has no `kind` (the file is its own architecture). A safetensors file is F32, F64, F16, BF16 and I64. Tensors may have any strides; float16, bfloat16 and float64 become float32. Values need not be
/// finite: see Parameters::first_non_finite. RunError names the file and what is wrong: not a zip, damaged
/// (CRC), a Python object that is not on the white list, a tensor missing, superfluous or of another shape
/// than the architecture says. UsageError when `spec` describes no model.
ModelFile load_model(const std::filesystem::path& path, const std::optional<core::Value>& spec = {});
/// The same of a file's content; `path` says the format by its ending and stands in messages.
ModelFile parse_model(std::string content, const std::filesystem::path& path,
                      const std::optional<core::Value>& spec = {});

/// A dict of tensors ([name] → tensor, any of float32/float64/int64/uint8) as a .pt file that Python reads,
/// with text facts beside them: `{"tensors": {…}, "meta": {…}}`. Checkpoints and exported batch orders are
/// such files. With a name that ends in `.safetensors` in that format (float32/float64/float16/bfloat16/int64).
void save_tensors(const std::filesystem::path& path,
                  const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                  const std::map<std::string, std::string>& meta);
struct TensorFile {
    std::vector<std::pair<std::string, at::Tensor>> tensors;
    std::map<std::string, std::string> meta;
    const at::Tensor& at(const std::string& name) const;  ///< RunError when missing
};
/// RunError when it is no such file.
TensorFile load_tensors(const std::filesystem::path& path);
TensorFile parse_tensors(std::string content, const std::filesystem::path& path);

/// RunError (naming both files, and the first difference) unless the two models have the same architecture.
void require_same_architecture(const ModelGraph& a, const std::string& name_a, const ModelGraph& b,
                               const std::string& name_b);

}  // namespace thalweg::model
