#pragma once

#include <memory>

#include "thalweg/backend/backend.hpp"

namespace thalweg::backend {

/// Starts MPI and ends it. RunError when MPI cannot be started.
std::unique_ptr<Backend> make_mpi_backend(int* argc, char*** argv);

}  // namespace thalweg::backend
