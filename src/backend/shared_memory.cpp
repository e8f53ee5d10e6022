#include "shared_memory.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

#include "thalweg/core/error.hpp"
#include "thalweg/core/memory.hpp"
#include "thalweg/core/text.hpp"

namespace thalweg::backend {
namespace {

[[noreturn]] void refuse(std::size_t size, const std::string& reason) {
    throw core::RunError("cannot share " + core::bytes_text(static_cast<double>(size)) +
                         " of data between the ranks of this machine: " + reason +
                         "; free memory, take a smaller data set, or run without mpirun");
}

/// A mapping of zero bytes does not exist.
std::size_t mapped_size(std::size_t size) {
    return std::max<std::size_t>(size, 1);
}

}  // namespace

SharedMemory::SharedMemory(int file, std::size_t size, bool writable)
    : file_(new int(file),
            [](const int* descriptor) {
                close(*descriptor);
                delete descriptor;
            }),
      size_(size) {
    const std::size_t length = mapped_size(size);
    void* address = mmap(nullptr, length, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, file, 0);
    if (address == MAP_FAILED) refuse(size, std::strerror(errno));
    memory_ = {address, [length](void* where) { munmap(where, length); }};
}

SharedMemory SharedMemory::create(std::size_t size) {
    // The kernel would hand pages out until it has to kill somebody.
    const auto available = core::available_memory(size);
    if (available > 0 && size > available) {
        refuse(size, "only " + core::bytes_text(static_cast<double>(available)) + " of memory are available");
    }
    const int file = memfd_create("thalweg", MFD_CLOEXEC);
    if (file < 0) refuse(size, std::strerror(errno));
    // Every page now: later there would be no error but a signal.
    if (const int code = posix_fallocate(file, 0, static_cast<off_t>(mapped_size(size))); code != 0) {
        close(file);
        refuse(size, std::strerror(code));
    }
    return {file, size, true};
}

SharedMemory SharedMemory::join(std::int64_t process, std::int64_t file, std::size_t size) {
    const std::string path = "/proc/" + std::to_string(process) + "/fd/" + std::to_string(file);
    const int joined = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (joined < 0) {
        refuse(size, "the memory of process " + std::to_string(process) + " cannot be reached (" +
                         std::strerror(errno) +
                         "): the ranks of a machine must run in one container and as one user");
    }
    return {joined, size, false};
}

std::int64_t SharedMemory::process() const {
    return getpid();
}
std::int64_t SharedMemory::file() const {
    return *file_;
}

void SharedMemory::freeze() {
    mprotect(memory_.get(), mapped_size(size_), PROT_READ);
}

std::shared_ptr<const std::byte> SharedMemory::handle() const {
    return {memory_, static_cast<const std::byte*>(memory_.get())};
}

}  // namespace thalweg::backend
