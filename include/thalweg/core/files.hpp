#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace thalweg::core {

/// Writes to `path` + ".part", flushes to disk and renames, so that a reader (or a resumed run) never sees half a file.
/// RunError names the path and the system's reason.
void write_atomically(const std::filesystem::path& path, std::span<const std::byte> content);
void write_atomically(const std::filesystem::path& path, const std::string& content);

/// Adds `text` at the end of `path` (made when it is not there) and flushes it to disk. RunError names the path and the
/// system's reason; the file is then as it was before.
void append_durably(const std::filesystem::path& path, const std::string& text);

/// The whole file. RunError names the path and the system's reason.
std::string read_file(const std::filesystem::path& path);

/// The file unzipped when it begins with gzip's magic, as it is otherwise. `limit`: refuses to grow past that many
/// bytes. RunError for damaged or truncated gzip data.
std::vector<std::uint8_t> read_maybe_gzip(const std::filesystem::path& path, std::size_t limit);

/// CRC-32 (zlib's polynomial).
std::uint32_t crc32(std::span<const std::byte> data);

}  // namespace thalweg::core
