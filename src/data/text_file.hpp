#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "text_characters.hpp"
#include "thalweg/core/communicator.hpp"

namespace thalweg::data {

/// A file's bytes, kept once a node while it is being opened.
struct SharedBytes {
    std::shared_ptr<const std::byte> block;
    std::size_t size;

    TextBytes bytes() const { return {reinterpret_cast<const std::uint8_t*>(block.get()), size}; }
};

/// Reads a plain or gzipped file. Collective. RunError when it is missing, empty, damaged, past 2^32 - 1 bytes or
/// not the same on all nodes.
SharedBytes share_text_file(const std::string& path, core::Communicator& communicator);

}  // namespace thalweg::data
