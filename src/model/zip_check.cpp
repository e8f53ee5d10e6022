// The check of a whole archive that somebody else is going to read. TorchScript archives hold compressed records (code).
#include <zlib.h>

#include <array>
#include <span>

#include "thalweg/core/files.hpp"
#include "zip_archive.hpp"

namespace thalweg::model {

namespace {

constexpr std::uint64_t local_header_size = 30;
constexpr std::uint32_t local_signature = 0x04034b50;

std::string_view slice(std::string_view bytes, std::uint64_t offset, std::uint64_t size) {
    if (offset > bytes.size() || size > bytes.size() - offset)
        throw FormatError("the archive is cut off or damaged");
    return bytes.substr(offset, size);
}

std::uint64_t number(std::string_view bytes, std::uint64_t offset, std::size_t size) {
    const auto raw = slice(bytes, offset, size);
    std::uint64_t value = 0;
    for (std::size_t i = size; i-- > 0;) value = (value << 8) | static_cast<unsigned char>(raw[i]);
    return value;
}

/// The CRC of what raw deflate data unpack to; nothing is kept. `size`: how much there should be; anything else, and
/// data that are not deflate's, is a FormatError.
std::uint32_t inflated_crc(std::string_view packed, std::uint64_t size, const std::string& name) {
    z_stream stream{};
    if (inflateInit2(&stream, -MAX_WBITS) != Z_OK)
        throw FormatError("record " + name + " cannot be unpacked");
    // zlib's interface is not const, but it does not write there; its counts are 32 bits, records of code are small
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data()));
    stream.avail_in = static_cast<uInt>(packed.size());
    std::array<unsigned char, 16384> chunk{};
    uLong crc = crc32(0, nullptr, 0);
    std::uint64_t total = 0;
    int status = Z_OK;
    while (status == Z_OK && total <= size) {
        stream.next_out = chunk.data();
        stream.avail_out = chunk.size();
        status = inflate(&stream, Z_NO_FLUSH);
        const auto written = chunk.size() - stream.avail_out;
        crc = crc32(crc, chunk.data(), static_cast<uInt>(written));
        total += written;
    }
    const bool all_read = stream.avail_in == 0;
    inflateEnd(&stream);
    if (status != Z_STREAM_END || total != size || !all_read)
        throw FormatError("record " + name + " is damaged: it does not unpack to its size");
    return static_cast<std::uint32_t>(crc);
}

}  // namespace

void ZipArchive::check_records() const {
    const std::string_view content(content_);
    for (const auto& [name, record] : records_) {
        const auto damaged = [&, &name = name](const std::string& how) -> FormatError {
            return FormatError("record " + name + " is damaged: " + how);
        };
        const auto header = slice(content, record.header, local_header_size);
        const auto name_size = number(header, 26, 2);
        const auto data = record.header + local_header_size + name_size + number(header, 28, 2);
        if (number(header, 0, 4) != local_signature ||
            slice(content, record.header + local_header_size, name_size) != name)
            throw damaged("its header is not where the directory says");
        if ((number(header, 8, 2) != 0) != record.compressed ||
            (record.compressed && number(header, 8, 2) != 8))
            throw damaged("its header and the directory differ in how it is packed");
        const auto packed = slice(content, data, record.stored);
        if (packed.size() > 0xffffffffU && record.compressed) throw damaged("more than 4 GiB, compressed");
        const auto crc = record.compressed
                             ? inflated_crc(packed, record.size, name)
                             : core::crc32(std::as_bytes(std::span(packed.data(), packed.size())));
        if (crc != record.crc) throw damaged("its checksum (CRC) is wrong");
    }
}

}  // namespace thalweg::model
