#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <ctime>
#include <numeric>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "thalweg/core/communicator.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/interrupt.hpp"

/// What every Communicator must do. Each check is collective: all ranks of the communicator call it, and all of them
/// assert.
namespace thalweg::testing::contract {

using core::Bytes;
using core::Communicator;

/// `size` bytes that depend on `seed`.
inline Bytes pattern(std::size_t size, int seed) {
    Bytes bytes(size);
    for (std::size_t i = 0; i < size; ++i) {
        bytes[i] = static_cast<std::byte>((i * 31 + static_cast<std::size_t>(seed) * 101 + i / 251) & 0xFF);
    }
    return bytes;
}

inline void rank_and_size(Communicator& c) {
    EXPECT_GE(c.rank(), 0);
    EXPECT_LT(c.rank(), c.size());
}

/// Lengths around `edge` (a communicator's longest message), from every root.
inline void broadcast(Communicator& c, std::size_t edge) {
    for (int root = 0; root < c.size(); ++root) {
        for (const std::size_t size :
             {std::size_t{0}, std::size_t{1}, edge - 1, edge, edge + 1, 5 * edge + 3}) {
            const Bytes expected = pattern(size, root);
            Bytes data = c.rank() == root ? expected : Bytes(size, std::byte{0xEE});
            c.broadcast(data, root);
            EXPECT_TRUE(data == expected) << "root " << root << ", " << size << " bytes";
        }
    }
}

inline void all_gather(Communicator& c, std::size_t edge) {
    for (const std::size_t base : {std::size_t{0}, std::size_t{1}, edge, 3 * edge + 1}) {
        // Different lengths by rank; the last rank brings nothing.
        const auto length = [&](int rank) {
            return rank + 1 == c.size() && c.size() > 1 ? 0 : base + static_cast<std::size_t>(rank) * 7;
        };
        const auto all = c.all_gather(pattern(length(c.rank()), c.rank()));
        ASSERT_EQ(static_cast<int>(all.size()), c.size());
        for (int r = 0; r < c.size(); ++r) {
            EXPECT_TRUE(all[static_cast<std::size_t>(r)] == pattern(length(r), r))
                << "rank " << r << ", base " << base;
        }
    }
}

inline void exchange(Communicator& c, std::size_t edge) {
    for (const std::size_t base : {std::size_t{0}, edge, 3 * edge + 1}) {
        const auto length = [&](int from, int to) {
            return (from + to) % 3 == 1 ? 0 : base + static_cast<std::size_t>(5 * from + to);
        };
        const auto seed = [&](int from, int to) { return 16 * from + to; };
        std::vector<Bytes> out;
        for (int to = 0; to < c.size(); ++to)
            out.push_back(pattern(length(c.rank(), to), seed(c.rank(), to)));
        const auto in = c.exchange(out);
        ASSERT_EQ(static_cast<int>(in.size()), c.size());
        for (int from = 0; from < c.size(); ++from) {
            EXPECT_TRUE(in[static_cast<std::size_t>(from)] ==
                        pattern(length(from, c.rank()), seed(from, c.rank())))
                << "from rank " << from << ", base " << base;
        }
    }
}

inline void share(Communicator& c) {
    for (const std::size_t size : {std::size_t{0}, std::size_t{1}, std::size_t{3'000'017}}) {
        int fills = 0;
        const auto memory = c.share(size, [&](std::span<std::byte> block) {
            ++fills;
            ASSERT_EQ(block.size(), size);
            std::ranges::copy(pattern(size, 9), block.begin());
        });
        ASSERT_NE(memory, nullptr);
        if (size > 0) {
            EXPECT_EQ(std::memcmp(memory.get(), pattern(size, 9).data(), size), 0);
        }
        const auto counts = c.all_gather(core::as_bytes(std::vector<int>{fills}));
        int total = 0;
        for (const auto& count : counts) total += core::from_bytes<int>(count).front();
        EXPECT_GE(total, 1);
        EXPECT_LE(total, c.size());
    }
}

/// What a rank got to hear, or an empty string.
template <class Expected, class Work>
std::string message_of(Work&& work) {
    try {
        work();
    } catch (const std::exception& error) {
        EXPECT_NE(dynamic_cast<const Expected*>(&error), nullptr)
            << "another class than expected: " << error.what();
        return error.what();
    }
    ADD_FAILURE() << "no error";
    return {};
}

/// A rank that fails takes the others with it: the same class and words on each, and then life goes on.
inline void errors(Communicator& c) {
    for (int culprit = 0; culprit < c.size(); ++culprit) {
        const std::string words = "culprit " + std::to_string(culprit);
        EXPECT_EQ(message_of<core::UsageError>([&] {
                      core::collectively(c, [&] {
                          if (c.rank() == culprit) throw core::UsageError(words);
                      });
                  }),
                  words);
        EXPECT_EQ(message_of<core::RunError>([&] {
                      core::collectively(c, [&] {
                          if (c.rank() >= culprit)
                              throw core::RunError("culprit " + std::to_string(c.rank()));
                      });
                  }),
                  words);
        EXPECT_EQ(message_of<core::Interrupted>([&] {
                      core::collectively(c, [&] {
                          if (c.rank() == culprit) throw core::Interrupted(words);
                          throw core::RunError("less urgent");
                      });
                  }),
                  words);
        // How a fault of the program's own is put is the communicator's affair, but its words must be there.
        const auto internal = message_of<std::exception>([&] {
            core::collectively(c, [&] {
                if (c.rank() == culprit) throw std::runtime_error(words);
            });
        });
        EXPECT_NE(internal.find(words), std::string::npos) << internal;
        EXPECT_EQ(message_of<core::RunError>([&] {
                      c.share(10, [&](std::span<std::byte>) { throw core::RunError("cannot fill"); });
                  }),
                  "cannot fill");
    }
    EXPECT_EQ(core::collectively(c, [&] { return c.rank() + 40; }), c.rank() + 40);
}

/// Messages longer than anything's buffers arrive whole.
inline void long_message(Communicator& c) {
    const std::size_t size = 20'000'001;
    const std::string words(size, 'x');
    EXPECT_EQ(message_of<core::RunError>([&] {
                  core::collectively(c, [&] {
                      if (c.rank() == c.size() - 1) throw core::RunError(words);
                  });
              }),
              words);
}

/// Rows are the same on every rank and number of ranks.
inline void rows(Communicator& c) {
    for (const std::int64_t count : {0, 1, 2, 7}) {
        const auto all = core::gather_rows(c, count, 2, [](std::int64_t item, std::span<double> row) {
            row[0] = static_cast<double>(item);
            row[1] = 1.0 / static_cast<double>(item + 1);
        });
        ASSERT_EQ(static_cast<std::int64_t>(all.size()), 2 * count);
        for (std::int64_t item = 0; item < count; ++item) {
            EXPECT_EQ(all[static_cast<std::size_t>(2 * item)], static_cast<double>(item));
            EXPECT_EQ(all[static_cast<std::size_t>(2 * item + 1)], 1.0 / static_cast<double>(item + 1));
        }
    }
}

/// Once interrupted, nothing new begins.
inline void interrupt_in_agreement(Communicator& c) {
    c.agree(nullptr);
    EXPECT_THROW(core::collectively(c,
                                    [&] {
                                        if (c.rank() == 0) throw core::Interrupted();
                                    }),
                 core::Interrupted);
    c.agree(nullptr);
}

/// Everything but what takes long, or what a process has only one of.
inline void everything(Communicator& c, std::size_t edge) {
    rank_and_size(c);
    broadcast(c, edge);
    all_gather(c, edge);
    exchange(c, edge);
    share(c);
    errors(c);
    long_message(c);
    rows(c);
    interrupt_in_agreement(c);
}

}  // namespace thalweg::testing::contract
