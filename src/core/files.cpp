#include "thalweg/core/files.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <new>

#include "thalweg/core/descriptor.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/memory.hpp"

namespace thalweg::core {
namespace {

constexpr std::size_t largest_step = std::size_t{1} << 30;  // zlib counts in 32 bits

[[noreturn]] void fail(const char* verb, const std::filesystem::path& path, int reason) {
    throw RunError(std::string("cannot ") + verb + " '" + path.string() + "': " + std::strerror(reason));
}

/// 0 or errno.
int write_all(int file, std::span<const std::byte> content) {
    while (!content.empty()) {
        const ssize_t written = ::write(file, content.data(), std::min(content.size(), largest_step));
        if (written < 0 && errno == EINTR) continue;
        if (written < 0) return errno;
        content = content.subspan(static_cast<std::size_t>(written));
    }
    int result = 0;
    do result = ::fsync(file);
    while (result != 0 && errno == EINTR);
    return result == 0 || errno == EINVAL ? 0 : errno;  // EINVAL: a file system that cannot flush
}

int write_new(const std::filesystem::path& path, std::span<const std::byte> content) {
    Descriptor file(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
    if (file.number() < 0) return errno;
    if (const int reason = write_all(file.number(), content)) return reason;
    return file.close();
}

/// The rename itself survives a power cut only when the folder is flushed too. Not every file system can: best effort.
void flush_folder(const std::filesystem::path& path) {
    const auto parent = path.parent_path();
    const Descriptor folder(
        ::open(parent.empty() ? "." : parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (folder.number() >= 0) static_cast<void>(::fsync(folder.number()));
}

template <class Container>
Container read_all(const std::filesystem::path& path, std::size_t limit) {
    const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (file.number() < 0) fail("read", path, errno);
    struct stat about = {};
    Container content;
    if (::fstat(file.number(), &about) == 0 && about.st_size > 0) {
        require_memory(static_cast<double>(about.st_size), "the content of '" + path.string() + "'");
        content.reserve(std::min(static_cast<std::size_t>(about.st_size), limit) + 1);
    }
    std::size_t filled = 0;
    while (true) {
        // The byte more than the file has shows its end without asking for twice the memory.
        const std::size_t room = content.capacity() - filled;
        const std::size_t step = room > 0 ? std::min(room, largest_step) : std::size_t{1} << 16;
        content.resize(filled + step);
        const ssize_t got = ::read(file.number(), content.data() + filled, step);
        if (got < 0 && errno != EINTR) fail("read", path, errno);
        if (got > 0) filled += static_cast<std::size_t>(got);
        if (filled > limit) {
            throw RunError("cannot read '" + path.string() + "': it is larger than " + std::to_string(limit) +
                           " bytes, the most that is expected of it");
        }
        content.resize(filled);
        if (got == 0) return content;
    }
}

class Inflater {
  public:
    Inflater() {
        if (inflateInit2(&stream_, 15 + 16) != Z_OK)
            throw std::bad_alloc();  // 16: gzip's header and checksum
    }
    Inflater(const Inflater&) = delete;
    Inflater& operator=(const Inflater&) = delete;
    ~Inflater() { inflateEnd(&stream_); }

    /// One step; what it consumed and produced is taken off the spans.
    int step(std::span<const std::uint8_t>& in, std::span<std::uint8_t>& out) {
        stream_.next_in = const_cast<Bytef*>(in.data());
        stream_.avail_in = static_cast<uInt>(std::min(in.size(), largest_step));
        stream_.next_out = out.data();
        stream_.avail_out = static_cast<uInt>(std::min(out.size(), largest_step));
        const int state = inflate(&stream_, Z_NO_FLUSH);
        in = in.subspan(static_cast<std::size_t>(stream_.next_in - in.data()));
        out = out.subspan(static_cast<std::size_t>(stream_.next_out - out.data()));
        return state;
    }
    void next_member() { inflateReset(&stream_); }

  private:
    z_stream stream_ = {};
};

bool is_gzip(std::span<const std::uint8_t> data) {
    return data.size() >= 2 && data[0] == 0x1f && data[1] == 0x8b;
}

std::vector<std::uint8_t> unzip(std::span<const std::uint8_t> in, std::size_t limit,
                                const std::string& name) {
    Inflater inflater;
    std::vector<std::uint8_t> content;
    std::size_t filled = 0;
    while (true) {
        if (filled == content.size()) {
            // One byte over the limit is enough to know that there is more.
            content.resize(std::min(std::max<std::size_t>(2 * filled, 1 << 16), limit + 1));
        }
        auto out = std::span(content).subspan(filled);
        const int state = inflater.step(in, out);
        filled = content.size() - out.size();
        if (filled > limit) {
            throw RunError("cannot unzip '" + name + "': it grows past " + std::to_string(limit) +
                           " bytes, the most that is expected of it");
        }
        if (state == Z_STREAM_END) {
            if (is_gzip(in)) {  // gzip files may be concatenated
                inflater.next_member();
                continue;
            }
            // Tapes and some tools pad with zeros; anything else is damage.
            if (std::any_of(in.begin(), in.end(), [](std::uint8_t byte) { return byte != 0; })) {
                throw RunError("cannot unzip '" + name +
                               "': something else follows the gzip data; fetch the file anew");
            }
            content.resize(filled);
            return content;
        }
        if (state == Z_MEM_ERROR) throw std::bad_alloc();
        if (state != Z_OK && state != Z_BUF_ERROR) {
            throw RunError("cannot unzip '" + name + "': the gzip data is damaged; fetch the file anew");
        }
        if (in.empty() && !out.empty()) {
            throw RunError("cannot unzip '" + name + "': the file is truncated; fetch it anew");
        }
    }
}

}  // namespace

namespace {

/// Where a symbolic link leads, so that the rename replaces the file and not the link. RunError for what is not a
/// file: renaming over a device or a pipe would put an ordinary file in its place.
std::filesystem::path regular_target(const std::filesystem::path& path) {
    std::error_code error;  // what is not there yet is fine; every other fault shows when it is written
    const bool is_link = std::filesystem::is_symlink(std::filesystem::symlink_status(path, error));
    const auto target = is_link ? std::filesystem::weakly_canonical(path, error) : path;
    const auto status = std::filesystem::status(target, error);
    if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status) &&
        !std::filesystem::is_directory(status)) {
        throw RunError("cannot write '" + path.string() +
                       "': it is there and not an ordinary file; name another");
    }
    return target;
}

}  // namespace

void write_atomically(const std::filesystem::path& given, std::span<const std::byte> content) {
    const auto path = regular_target(given);
    auto part = path;
    part += ".part";
    int reason = write_new(part, content);
    if (reason == 0 && ::rename(part.c_str(), path.c_str()) != 0) reason = errno;
    if (reason != 0) {
        ::unlink(part.c_str());
        fail("write", path, reason);
    }
    flush_folder(path);
}

void write_atomically(const std::filesystem::path& path, const std::string& content) {
    write_atomically(path, std::as_bytes(std::span(content)));
}

void append_durably(const std::filesystem::path& path, const std::string& text) {
    Descriptor file(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666));
    if (file.number() < 0) fail("write", path, errno);
    struct stat before = {};
    if (::fstat(file.number(), &before) != 0) fail("write", path, errno);
    if (const int reason = write_all(file.number(), std::as_bytes(std::span(text)))) {
        // A full disk takes half a text: take it back, so that the file stays whole. Where that fails, too, whoever
        // reads it finds a torn end.
        [[maybe_unused]] const int undone = ::ftruncate(file.number(), before.st_size);
        fail("write", path, reason);
    }
}

std::string read_file(const std::filesystem::path& path) {
    return read_all<std::string>(path, std::numeric_limits<std::int64_t>::max());
}

std::vector<std::uint8_t> read_maybe_gzip(const std::filesystem::path& path, std::size_t limit) {
    // What does not compress grows a little when zipped.
    auto content = read_all<std::vector<std::uint8_t>>(path, limit + limit / 64 + (1 << 16));
    if (is_gzip(content)) return unzip(content, limit, path.string());
    if (content.size() > limit) {
        throw RunError("cannot read '" + path.string() + "': it is larger than " + std::to_string(limit) +
                       " bytes, the most that is expected of it");
    }
    return content;
}

std::uint32_t crc32(std::span<const std::byte> data) {
    uLong sum = ::crc32(0, nullptr, 0);
    while (!data.empty()) {
        const std::size_t step = std::min(data.size(), largest_step);
        sum = ::crc32(sum, reinterpret_cast<const Bytef*>(data.data()), static_cast<uInt>(step));
        data = data.subspan(step);
    }
    return static_cast<std::uint32_t>(sum);
}

}  // namespace thalweg::core
