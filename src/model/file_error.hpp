#pragma once

#include <filesystem>
#include <stdexcept>
#include <string>

#include "thalweg/core/error.hpp"

namespace thalweg::model {

/// What is wrong with a file's bytes; whoever knows the file's name turns it into a RunError.
class FormatError : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

/// RunError("Cannot read <path>: <reason>.")
[[noreturn]] inline void refuse_file(const std::filesystem::path& path, const std::string& reason) {
    throw core::RunError("Cannot read " + path.string() + ": " + reason + ".");
}

}  // namespace thalweg::model
