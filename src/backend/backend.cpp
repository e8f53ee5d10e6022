#include "thalweg/backend/backend.hpp"

#include <algorithm>
#include <array>
#include <cstdlib>

#include "mpi_backend.hpp"

namespace thalweg::backend {
namespace {

class SerialBackend final : public Backend {
  public:
    core::Communicator& communicator() override { return communicator_; }
    std::string name() const override { return "serial"; }
    std::string description() const override { return "one process"; }
    [[noreturn]] void abort(int exit_code) override { std::_Exit(exit_code); }

  private:
    core::SelfCommunicator communicator_;
};

/// What mpirun (Open MPI, MPICH, Intel MPI) and Slurm's srun with PMI or PMIx put into a rank's environment.
bool launched_by_mpi() {
    constexpr std::array names{"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "PMI_SIZE",
                               "MPI_LOCALNRANKS"};
    return std::any_of(names.begin(), names.end(),
                       [](const char* name) { return std::getenv(name) != nullptr; });
}

}  // namespace

std::unique_ptr<Backend> make_serial_backend() {
    return std::make_unique<SerialBackend>();
}

std::unique_ptr<Backend> make_backend(int* argc, char*** argv) {
    return launched_by_mpi() ? make_mpi_backend(argc, argv) : make_serial_backend();
}

}  // namespace thalweg::backend
