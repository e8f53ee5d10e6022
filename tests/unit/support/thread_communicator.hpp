#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "thalweg/core/communicator.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/interrupt.hpp"

/// Ranks as threads of one process, for tests of what runs on many ranks: `run_ranks(3, [](core::Communicator& c) …)`.
///
/// What would hang under MPI fails here instead: ranks that make different calls, or one that returns or throws while
/// others wait in a collective, end every rank with Stranded.
namespace thalweg::testing {

/// What ranks get that wait for one that has gone.
class Stranded : public std::runtime_error {
    using std::runtime_error::runtime_error;
};

/// What the ranks of one run share.
class Board {
  public:
    explicit Board(int size) : size_(size), slots_(static_cast<std::size_t>(size)) {}

    int size() const { return size_; }

    /// Every rank lays `mine` down; `read` sees all of them before anybody goes on. `call` must be the same everywhere.
    void meet(int rank, const std::string& call, const void* mine,
              const std::function<void(const std::vector<const void*>&)>& read) {
        {
            const std::lock_guard lock(mutex_);
            if (call_.empty()) call_ = call;
            if (call_ != call)
                strand("one rank calls " + call_ + " while rank " + std::to_string(rank) + " calls " + call);
            slots_[static_cast<std::size_t>(rank)] = mine;
        }
        arrive();
        std::exception_ptr failure;
        try {
            read(slots_);
        } catch (...) {
            failure = std::current_exception();
        }
        depart();
        if (failure) std::rethrow_exception(failure);
    }

    /// A rank's thread is over: whoever waits for it waits in vain.
    void leave(int rank) {
        const std::lock_guard lock(mutex_);
        ++gone_;
        if (waiting_ > 0) strand_all("rank " + std::to_string(rank) + " has ended while others wait for it");
        changed_.notify_all();
    }

  private:
    /// Returns when all ranks are here; throws when that will not happen.
    void arrive() {
        std::unique_lock lock(mutex_);
        if (!stranded_.empty()) throw Stranded(stranded_);
        if (gone_ > 0) strand("another rank has ended already");
        const auto turn = turn_;
        count();
        while (turn_ == turn) {
            if (core::interrupt_requested()) {
                strand_all("interrupted");
                throw core::Interrupted();
            }
            if (!stranded_.empty()) throw Stranded(stranded_);
            changed_.wait_for(lock, std::chrono::milliseconds(10));
        }
    }
    /// Nobody's data may go away while somebody reads it. All are here and will come: no reason to give up.
    void depart() {
        std::unique_lock lock(mutex_);
        const auto turn = turn_;
        count();
        changed_.wait(lock, [&] { return turn_ != turn; });
    }
    void count() {
        if (++waiting_ < size_) return;
        waiting_ = 0;
        ++turn_;
        call_.clear();
        changed_.notify_all();
    }
    void strand_all(const std::string& why) {
        if (stranded_.empty()) stranded_ = why;
        changed_.notify_all();
    }
    [[noreturn]] void strand(const std::string& why) {
        strand_all(why);
        throw Stranded(why);
    }

    int size_;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<const void*> slots_;
    std::string call_;
    std::string stranded_;
    std::uint64_t turn_ = 0;
    int waiting_ = 0;
    int gone_ = 0;
};

class ThreadCommunicator final : public core::Communicator {
  public:
    ThreadCommunicator(Board& board, int rank) : board_(board), rank_(rank) {}

    int rank() const override { return rank_; }
    int size() const override { return board_.size(); }
    std::uint64_t bytes_sent() const override { return sent_; }

    void agree(const std::exception_ptr& mine) override {
        std::exception_ptr verdict;
        meet("agree", &mine, [&](const auto& slots) {
            for (const void* slot : slots) {
                const auto& failure = *static_cast<const std::exception_ptr*>(slot);
                if (failure && (!verdict || (is_interrupt(failure) && !is_interrupt(verdict))))
                    verdict = failure;
            }
        });
        if (verdict) std::rethrow_exception(verdict);
    }

    void broadcast(std::span<std::byte> data, int root) override {
        meet("broadcast from " + std::to_string(root), &data, [&](const auto& slots) {
            const auto& source =
                *static_cast<const std::span<std::byte>*>(slots.at(static_cast<std::size_t>(root)));
            if (source.size() != data.size()) throw std::logic_error("broadcast: the ranks' lengths differ");
            if (rank_ != root && !data.empty()) std::memcpy(data.data(), source.data(), data.size());
        });
        if (rank_ == root) sent_ += data.size();
    }

    std::vector<core::Bytes> all_gather(std::span<const std::byte> mine) override {
        std::vector<core::Bytes> all;
        meet("all_gather", &mine, [&](const auto& slots) {
            for (const void* slot : slots) {
                const auto& part = *static_cast<const std::span<const std::byte>*>(slot);
                all.emplace_back(part.begin(), part.end());
            }
        });
        sent_ += mine.size();
        return all;
    }

    std::vector<core::Bytes> exchange(const std::vector<core::Bytes>& out) override {
        if (out.size() != static_cast<std::size_t>(size()))
            throw std::logic_error("exchange: one block for each rank");
        std::vector<core::Bytes> in;
        meet("exchange", &out, [&](const auto& slots) {
            for (const void* slot : slots) {
                in.push_back(
                    (*static_cast<const std::vector<core::Bytes>*>(slot))[static_cast<std::size_t>(rank_)]);
            }
        });
        for (int to = 0; to < size(); ++to) {
            if (to != rank_) sent_ += out[static_cast<std::size_t>(to)].size();
        }
        return in;
    }

    std::shared_ptr<const std::byte> share(std::size_t size,
                                           const std::function<void(std::span<std::byte>)>& fill) override {
        std::shared_ptr<std::byte[]> block;
        core::collectively(*this, [&] {
            if (rank_ != 0) return;
            block.reset(new std::byte[std::max<std::size_t>(size, 1)]());
            fill({block.get(), size});
        });
        const auto mine = block;
        meet("share", &mine, [&](const auto& slots) {
            block = *static_cast<const std::shared_ptr<std::byte[]>*>(slots.front());
        });
        return {block, block.get()};
    }

  private:
    template <class Read>
    void meet(const std::string& call, const void* mine, const Read& read) {
        core::check_interrupt();
        board_.meet(rank_, call, mine, read);
    }

    static bool is_interrupt(const std::exception_ptr& failure) {
        try {
            std::rethrow_exception(failure);
        } catch (const core::Interrupted&) {
            return true;
        } catch (...) {
            return false;
        }
    }

    Board& board_;
    int rank_;
    std::uint64_t sent_ = 0;
};

/// Runs `work` on `size` ranks at once and waits for all of them. Rethrows the failure that came first (the other
/// ranks' Stranded are its consequences).
inline void run_ranks(int size, const std::function<void(core::Communicator&)>& work) {
    Board board(size);
    std::mutex mutex;
    std::exception_ptr first;
    std::exception_ptr stranded;
    const auto run = [&](int rank) {
        ThreadCommunicator communicator(board, rank);
        try {
            work(communicator);
        } catch (const Stranded&) {
            const std::lock_guard lock(mutex);
            if (!stranded) stranded = std::current_exception();
        } catch (...) {
            const std::lock_guard lock(mutex);
            if (!first) first = std::current_exception();
        }
        board.leave(rank);
    };
    std::vector<std::thread> threads;
    for (int rank = 0; rank < size; ++rank) threads.emplace_back(run, rank);
    for (auto& thread : threads) thread.join();
    if (first) std::rethrow_exception(first);
    if (stranded) std::rethrow_exception(stranded);
}

}  // namespace thalweg::testing
