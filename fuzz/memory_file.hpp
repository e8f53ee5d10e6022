#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <span>
#include <string>

namespace thalweg::fuzz {

/// A folder of this process's own that goes away with the object.
class Folder {
  public:
    explicit Folder(const std::string& name)
        : path_(std::filesystem::temp_directory_path() / (name + "-" + std::to_string(::getpid()))) {
        std::filesystem::create_directories(path_);
    }
    ~Folder() { std::filesystem::remove_all(path_); }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;
    const std::filesystem::path& path() const { return path_; }

  private:
    std::filesystem::path path_;
};

/// A file that has a name but lies in memory, for readers that open what they read by its name.
class MemoryFile {
  public:
    explicit MemoryFile(const std::filesystem::path& name) : number_(::memfd_create("fuzz", 0)) {
        if (number_ < 0) std::abort();
        std::filesystem::create_symlink("/proc/self/fd/" + std::to_string(number_), name);
    }
    ~MemoryFile() { ::close(number_); }
    MemoryFile(const MemoryFile&) = delete;
    MemoryFile& operator=(const MemoryFile&) = delete;

    void set(std::span<const std::uint8_t> content) {
        if (::ftruncate(number_, 0) != 0) std::abort();
        if (::pwrite(number_, content.data(), content.size(), 0) != static_cast<ssize_t>(content.size()))
            std::abort();
    }

  private:
    int number_;
};

}  // namespace thalweg::fuzz
