#pragma once

#include <unistd.h>

#include <cerrno>

namespace thalweg::core {

/// A file descriptor that closes itself.
class Descriptor {
  public:
    explicit Descriptor(int number) : number_(number) {}
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    ~Descriptor() {
        if (number_ >= 0) ::close(number_);
    }
    int number() const { return number_; }
    /// 0, or the reason why the last of the data may be lost.
    int close() {
        const int result = ::close(number_);
        number_ = -1;
        return result == 0 || errno == EINTR ? 0 : errno;
    }

  private:
    int number_;
};

}  // namespace thalweg::core
