#pragma once

#include <cstdint>
#include <exception>
#include <string>

namespace thalweg::backend {

/// An error in a form that travels between ranks.
struct Failure {
    enum class Class : std::int32_t { interrupted, usage, run, other };
    Class kind = Class::run;
    std::int32_t exit_code = 1;
    std::string message;
};

/// What `error` (not null) says. Anything but a core::Error is a fault of the program's own: `internal error: …`.
Failure describe(const std::exception_ptr& error);

/// Throws it as UsageError, RunError, Interrupted or core::Error.
[[noreturn]] void raise(const Failure& failure);

}  // namespace thalweg::backend
