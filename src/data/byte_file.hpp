#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

struct gzFile_s;

namespace thalweg::data {

/// What the person at the terminal can do about a data file.
struct Remedy {
    std::string missing;  ///< `install it with …`
    std::string damaged;  ///< `download it again …`
};

/// 47,040,016
std::string count_text(std::uint64_t count);

/// The path with a leading `~/` replaced by the home folder, as a shell would have done.
std::filesystem::path expand_home(const std::string& path);

/// A file that is read from front to back straight into the caller's memory, unzipped on the way when it
/// begins with gzip's magic. Every fault is a RunError that names the file, what was expected and the remedy.
class ByteFile {
  public:
    ByteFile(std::filesystem::path path, Remedy remedy);
    ~ByteFile();
    ByteFile(const ByteFile&) = delete;
    ByteFile& operator=(const ByteFile&) = delete;

    /// Fills `out`. `expected`: what the whole file should hold, for the message: `47,040,016 bytes for
    /// 60,000 …`.
    void read(std::span<std::uint8_t> out, const std::string& expected);
    /// Reads to the end and returns how many bytes the file holds, after unzipping; stops once they are more than
    /// `limit`.
    std::uint64_t measure(std::uint64_t limit, const std::string& expected);
    /// Checks that nothing follows (for gzip: that the stream is whole and its checksum right).
    void finish(const std::string& expected);
    /// Bytes read so far, after unzipping.
    std::uint64_t position() const { return position_; }
    /// The most bytes that the file can hold, after unzipping; deflate packs at most 1032 to one.
    std::uint64_t most_bytes() const;
    [[noreturn]] void fail(const std::string& what) const;

  private:
    std::size_t read_some(std::uint8_t* out, std::size_t count, const std::string& expected);

    std::filesystem::path path_;
    Remedy remedy_;
    gzFile_s* file_ = nullptr;
    std::uint64_t stored_bytes_ = 0;
    std::uint64_t position_ = 0;
};

}  // namespace thalweg::data
