#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "thalweg/core/communicator.hpp"

namespace thalweg::backend {

/// The machines a run has: one process, or the ranks of an `mpirun`. Owns MPI's lifetime; made once, by main, and gone
/// last: nothing may use the communicator after it. MPI is started only under mpirun, so that a
/// single process needs neither MPI's start-up time nor its permission to run as root.
///
/// Its end is collective. A rank that leaves on an error the others do not share (Interrupted among them) calls `abort`
/// instead.
class Backend {
  public:
    virtual ~Backend() = default;
    virtual core::Communicator& communicator() = 0;
    /// `serial` or `mpi`
    virtual std::string name() const = 0;
    /// Library version and layout for the manifest: `Open MPI 4.1.4, 3 ranks on 1 node`.
    virtual std::string description() const = 0;
    /// Ends the whole run at once with this exit code, without waiting for the others.
    [[noreturn]] virtual void abort(int exit_code) = 0;
};

/// MpiBackend under mpirun (seen by the launcher's environment variables), SerialBackend otherwise.
std::unique_ptr<Backend> make_backend(int* argc, char*** argv);
std::unique_ptr<Backend> make_serial_backend();

/// Which rank trains whom: clients sorted by cost (largest first, lower index first among equals) go one by one to the
/// rank with the least so far (lowest rank among equals). owner[i] for costs[i]. Longest-processing-time rule, Graham
/// 1969: at most 4/3 of the best makespan.
std::vector<int> place(std::span<const std::int64_t> costs, int ranks);

}  // namespace thalweg::backend
