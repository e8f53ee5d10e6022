#include "thalweg/core/communicator.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <numeric>
#include <stdexcept>

#include "expect_error.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/interrupt.hpp"
#include "unit/support/thread_communicator.hpp"

namespace thalweg::core::communicator_test {
namespace {

using thalweg::testing::message_of;
using thalweg::testing::run_ranks;
using thalweg::testing::Stranded;

Bytes bytes(const std::string& text) {
    const auto view = std::as_bytes(std::span(text));
    return {view.begin(), view.end()};
}

TEST(SelfCommunicator, IsAGroupOfOne) {
    SelfCommunicator self;
    EXPECT_EQ(self.rank(), 0);
    EXPECT_EQ(self.size(), 1);
    EXPECT_NO_THROW(self.agree(nullptr));
    EXPECT_EQ(message_of<RunError>([&] { self.agree(std::make_exception_ptr(RunError("bad"))); }), "bad");
    EXPECT_EQ(self.all_gather(bytes("abc")), std::vector<Bytes>{bytes("abc")});
    EXPECT_EQ(self.exchange({bytes("abc")}), std::vector<Bytes>{bytes("abc")});
    Bytes data = bytes("abc");
    self.broadcast(data, 0);
    EXPECT_EQ(data, bytes("abc"));
    EXPECT_EQ(self.bytes_sent(), 0U);
}

TEST(SelfCommunicator, SharesABlockThatOutlivesIt) {
    std::shared_ptr<const std::byte> block;
    {
        SelfCommunicator self;
        block = self.share(1000, [](std::span<std::byte> memory) {
            ASSERT_EQ(memory.size(), 1000U);
            memory[999] = std::byte{7};
        });
        EXPECT_NE(self.share(0, [](std::span<std::byte> memory) { EXPECT_TRUE(memory.empty()); }), nullptr);
        EXPECT_THROW(self.share(1, [](std::span<std::byte>) { throw RunError("x"); }), RunError);
    }
    EXPECT_EQ(block.get()[999], std::byte{7});
    EXPECT_EQ(block.get()[0], std::byte{0});
}

TEST(SelfCommunicator, NoticesAnInterrupt) {
    SelfCommunicator self;
    request_interrupt();
    EXPECT_THROW(self.agree(nullptr), Interrupted);
    EXPECT_THROW(self.all_gather({}), Interrupted);
    clear_interrupt();
}

TEST(Collectively, GivesTheResultOrTheError) {
    SelfCommunicator self;
    EXPECT_EQ(collectively(self, [] { return 5; }), 5);
    EXPECT_EQ(*collectively(self, [] { return std::make_unique<int>(6); }), 6);
    int done = 0;
    collectively(self, [&] { done = 1; });
    EXPECT_EQ(done, 1);
    EXPECT_THROW(collectively(self, []() -> int { throw RunError("x"); }), RunError);
}

TEST(BytesOf, NumbersComeBack) {
    const std::vector<double> values{1.5, -2, 1e300};
    EXPECT_EQ(from_bytes<double>(as_bytes(values)), values);
    EXPECT_TRUE(from_bytes<int>({}).empty());
}

TEST(ThreadCommunicator, GathersExchangesAndBroadcasts) {
    for (const int size : {1, 2, 3, 5}) {
        run_ranks(size, [&](Communicator& c) {
            ASSERT_EQ(c.size(), size);
            for (int repeat = 0; repeat < 20; ++repeat) {
                const auto name = [&](int rank) {
                    return std::string(static_cast<std::size_t>(rank + repeat), 'x');
                };
                const auto all = c.all_gather(bytes(name(c.rank())));
                ASSERT_EQ(all.size(), static_cast<std::size_t>(size));
                for (int rank = 0; rank < size; ++rank)
                    ASSERT_EQ(all[static_cast<std::size_t>(rank)], bytes(name(rank)));

                std::vector<Bytes> out;
                for (int to = 0; to < size; ++to)
                    out.push_back(bytes(std::to_string(c.rank()) + std::to_string(to)));
                const auto in = c.exchange(out);
                for (int from = 0; from < size; ++from) {
                    ASSERT_EQ(in[static_cast<std::size_t>(from)],
                              bytes(std::to_string(from) + std::to_string(c.rank())));
                }

                const int root = repeat % size;
                Bytes data = c.rank() == root ? bytes("root" + std::to_string(root)) : Bytes(5);
                c.broadcast(data, root);
                ASSERT_EQ(data, bytes("root" + std::to_string(root)));
            }
        });
    }
}

TEST(ThreadCommunicator, CountsWhatItSends) {
    run_ranks(3, [](Communicator& c) {
        c.all_gather(Bytes(10));
        EXPECT_EQ(c.bytes_sent(), 10U);
        c.exchange({Bytes(1), Bytes(1), Bytes(1)});
        EXPECT_EQ(c.bytes_sent(), 12U);
        Bytes data(100);
        c.broadcast(data, 1);
        EXPECT_EQ(c.bytes_sent(), c.rank() == 1 ? 112U : 12U);
    });
}

TEST(ThreadCommunicator, SharesOneBlock) {
    std::atomic<int> filled{0};
    std::vector<const std::byte*> where(3);
    run_ranks(3, [&](Communicator& c) {
        const auto block = c.share(8, [&](std::span<std::byte> memory) {
            ++filled;
            memory[3] = std::byte{9};
        });
        EXPECT_EQ(block.get()[3], std::byte{9});
        where[static_cast<std::size_t>(c.rank())] = block.get();
    });
    EXPECT_EQ(filled, 1);
    EXPECT_EQ(where[0], where[1]);
    EXPECT_EQ(where[0], where[2]);
    EXPECT_THROW(
        run_ranks(2, [](Communicator& c) { c.share(8, [](std::span<std::byte>) { throw RunError("x"); }); }),
        RunError);
}

TEST(ThreadCommunicator, AgreesOnTheLowestRanksErrorEverywhere) {
    std::atomic<int> agreed{0};
    run_ranks(4, [&](Communicator& c) {
        const auto message = message_of<RunError>([&] {
            collectively(c, [&] {
                if (c.rank() >= 1 && c.rank() <= 2) throw RunError("rank " + std::to_string(c.rank()));
            });
        });
        agreed += message == "rank 1";
        EXPECT_NO_THROW(c.agree(nullptr));
    });
    EXPECT_EQ(agreed, 4);
}

TEST(ThreadCommunicator, AgreesOnAnInterruptBeforeAnyOther) {
    std::atomic<int> interrupted{0};
    run_ranks(3, [&](Communicator& c) {
        try {
            collectively(c, [&] {
                if (c.rank() == 0) throw RunError("first");
                if (c.rank() == 2) throw Interrupted();
            });
        } catch (const Interrupted&) {
            ++interrupted;
        }
    });
    EXPECT_EQ(interrupted, 3);
}

TEST(ThreadCommunicator, WhatWouldHangFails) {
    EXPECT_EQ(message_of<RunError>([] {
                  run_ranks(3, [](Communicator& c) {
                      if (c.rank() == 1) throw RunError("left");
                      c.agree(nullptr);
                  });
              }),
              "left");
    EXPECT_THROW(run_ranks(3,
                           [](Communicator& c) {
                               if (c.rank() != 1) c.agree(nullptr);
                           }),
                 Stranded);
    EXPECT_THROW(run_ranks(2,
                           [](Communicator& c) {
                               if (c.rank() == 0) c.agree(nullptr);
                               if (c.rank() == 1) c.all_gather({});
                           }),
                 Stranded);
    EXPECT_THROW(run_ranks(2,
                           [](Communicator& c) {
                               Bytes data(c.rank() == 0 ? 3 : 4);
                               c.broadcast(data, 0);
                           }),
                 std::logic_error);
}

TEST(ThreadCommunicator, AnInterruptEndsTheWait) {
    EXPECT_THROW(run_ranks(3,
                           [](Communicator& c) {
                               if (c.rank() != 0) {
                                   c.agree(nullptr);
                               } else {
                                   request_interrupt();
                                   c.agree(nullptr);
                               }
                           }),
                 Interrupted);
    clear_interrupt();
}

TEST(GatherRows, IsTheSameOnAnyNumberOfRanks) {
    const auto compute = [](std::int64_t item, std::span<double> row) {
        for (std::size_t k = 0; k < row.size(); k += 2)
            row[k] = std::sin(static_cast<double>(item) + 0.1 * static_cast<double>(k));
    };
    for (const std::int64_t count : {0, 1, 2, 3, 10}) {
        for (const std::int64_t width : {0, 1, 3}) {
            std::vector<double> expected(static_cast<std::size_t>(count * width));
            for (std::int64_t i = 0; i < count; ++i) {
                compute(i, std::span(expected).subspan(static_cast<std::size_t>(i * width),
                                                       static_cast<std::size_t>(width)));
            }
            SelfCommunicator self;
            EXPECT_EQ(gather_rows(self, count, width, compute), expected);
            for (const int size : {1, 2, 3, 4}) {
                run_ranks(size, [&](Communicator& c) {
                    ASSERT_EQ(gather_rows(c, count, width, compute), expected);
                });
            }
        }
    }
}

TEST(GatherRows, EachItemIsComputedOnceByItsRank) {
    std::vector<std::atomic<int>> by(10);
    run_ranks(3, [&](Communicator& c) {
        gather_rows(c, 10, 1, [&](std::int64_t item, std::span<double>) {
            by[static_cast<std::size_t>(item)] += 1 + 100 * c.rank();
        });
    });
    for (std::size_t i = 0; i < by.size(); ++i) EXPECT_EQ(by[i], 1 + 100 * static_cast<int>(i % 3));
}

TEST(GatherRows, AFailureReachesEveryRank) {
    std::atomic<int> failed{0};
    run_ranks(3, [&](Communicator& c) {
        try {
            gather_rows(c, 7, 2, [](std::int64_t item, std::span<double>) {
                if (item == 4) throw RunError("item 4");
            });
        } catch (const RunError&) {
            ++failed;
        }
    });
    EXPECT_EQ(failed, 3);
    SelfCommunicator self;
    EXPECT_THROW(gather_rows(self, -1, 1, {}), std::invalid_argument);
}

}  // namespace
}  // namespace thalweg::core::communicator_test
