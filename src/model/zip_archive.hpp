#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "file_error.hpp"

namespace thalweg::model {

/// The records of a zip archive held in memory, uncompressed ones only, which is what torch.save writes. Our
/// own because LibTorch's reader is compiled without the check of the CRCs. Every offset and length is
/// checked: damaged archives are a FormatError.
class ZipArchive {
  public:
    explicit ZipArchive(std::string content);

    bool has(const std::string& name) const { return records_.count(name) > 0; }
    /// The record's bytes, valid as long as the archive. FormatError when it is missing or its CRC is wrong.
    std::string_view record(const std::string& name) const;
    /// FormatError unless every record, the compressed ones included, is as its CRC and its local header say.
    void check_records() const;
    /// The folder that all records are in, with its slash (`archive/`).
    const std::string& folder() const { return folder_; }
    /// True for what torch.jit.save writes: it holds code.
    bool is_torchscript() const { return has(folder_ + "constants.pkl"); }
    const std::string& content() const { return content_; }

  private:
    struct Record {
        std::uint64_t header = 0;  ///< offset of the local header
        std::uint64_t size = 0;
        std::uint64_t stored = 0;  ///< as it lies in the archive
        std::uint32_t crc = 0;
        bool compressed = false;
        mutable bool verified = false;  ///< many tensors may lie in one record
    };
    struct Directory {
        std::uint64_t offset = 0, size = 0, entries = 0;
    };
    Directory find_directory() const;
    void read_directory(const Directory& directory);
    std::string content_;
    std::string folder_;
    std::map<std::string, Record> records_;
};

}  // namespace thalweg::model
