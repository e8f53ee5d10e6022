#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <functional>
#include <memory>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

namespace thalweg::core {

using Bytes = std::vector<std::byte>;

/// How the ranks of one run talk. Every call below is collective: all ranks make the same calls in the same order, or
/// the program hangs; a rank that may throw does so inside `collectively`. Aggregator, analysis and the server loop
/// see this interface and never MPI.
///
/// Waiting ranks sleep instead of spinning (a spinning rank steals a core from one that trains) and notice an
/// interrupt: then every call throws Interrupted.
class Communicator {
  public:
    virtual ~Communicator() = default;
    virtual int rank() const = 0;
    virtual int size() const = 0;

    /// Every rank says how it fared: nullptr, or the error it caught. Returns when all are well; otherwise throws the
    /// same error on every rank (an Interrupted before any other, else that of the lowest failing rank).
    virtual void agree(const std::exception_ptr& mine) = 0;
    /// `data` of `root` to all; the same length everywhere. Any length: sent in chunks past 2^30 bytes.
    virtual void broadcast(std::span<std::byte> data, int root) = 0;
    /// What each rank brings, by rank, on every rank.
    virtual std::vector<Bytes> all_gather(std::span<const std::byte> mine) = 0;
    /// out[r] goes to rank r; the result's [r] came from rank r.
    virtual std::vector<Bytes> exchange(const std::vector<Bytes>& out) = 0;
    /// `size` bytes of read-only memory, kept once a node and filled by one rank of each node; `fill` may throw.
    virtual std::shared_ptr<const std::byte> share(std::size_t size,
                                                   const std::function<void(std::span<std::byte>)>& fill) = 0;

    /// Payload bytes this rank has sent through the calls above since the start; 0 for a single process.
    virtual std::uint64_t bytes_sent() const = 0;
};

/// The communicator of a single process.
class SelfCommunicator final : public Communicator {
  public:
    int rank() const override { return 0; }
    int size() const override { return 1; }
    void agree(const std::exception_ptr& mine) override;
    void broadcast(std::span<std::byte>, int) override {}
    std::vector<Bytes> all_gather(std::span<const std::byte> mine) override;
    std::vector<Bytes> exchange(const std::vector<Bytes>& out) override { return out; }
    std::shared_ptr<const std::byte> share(std::size_t size,
                                           const std::function<void(std::span<std::byte>)>& fill) override;
    std::uint64_t bytes_sent() const override { return 0; }
};

/// Runs `work` on this rank and agrees with the others before anyone goes on. Collective; `work` itself must not be.
template <class Work>
auto collectively(Communicator& communicator, Work&& work) {
    using Result = std::invoke_result_t<Work>;
    std::exception_ptr failure;
    if constexpr (std::is_void_v<Result>) {
        try {
            work();
        } catch (...) {
            failure = std::current_exception();
        }
        communicator.agree(failure);
    } else {
        std::unique_ptr<Result> result;
        try {
            result = std::make_unique<Result>(work());
        } catch (...) {
            failure = std::current_exception();
        }
        communicator.agree(failure);
        return std::move(*result);
    }
}

/// Plain numbers as bytes and back (same machine type on all ranks).
template <class T>
std::span<const std::byte> as_bytes(const std::vector<T>& values) {
    static_assert(std::is_trivially_copyable_v<T>);
    return {reinterpret_cast<const std::byte*>(values.data()), values.size() * sizeof(T)};
}
template <class T>
std::vector<T> from_bytes(std::span<const std::byte> bytes) {
    static_assert(std::is_trivially_copyable_v<T>);
    std::vector<T> values(bytes.size() / sizeof(T));
    if (!values.empty()) std::memcpy(values.data(), bytes.data(), values.size() * sizeof(T));
    return values;
}

/// Work that is the same on any number of ranks: `count` items with `width` doubles each. Item i is computed by rank
/// i mod size (`compute(i, row)` fills its row, zeroed before) and every rank gets all rows in index order, so that
/// a sum over them has one order only. Collective.
std::vector<double> gather_rows(Communicator& communicator, std::int64_t count, std::int64_t width,
                                const std::function<void(std::int64_t, std::span<double>)>& compute);

}  // namespace thalweg::core
