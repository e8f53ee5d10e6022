#pragma once

#include <string>

#include "thalweg/backend/backend.hpp"
#include "thalweg/record/record.hpp"

namespace thalweg::app {

/// One compute thread for OpenMP, OpenBLAS and ATen alike: two threads change the bits, and cores are filled by ranks.
void use_one_thread();

/// The heap keeps freed buffers of up to 32 MiB instead of giving them back to the kernel: a network's activations are
/// allocated and freed with every batch, and clearing their pages anew took two fifths of a convolutional net's evaluation.
/// When memory gets short, core::available_memory gives them back. Larger ones still go back at once: kept, they would
/// leave holes as large as a model.
void keep_freed_memory();

/// The shared library that matrix products end up in: `/usr/lib/…/libopenblas.so.0`.
std::string blas_library();

/// A line of warning with the fix when matrix products go to the reference BLAS (20 times slower), else empty.
std::string blas_warning();

/// Writes to stderr; under Open MPI 5 to that of the launcher, which stops passing on what its ranks write as soon as it is
/// interrupted itself (seen with 5.0.7), though it gives them a moment to end.
void say_when_interrupted(const std::string& text);

/// Versions, BLAS, ranks: what manifest.json says of the program and the machine.
record::Json manifest(const backend::Backend& backend, int ranks);

}  // namespace thalweg::app
