#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "thalweg/model/graph.hpp"

namespace thalweg::model {

/// A module that Python wrote with torch.jit.save, as a graph, with the values it was saved with.
struct ImportedModel {
    ModelGraph graph;
    Parameters parameters;
};

/// Reads a scripted or traced module (PyTorch 1.13 to 2.x) whose forward takes one tensor [N, input_shape…] (floats, or
/// whole numbers for a module that begins with an embedding) and returns logits [N, classes].
///
/// The module is run on a few random inputs of two batch sizes and its operations are recorded, so a TorchScript file
/// is code: read only files that you trust. Layers that behave differently in training (dropout, batch norm) do so in
/// the graph, whatever mode the module was saved in. What was translated is checked against the module's own outputs.
///
/// RunError when the file cannot be read or is damaged (the CRC of every record is checked before LibTorch sees it);
/// UsageError, with the operation and the line of Python it comes from, for what has no counterpart in a ModelGraph:
/// unknown operations, control flow that depends on the data, anything that mixes the samples of a batch.
ImportedModel import_torchscript(const std::filesystem::path& path, const Sizes& input_shape,
                                 std::int64_t classes);
/// The same of a file's content; `path` stands in messages.
ImportedModel import_torchscript(const std::filesystem::path& path, const std::string& content,
                                 const Sizes& input_shape, std::int64_t classes);

/// What the option `checksum` of a model of kind torchscript is compared with, as `1a2b3c4d-5120`: the content's CRC-32
/// and its size.
std::string module_checksum(const std::string& content);

}  // namespace thalweg::model
