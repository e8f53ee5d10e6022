#include "mpi_communicator.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <limits>
#include <optional>
#include <stdexcept>
#include <thread>

#include "failure.hpp"
#include "mpi_check.hpp"
#include "shared_memory.hpp"
#include "thalweg/core/interrupt.hpp"

namespace thalweg::backend {
namespace {

constexpr int message_tag = 1;
/// Gathers of no more than this in all go through one collective and a copy, longer ones straight to their place.
constexpr std::size_t small_gather = std::size_t{1} << 16;
/// Broadcasts longer than this begin with a meeting, so that the data then flow between ranks that poll quickly.
constexpr std::size_t long_broadcast = std::size_t{1} << 16;

/// Turns of testing, then sleeps that grow to `longest`: a waiting rank leaves its core to one that trains.
class Patience {
  public:
    explicit Patience(std::chrono::microseconds longest) : longest_(longest) {}
    void pause() {
        if (turns_ < 300) {
            ++turns_;
            return;
        }
        std::this_thread::sleep_for(sleep_);
        sleep_ = std::min(longest_, sleep_ + sleep_ / 8);
    }

  private:
    int turns_ = 0;
    std::chrono::microseconds sleep_{20};
    std::chrono::microseconds longest_;
};

/// Calls use(offset, length) for the pieces of `size` bytes.
template <class Use>
void for_each_piece(std::size_t size, std::size_t largest, Use&& use) {
    for (std::size_t offset = 0; offset < size; offset += largest)
        use(offset, std::min(largest, size - offset));
}

}  // namespace

MpiCommunicator::MpiCommunicator(MPI_Comm world, MpiOptions options) : options_(options) {
    options_.largest_message =
        std::clamp<std::size_t>(options_.largest_message, 1, std::numeric_limits<int>::max());
    check(MPI_Comm_dup(world, &comm_), "MPI_Comm_dup");
    check(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    check(MPI_Comm_rank(comm_, &rank_), "MPI_Comm_rank");
    check(MPI_Comm_size(comm_, &size_), "MPI_Comm_size");
    check(MPI_Comm_split_type(comm_, MPI_COMM_TYPE_SHARED, rank_, MPI_INFO_NULL, &node_),
          "MPI_Comm_split_type");
    check(MPI_Comm_set_errhandler(node_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    int node_rank = 0;
    check(MPI_Comm_rank(node_, &node_rank), "MPI_Comm_rank");
    const int leads = node_rank == 0 ? 1 : 0;
    check(MPI_Allreduce(&leads, &nodes_, 1, MPI_INT, MPI_SUM, comm_), "MPI_Allreduce");
}

MpiCommunicator::~MpiCommunicator() {
    // An unfinished call would never meet its partners in the collective calls below.
    if (broken_) return;
    wait_for_all();
    MPI_Comm_free(&node_);
    MPI_Comm_free(&comm_);
}

bool MpiCommunicator::finished(std::vector<MPI_Request>& requests) {
    int done = 0;
    check(MPI_Testall(static_cast<int>(requests.size()), requests.data(), &done, MPI_STATUSES_IGNORE),
          "MPI_Testall");
    return done != 0;
}

void MpiCommunicator::wait(std::vector<MPI_Request>& requests, Expect expect) {
    Patience patience(std::chrono::microseconds(expect == Expect::soon ? 50 : 500));
    while (true) {
        if (core::interrupt_requested() && std::chrono::steady_clock::now() >= grace_) {
            broken_ = true;
            core::check_interrupt();
        }
        if (finished(requests)) return;
        patience.pause();
    }
}

void MpiCommunicator::wait(MPI_Request request, Expect expect) {
    std::vector<MPI_Request> requests{request};
    wait(requests, expect);
}

void MpiCommunicator::wait_for_all() noexcept {
    MPI_Request request = MPI_REQUEST_NULL;
    if (MPI_Ibarrier(comm_, &request) != MPI_SUCCESS) return;
    Patience patience(std::chrono::microseconds(500));
    int done = 0;
    while (MPI_Test(&request, &done, MPI_STATUS_IGNORE) == MPI_SUCCESS && done == 0) patience.pause();
}

void MpiCommunicator::meet() {
    MPI_Request request = MPI_REQUEST_NULL;
    check(MPI_Ibarrier(comm_, &request), "MPI_Ibarrier");
    wait(request, Expect::late);
}

void MpiCommunicator::agree(const std::exception_ptr& mine) {
    constexpr std::int64_t well = std::numeric_limits<std::int64_t>::max();
    constexpr std::int64_t not_interrupted = std::int64_t{1} << 32;
    // The smallest key is the error to throw: an interrupted rank's, else that of the lowest rank.
    std::int64_t key = well;
    Failure failure;
    if (mine || core::interrupt_requested()) {
        failure = mine ? describe(mine) : describe(std::make_exception_ptr(core::Interrupted()));
        const bool interrupted = failure.kind == Failure::Class::interrupted;
        key = rank_ + (interrupted ? 0 : not_interrupted);
        // mpirun passes a signal to all ranks: given a moment they all come here, and end as one.
        if (interrupted) grace_ = std::chrono::steady_clock::now() + std::chrono::milliseconds(300);
    }
    std::int64_t smallest = well;
    MPI_Request request = MPI_REQUEST_NULL;
    check(MPI_Iallreduce(&key, &smallest, 1, MPI_INT64_T, MPI_MIN, comm_, &request), "MPI_Iallreduce");
    wait(request, Expect::late);
    if (smallest == well) return;

    const int speaker = static_cast<int>(smallest % not_interrupted);
    std::array<std::int64_t, 3> header{static_cast<std::int64_t>(failure.kind), failure.exit_code,
                                       static_cast<std::int64_t>(failure.message.size())};
    broadcast(std::as_writable_bytes(std::span(header)), speaker);
    Failure agreed{static_cast<Failure::Class>(header[0]), static_cast<std::int32_t>(header[1]),
                   failure.message};
    agreed.message.resize(static_cast<std::size_t>(header[2]));
    broadcast(std::as_writable_bytes(std::span(agreed.message)), speaker);
    raise(agreed);
}

void MpiCommunicator::post_broadcast(std::span<std::byte> data, int root,
                                     std::vector<MPI_Request>& requests) {
    for_each_piece(data.size(), options_.largest_message, [&](std::size_t offset, std::size_t length) {
        requests.push_back(MPI_REQUEST_NULL);
        check(MPI_Ibcast(data.data() + offset, static_cast<int>(length), MPI_BYTE, root, comm_,
                         &requests.back()),
              "MPI_Ibcast");
    });
}

void MpiCommunicator::broadcast(std::span<std::byte> data, int root) {
    if (root < 0 || root >= size_) throw std::invalid_argument("broadcast: no such root");
    const bool is_long = data.size() > long_broadcast;
    if (is_long) meet();
    std::vector<MPI_Request> requests;
    post_broadcast(data, root, requests);
    if (rank_ == root) bytes_sent_ += data.size() * static_cast<std::uint64_t>(size_ - 1);
    wait(requests, is_long ? Expect::soon : Expect::late);
}

std::vector<core::Bytes> MpiCommunicator::all_gather(std::span<const std::byte> mine) {
    const auto ranks = static_cast<std::size_t>(size_);
    const std::uint64_t size = mine.size();
    std::vector<std::uint64_t> sizes(ranks);
    MPI_Request request = MPI_REQUEST_NULL;
    check(MPI_Iallgather(&size, 1, MPI_UINT64_T, sizes.data(), 1, MPI_UINT64_T, comm_, &request),
          "MPI_Iallgather");
    wait(request, Expect::late);
    bytes_sent_ += size * static_cast<std::uint64_t>(size_ - 1);

    std::vector<core::Bytes> all(ranks);
    std::uint64_t total = 0;
    for (std::size_t r = 0; r < ranks; ++r) {
        all[r].resize(sizes[r]);
        total += sizes[r];
    }
    std::copy(mine.begin(), mine.end(), all[static_cast<std::size_t>(rank_)].begin());
    if (total <= std::min(small_gather, options_.largest_message)) {
        std::vector<int> counts(sizes.begin(), sizes.end()), places(ranks, 0);
        for (std::size_t r = 1; r < ranks; ++r) places[r] = places[r - 1] + counts[r - 1];
        core::Bytes flat(total);
        check(MPI_Iallgatherv(mine.data(), static_cast<int>(size), MPI_BYTE, flat.data(), counts.data(),
                              places.data(), MPI_BYTE, comm_, &request),
              "MPI_Iallgatherv");
        wait(request, Expect::soon);
        for (std::size_t r = 0; r < ranks; ++r)
            std::copy_n(flat.begin() + places[r], counts[r], all[r].begin());
    } else {
        std::vector<MPI_Request> requests;
        for (int r = 0; r < size_; ++r) post_broadcast(all[static_cast<std::size_t>(r)], r, requests);
        wait(requests, Expect::soon);
    }
    return all;
}

std::vector<core::Bytes> MpiCommunicator::exchange(const std::vector<core::Bytes>& out) {
    const auto ranks = static_cast<std::size_t>(size_);
    if (out.size() != ranks) throw std::invalid_argument("exchange: one entry a rank is needed");
    std::vector<std::uint64_t> sending(ranks), coming(ranks);
    for (std::size_t r = 0; r < ranks; ++r) sending[r] = out[r].size();
    MPI_Request request = MPI_REQUEST_NULL;
    check(MPI_Ialltoall(sending.data(), 1, MPI_UINT64_T, coming.data(), 1, MPI_UINT64_T, comm_, &request),
          "MPI_Ialltoall");
    wait(request, Expect::late);

    // Straight into place, piece by piece (MPI keeps the order between two ranks): no second copy of what may be a
    // whole cohort of models.
    std::vector<core::Bytes> in(ranks);
    std::vector<MPI_Request> requests;
    const auto self = static_cast<std::size_t>(rank_);
    const auto post = [&](auto call, const char* name, auto* data, std::size_t size, std::size_t r) {
        for_each_piece(size, options_.largest_message, [&](std::size_t offset, std::size_t length) {
            requests.push_back(MPI_REQUEST_NULL);
            check(call(data + offset, static_cast<int>(length), MPI_BYTE, static_cast<int>(r), message_tag,
                       comm_, &requests.back()),
                  name);
        });
    };
    for (std::size_t r = 0; r < ranks; ++r) {
        if (r == self) continue;
        in[r].resize(coming[r]);
        post(MPI_Irecv, "MPI_Irecv", in[r].data(), in[r].size(), r);
    }
    for (std::size_t r = 0; r < ranks; ++r) {
        if (r == self) continue;
        post(MPI_Isend, "MPI_Isend", out[r].data(), out[r].size(), r);
        bytes_sent_ += out[r].size();
    }
    in[self] = out[self];
    wait(requests, Expect::soon);
    return in;
}

std::shared_ptr<const std::byte> MpiCommunicator::share(
    std::size_t size, const std::function<void(std::span<std::byte>)>& fill) {
    int node_rank = 0;
    check(MPI_Comm_rank(node_, &node_rank), "MPI_Comm_rank");
    std::optional<SharedMemory> memory;
    core::collectively(*this, [&] {
        if (node_rank != 0) return;
        memory = SharedMemory::create(size);
        fill(memory->bytes());
        memory->freeze();
    });
    std::array<std::int64_t, 2> place{};
    if (node_rank == 0) place = {memory->process(), memory->file()};
    MPI_Request request = MPI_REQUEST_NULL;
    check(MPI_Ibcast(place.data(), 2, MPI_INT64_T, 0, node_, &request), "MPI_Ibcast");
    wait(request, Expect::soon);
    core::collectively(*this, [&] {
        if (node_rank != 0) memory = SharedMemory::join(place[0], place[1], size);
    });
    return memory->handle();
}

}  // namespace thalweg::backend
