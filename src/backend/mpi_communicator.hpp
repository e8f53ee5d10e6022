#pragma once

#include <mpi.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "thalweg/core/communicator.hpp"

namespace thalweg::backend {

struct MpiOptions {
    /// No single message is longer: MPI counts are `int`. Tests set a small one.
    std::size_t largest_message = std::size_t{1} << 30;
};

/// The ranks of an MPI communicator. Waits by testing and sleeping. An interrupt leaves the call it arrives in
/// unfinished, so that the only way on is to end the process (`Backend::abort`).
class MpiCommunicator final : public core::Communicator {
  public:
    /// Works on duplicates of `world`. Collective, as the destructor is.
    explicit MpiCommunicator(MPI_Comm world, MpiOptions options = {});
    ~MpiCommunicator() override;
    MpiCommunicator(const MpiCommunicator&) = delete;
    MpiCommunicator& operator=(const MpiCommunicator&) = delete;

    int rank() const override { return rank_; }
    int size() const override { return size_; }
    /// Number of machines the ranks are on.
    int nodes() const { return nodes_; }
    /// True when an interrupt has left a call unfinished.
    bool broken() const { return broken_; }

    void agree(const std::exception_ptr& mine) override;
    void broadcast(std::span<std::byte> data, int root) override;
    std::vector<core::Bytes> all_gather(std::span<const std::byte> mine) override;
    std::vector<core::Bytes> exchange(const std::vector<core::Bytes>& out) override;
    std::shared_ptr<const std::byte> share(std::size_t size,
                                           const std::function<void(std::span<std::byte>)>& fill) override;
    std::uint64_t bytes_sent() const override { return bytes_sent_; }

    /// Sleeps until all ranks are here; never throws and heeds no interrupt. Collective.
    void wait_for_all() noexcept;

  private:
    /// Whether the others may be long in coming, or are known to be here.
    enum class Expect { late, soon };
    void wait(std::vector<MPI_Request>& requests, Expect expect);
    void wait(MPI_Request request, Expect expect);
    bool finished(std::vector<MPI_Request>& requests);
    void meet();
    void post_broadcast(std::span<std::byte> data, int root, std::vector<MPI_Request>& requests);

    int rank_ = 0, size_ = 1, nodes_ = 1;
    MPI_Comm comm_ = MPI_COMM_NULL;
    MPI_Comm node_ = MPI_COMM_NULL;  ///< the ranks of this machine
    MpiOptions options_;
    std::uint64_t bytes_sent_ = 0;
    bool broken_ = false;
    /// Until then an interrupt is left unheeded, so that interrupted ranks can agree that they are.
    std::chrono::steady_clock::time_point grace_{};
};

}  // namespace thalweg::backend
