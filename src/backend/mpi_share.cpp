#include <exception>

#include "mpi_check.hpp"
#include "mpi_communicator.hpp"
#include "thalweg/core/text.hpp"

namespace thalweg::backend {

std::shared_ptr<const std::byte> MpiCommunicator::share(
    std::size_t size, const std::function<void(std::span<std::byte>)>& fill) {
    int node_rank = 0;
    check(MPI_Comm_rank(node_, &node_rank), "MPI_Comm_rank");
    const bool leads = node_rank == 0;

    MPI_Win window = MPI_WIN_NULL;
    std::byte* memory = nullptr;
    meet();  // MPI would spin until all are here; we sleep
    core::collectively(*this, [&] {
        // Collective over the node, but without this communicator's calls.
        const int code = MPI_Win_allocate_shared(leads ? static_cast<MPI_Aint>(size) : 0, 1, MPI_INFO_NULL,
                                                 node_, static_cast<void*>(&memory), &window);
        if (code != MPI_SUCCESS) {
            throw core::RunError(
                "no shared memory for " + core::bytes_text(static_cast<double>(size)) +
                " of data on this machine; make /dev/shm larger (in a container: --shm-size) or run "
                "on fewer ranks a machine, alone without mpirun at the least");
        }
    });
    windows_.push_back(window);
    check(MPI_Win_set_errhandler(window, MPI_ERRORS_RETURN), "MPI_Win_set_errhandler");
    MPI_Aint extent = 0;
    int unit = 1;
    check(MPI_Win_shared_query(window, 0, &extent, &unit, static_cast<void*>(&memory)),
          "MPI_Win_shared_query");

    check(MPI_Win_lock_all(MPI_MODE_NOCHECK, window), "MPI_Win_lock_all");
    core::collectively(*this, [&] {
        if (leads) fill({memory, size});
        check(MPI_Win_sync(window), "MPI_Win_sync");
    });
    check(MPI_Win_sync(window), "MPI_Win_sync");
    check(MPI_Win_unlock_all(window), "MPI_Win_unlock_all");
    static std::byte nothing{};
    // No owner: the window is given back with all others when the communicator goes.
    return {std::shared_ptr<void>(), memory != nullptr ? memory : &nothing};
}

}  // namespace thalweg::backend
