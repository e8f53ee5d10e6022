#include "zip_archive.hpp"

#include <algorithm>
#include <array>
#include <span>

#include "thalweg/core/files.hpp"

namespace thalweg::model {

namespace {

// Numbers of the zip format (PKWARE's APPNOTE.TXT, 4.3).
constexpr std::uint64_t local_header_size = 30;
constexpr std::uint64_t directory_entry_size = 46;
constexpr std::uint64_t end_size = 22;
constexpr std::uint64_t locator64_size = 20;
constexpr std::uint64_t end64_size = 56;
constexpr std::uint32_t local_signature = 0x04034b50;
constexpr std::uint32_t entry_signature = 0x02014b50;
constexpr std::uint32_t end_signature = 0x06054b50;
constexpr std::uint32_t locator64_signature = 0x07064b50;
constexpr std::uint32_t end64_signature = 0x06064b50;
constexpr std::uint64_t in_extra_32 = 0xffffffff;
constexpr std::uint64_t in_extra_16 = 0xffff;

/// `size` bytes at `offset`, or a FormatError.
std::string_view slice(std::string_view bytes, std::uint64_t offset, std::uint64_t size) {
    if (offset > bytes.size() || size > bytes.size() - offset)
        throw FormatError("the archive is cut off or damaged");
    return bytes.substr(offset, size);
}

/// A little-endian number of sizeof(T) bytes.
template <class T>
T number(std::string_view bytes, std::uint64_t offset) {
    const auto raw = slice(bytes, offset, sizeof(T));
    T value = 0;
    for (std::size_t i = sizeof(T); i-- > 0;) {
        value = static_cast<T>((static_cast<std::uint64_t>(value) << 8) | static_cast<unsigned char>(raw[i]));
    }
    return value;
}

/// Replaces fields that say "see the extra field" by what the zip64 extra field says, in the format's order.
template <std::size_t count>
void apply_extra64(std::string_view extra, const std::array<std::uint64_t*, count>& fields) {
    for (std::uint64_t at = 0; at + 4 <= extra.size();) {
        const auto id = number<std::uint16_t>(extra, at);
        const auto body = slice(extra, at + 4, number<std::uint16_t>(extra, at + 2));
        at += 4 + body.size();
        if (id != 1) continue;
        std::uint64_t next = 0;
        for (auto* field : fields) {
            if (*field != in_extra_32) continue;
            *field = number<std::uint64_t>(body, next);
            next += 8;
        }
        return;
    }
}

}  // namespace

ZipArchive::ZipArchive(std::string content) : content_(std::move(content)) {
    if (content_.size() < end_size || number<std::uint32_t>(content_, 0) != local_signature) {
        throw FormatError("it is not a zip archive");
    }
    read_directory(find_directory());
}

ZipArchive::Directory ZipArchive::find_directory() const {
    // The end record is followed by a comment of at most 65,535 bytes.
    const auto furthest = std::min<std::uint64_t>(content_.size(), end_size + 0xffff);
    for (std::uint64_t back = end_size; back <= furthest; ++back) {
        const auto at = content_.size() - back;
        if (number<std::uint32_t>(content_, at) != end_signature) continue;
        Directory directory;
        directory.entries = number<std::uint16_t>(content_, at + 10);
        directory.size = number<std::uint32_t>(content_, at + 12);
        directory.offset = number<std::uint32_t>(content_, at + 16);
        const bool large = directory.entries == in_extra_16 || directory.size == in_extra_32 ||
                           directory.offset == in_extra_32;
        if (large && at >= locator64_size &&
            number<std::uint32_t>(content_, at - locator64_size) == locator64_signature) {
            const auto end64 = number<std::uint64_t>(content_, at - locator64_size + 8);
            const auto record = slice(content_, end64, end64_size);
            if (number<std::uint32_t>(record, 0) != end64_signature) break;
            directory.entries = number<std::uint64_t>(record, 32);
            directory.size = number<std::uint64_t>(record, 40);
            directory.offset = number<std::uint64_t>(record, 48);
        }
        return directory;
    }
    throw FormatError("the archive is cut off: its directory is missing");
}

void ZipArchive::read_directory(const Directory& directory) {
    const auto bytes = slice(content_, directory.offset, directory.size);
    std::uint64_t at = 0;
    for (std::uint64_t i = 0; i < directory.entries; ++i) {
        const auto head = slice(bytes, at, directory_entry_size);
        if (number<std::uint32_t>(head, 0) != entry_signature)
            throw FormatError("the archive's directory is damaged");
        const auto flags = number<std::uint16_t>(head, 8);
        const auto method = number<std::uint16_t>(head, 10);
        const auto name_size = number<std::uint16_t>(head, 28);
        const auto extra_size = number<std::uint16_t>(head, 30);
        const auto comment_size = number<std::uint16_t>(head, 32);
        Record record;
        record.crc = number<std::uint32_t>(head, 16);
        std::uint64_t stored = number<std::uint32_t>(head, 20);
        record.size = number<std::uint32_t>(head, 24);
        record.header = number<std::uint32_t>(head, 42);
        const std::string name(slice(bytes, at + directory_entry_size, name_size));
        apply_extra64<3>(slice(bytes, at + directory_entry_size + name_size, extra_size),
                         {&record.size, &stored, &record.header});
        record.stored = stored;
        at += directory_entry_size + name_size + extra_size + comment_size;

        if ((flags & 1U) != 0) throw FormatError("record " + name + " is encrypted");
        record.compressed = method != 0;
        if (!record.compressed && stored != record.size)
            throw FormatError("the archive's directory is damaged");
        if (!records_.emplace(name, record).second) throw FormatError("record " + name + " is there twice");
        if (i == 0) folder_ = name.substr(0, name.find('/') + 1);
    }
}

std::string_view ZipArchive::record(const std::string& name) const {
    const auto found = records_.find(name);
    if (found == records_.end()) throw FormatError("record " + name + " is missing");
    const auto& record = found->second;
    if (record.compressed) {
        throw FormatError("record " + name + " is compressed, which torch.save never does; save it again");
    }
    const auto header = slice(content_, record.header, local_header_size);
    if (number<std::uint32_t>(header, 0) != local_signature)
        throw FormatError("record " + name + " is damaged");
    const auto data = record.header + local_header_size + number<std::uint16_t>(header, 26) +
                      number<std::uint16_t>(header, 28);
    const auto bytes = slice(content_, data, record.size);
    if (!record.verified && core::crc32(std::as_bytes(std::span(bytes.data(), bytes.size()))) != record.crc) {
        throw FormatError("record " + name + " is damaged: its checksum (CRC) is wrong");
    }
    record.verified = true;
    return bytes;
}

}  // namespace thalweg::model
