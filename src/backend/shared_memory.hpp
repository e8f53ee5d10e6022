#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace thalweg::backend {

/// Memory that processes of one machine have in common: an anonymous file in memory. It has no name, so that nothing is
/// left behind by a killed run, goes with its last user, and is not bound by the size of /dev/shm (64 MB in a container).
class SharedMemory {
  public:
    /// Makes `size` zero bytes. RunError when the machine does not have them.
    static SharedMemory create(std::size_t size);
    /// Joins memory that another process of this machine and user has made. RunError when it cannot be reached.
    static SharedMemory join(std::int64_t process, std::int64_t file, std::size_t size);

    /// Where other processes find it, as long as this object lives.
    std::int64_t process() const;
    std::int64_t file() const;
    /// Writable for who made it, until `freeze`.
    std::span<std::byte> bytes() const { return {static_cast<std::byte*>(memory_.get()), size_}; }
    void freeze();
    /// The mapping, which may outlive this object.
    std::shared_ptr<const std::byte> handle() const;

  private:
    SharedMemory(int file, std::size_t size, bool writable);
    std::shared_ptr<int> file_;
    std::shared_ptr<void> memory_;
    std::size_t size_ = 0;
};

}  // namespace thalweg::backend
