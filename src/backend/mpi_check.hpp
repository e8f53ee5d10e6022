#pragma once

#include <mpi.h>

#include <string>

#include "thalweg/core/error.hpp"

namespace thalweg::backend {

/// RunError with MPI's own words unless `code` is success.
inline void check(int code, const char* call) {
    if (code == MPI_SUCCESS) return;
    std::string text(MPI_MAX_ERROR_STRING, '\0');
    int length = 0;
    MPI_Error_string(code, text.data(), &length);
    text.resize(static_cast<std::size_t>(length));
    throw core::RunError(std::string("MPI failed in ") + call + ": " + text);
}

}  // namespace thalweg::backend
