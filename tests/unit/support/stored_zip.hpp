#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "thalweg/core/files.hpp"

namespace thalweg::testing {

/// A zip archive of uncompressed records with the right checksums, so that what lies behind them is read.
inline std::string stored_zip(const std::vector<std::pair<std::string, std::string>>& records) {
    std::string zip, directory;
    const auto put = [](std::string& out, std::uint64_t value, int bytes) {
        for (int i = 0; i < bytes; ++i) out.push_back(static_cast<char>(value >> (8 * i) & 0xff));
    };
    for (const auto& [name, data] : records) {
        const auto offset = zip.size();
        std::string common;
        put(common, 0, 8);  // flags, method, time, date
        put(common, core::crc32(std::as_bytes(std::span(data))), 4);
        put(common, data.size(), 4);
        put(common, data.size(), 4);
        put(common, name.size(), 2);
        put(common, 0, 2);  // extra field
        put(zip, 0x04034b50, 4);
        put(zip, 20, 2);
        zip += common + name + data;
        put(directory, 0x02014b50, 4);
        put(directory, 0x00140014, 4);  // versions
        directory += common;
        directory.append(10, '\0');  // comment, disk, attributes
        put(directory, offset, 4);
        directory += name;
    }
    const auto start = zip.size();
    zip += directory;
    put(zip, 0x06054b50, 4);
    put(zip, 0, 4);
    put(zip, records.size(), 2);
    put(zip, records.size(), 2);
    put(zip, directory.size(), 4);
    put(zip, start, 4);
    put(zip, 0, 2);
    return zip;
}

}  // namespace thalweg::testing
