#include "mpi_backend.hpp"

#include <cstdlib>

#include "mpi_check.hpp"
#include "mpi_communicator.hpp"

namespace thalweg::backend {
namespace {

std::string counted(int count, const std::string& what) {
    return std::to_string(count) + " " + what + (count == 1 ? "" : "s");
}

/// `Open MPI 4.1.4` from `Open MPI v4.1.4, package: …`; MPICH puts a tab and ends with a line break.
std::string library_version() {
    std::string text(MPI_MAX_LIBRARY_VERSION_STRING, '\0');
    int length = 0;
    check(MPI_Get_library_version(text.data(), &length), "MPI_Get_library_version");
    text.resize(static_cast<std::size_t>(length));
    text = text.substr(0, text.find_first_of(",\n\r"));
    for (char& c : text) {
        if (c == '\t') c = ' ';
    }
    const auto v = text.find(" v");
    if (v != std::string::npos) text.erase(v + 1, 1);
    return text;
}

class MpiBackend final : public Backend {
  public:
    MpiBackend(int* argc, char*** argv) {
        int provided = 0;
        check(MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread");
        // The communicator's own handles return errors; whatever else MPI meets is fatal to all ranks, which is right.
        communicator_ = std::make_unique<MpiCommunicator>(MPI_COMM_WORLD);
        description_ = library_version() + ", " + counted(communicator_->size(), "rank") + " on " +
                       counted(communicator_->nodes(), "node");
    }

    ~MpiBackend() override {
        const bool broken = communicator_->broken();
        communicator_.reset();
        if (broken) MPI_Abort(MPI_COMM_WORLD, 130);  // finalising would wait for a call that nobody ends
        MPI_Finalize();
    }

    MpiBackend(const MpiBackend&) = delete;
    MpiBackend& operator=(const MpiBackend&) = delete;

    core::Communicator& communicator() override { return *communicator_; }
    std::string name() const override { return "mpi"; }
    std::string description() const override { return description_; }

    [[noreturn]] void abort(int exit_code) override {
        MPI_Abort(MPI_COMM_WORLD, exit_code);
        std::_Exit(exit_code);
    }

  private:
    std::unique_ptr<MpiCommunicator> communicator_;
    std::string description_;
};

}  // namespace

std::unique_ptr<Backend> make_mpi_backend(int* argc, char*** argv) {
    return std::make_unique<MpiBackend>(argc, argv);
}

}  // namespace thalweg::backend
