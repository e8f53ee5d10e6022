#include "byte_file.hpp"

#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <system_error>
#include <utility>
#include <vector>

#include "thalweg/core/error.hpp"

namespace thalweg::data {

std::string count_text(std::uint64_t count) {
    std::string text = std::to_string(count);
    for (std::size_t end = text.size(); end > 3; end -= 3) text.insert(end - 3, 1, ',');
    return text;
}

std::filesystem::path expand_home(const std::string& path) {
    const char* home = std::getenv("HOME");
    if (path.starts_with("~/") && home != nullptr) return home + path.substr(1);
    return path;
}

ByteFile::ByteFile(std::filesystem::path path, Remedy remedy)
    : path_(std::move(path)), remedy_(std::move(remedy)) {
    std::error_code status;
    if (!std::filesystem::is_regular_file(path_, status)) {
        const bool there = std::filesystem::exists(path_, status);
        throw core::RunError(path_.string() + ": " + (there ? "is not a file" : "there is no such file") +
                             "; " + remedy_.missing);
    }
    stored_bytes_ = std::filesystem::file_size(path_, status);
    errno = 0;
    file_ = status ? nullptr : gzopen(path_.c_str(), "rb");
    if (file_ == nullptr) {
        throw core::RunError(path_.string() + ": cannot be opened: " +
                             (errno != 0 ? std::strerror(errno) : "out of memory") + "; " + remedy_.missing);
    }
    gzbuffer(file_, 1U << 17U);
}

ByteFile::~ByteFile() {
    gzclose(file_);
}

void ByteFile::fail(const std::string& what) const {
    throw core::RunError(path_.string() + ": " + what + "; " + remedy_.damaged);
}

std::uint64_t ByteFile::most_bytes() const {
    return gzdirect(file_) != 0 ? stored_bytes_ : stored_bytes_ * 1032;
}

std::size_t ByteFile::read_some(std::uint8_t* out, std::size_t count, const std::string& expected) {
    constexpr std::size_t largest_call = 1U << 30U;  // gzread takes and returns int
    errno = 0;
    const int got = gzread(file_, out, static_cast<unsigned>(std::min(count, largest_call)));
    int code = Z_OK;
    std::string reason = gzerror(file_, &code);
    if (code == Z_BUF_ERROR) {
        position_ += static_cast<std::uint64_t>(std::max(got, 0));
        fail("expected " + expected + " but its gzip data are cut off after " + count_text(position_) +
             " bytes");
    }
    if (got < 0 || code < 0) {
        if (code == Z_ERRNO) fail(std::string("cannot be read: ") + std::strerror(errno));
        if (const auto prefix = path_.string() + ": "; reason.starts_with(prefix))
            reason.erase(0, prefix.size());
        fail("expected " + expected + " but its gzip data are damaged after " + count_text(position_) +
             " bytes (zlib: " + reason + ")");
    }
    position_ += static_cast<std::uint64_t>(got);
    return static_cast<std::size_t>(got);
}

void ByteFile::read(std::span<std::uint8_t> out, const std::string& expected) {
    while (!out.empty()) {
        const std::size_t got = read_some(out.data(), out.size(), expected);
        if (got == 0) fail("expected " + expected + " but the file ends after " + count_text(position_));
        out = out.subspan(got);
    }
}

std::uint64_t ByteFile::measure(std::uint64_t limit, const std::string& expected) {
    std::vector<std::uint8_t> buffer(std::size_t{1} << 17U);
    while (position_ <= limit && read_some(buffer.data(), buffer.size(), expected) != 0) {
    }
    return position_;
}

void ByteFile::finish(const std::string& expected) {
    std::uint8_t extra = 0;
    if (read_some(&extra, 1, expected) != 0)
        fail("expected " + expected + " but the file goes on after them");
}

}  // namespace thalweg::data
