#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "thalweg/core/communicator.hpp"
#include "thalweg/data/dataset.hpp"

namespace thalweg::data {

class ByteFile;

/// What every data set of byte images states about itself.
struct ImageFacts {
    std::string name;
    std::string source;
    std::int64_t channels;
    std::int64_t height;
    std::int64_t width;
    std::int64_t classes;

    std::int64_t bytes() const { return channels * height * width; }
};

/// One half (training or test) of an image data set. `read` fills images [count, channels, height, width] and
/// labels [count] and throws RunError when the files do not hold exactly these.
struct ImagePart {
    std::int64_t count = 0;
    std::function<void(std::span<std::uint8_t> images, std::span<std::uint8_t> labels)> read;
};

/// Both halves, as cheaply as their sizes can be known.
struct ImageParts {
    ImagePart train;
    ImagePart test;
};

/// RunError that names `file` for the first label out of 0…classes-1.
void check_labels(const ByteFile& file, std::span<const std::uint8_t> labels, std::int64_t classes);

/// Opens an image data set: `look` runs on every rank and finds the files and their sizes, `read` on one rank
/// of each node, into memory that the node shares. The normalisation is that of the training bytes.
/// Collective; what `look` and `read` throw is thrown on every rank, and so is a RunError when two nodes hold
/// different data.
std::shared_ptr<const Dataset> open_images(const ImageFacts& facts, core::Communicator& communicator,
                                           const std::function<ImageParts()>& look);

}  // namespace thalweg::data
