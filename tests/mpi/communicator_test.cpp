#include <gtest/gtest.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <thread>

#include "backend/mpi_communicator.hpp"
#include "thalweg/backend/backend.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/interrupt.hpp"
#include "unit/support/communicator_contract.hpp"

namespace thalweg {
namespace {

using namespace std::chrono_literals;

backend::Backend* world = nullptr;

double seconds_since(std::chrono::steady_clock::time_point start) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

TEST(MpiCommunicator, KeepsTheContract) {
    testing::contract::everything(world->communicator(), 100'000);
}

TEST(MpiCommunicator, KeepsTheContractInManySmallPieces) {
    backend::MpiCommunicator pieces(MPI_COMM_WORLD, {.largest_message = 1000});
    testing::contract::broadcast(pieces, 1000);
    testing::contract::all_gather(pieces, 1000);
    testing::contract::exchange(pieces, 1000);
    testing::contract::errors(pieces);
    testing::contract::rows(pieces);
}

TEST(MpiCommunicator, OnePieceABite) {
    backend::MpiCommunicator bites(MPI_COMM_WORLD, {.largest_message = 1});
    testing::contract::broadcast(bites, 20);
    testing::contract::all_gather(bites, 20);
    testing::contract::exchange(bites, 20);
}

TEST(MpiCommunicator, CountsWhatItSends) {
    backend::MpiCommunicator c(MPI_COMM_WORLD);
    const auto others = static_cast<std::uint64_t>(c.size() - 1);
    core::Bytes block(1000);
    c.broadcast(block, 0);
    EXPECT_EQ(c.bytes_sent(), c.rank() == 0 ? 1000 * others : 0U);
    const auto before = c.bytes_sent();
    c.all_gather(block);
    EXPECT_EQ(c.bytes_sent() - before, 1000 * others);
    c.exchange(std::vector<core::Bytes>(static_cast<std::size_t>(c.size()), block));
    EXPECT_EQ(c.bytes_sent() - before, 2000 * others);
}

TEST(MpiCommunicator, OtherErrorsBecomeInternalOnes) {
    auto& c = world->communicator();
    const auto words = testing::contract::message_of<core::RunError>([&] {
        core::collectively(c, [&] {
            if (c.rank() == c.size() - 1) throw std::logic_error("boom");
        });
    });
    EXPECT_EQ(words.rfind("internal error: boom", 0), 0U) << words;
}

TEST(MpiCommunicator, WaitingRanksSleep) {
    auto& c = world->communicator();
    core::Bytes block(1'000'000);
    c.agree(nullptr);
    const auto before = std::clock();
    if (c.rank() == 0) std::this_thread::sleep_for(2s);
    c.agree(nullptr);
    if (c.rank() == 0) std::this_thread::sleep_for(1s);
    c.broadcast(block, 0);
    const double cpu = static_cast<double>(std::clock() - before) / CLOCKS_PER_SEC;
    EXPECT_LT(cpu, 0.5);
    if (std::getenv("THALWEG_TEST_VERBOSE") != nullptr)
        std::printf("rank %d: %.3f s of processor time\n", c.rank(), cpu);
}

TEST(MpiCommunicator, SharesMemoryWithinTheNode) {
    auto& c = world->communicator();
    // One machine here: one rank fills.
    int fills = 0;
    const auto memory = c.share(100, [&](std::span<std::byte> block) {
        ++fills;
        block[99] = std::byte{42};
    });
    EXPECT_EQ(memory.get()[99], std::byte{42});
    EXPECT_EQ(fills, c.rank() == 0 ? 1 : 0);
}

TEST(MpiCommunicator, SaysWhenThereIsNoMemoryToShare) {
    auto& c = world->communicator();
    const auto words = testing::contract::message_of<core::RunError>([&] {
        c.share(std::size_t{1} << 50, [](std::span<std::byte>) { FAIL() << "filled nevertheless"; });
    });
    EXPECT_NE(words.find("cannot share"), std::string::npos) << words;
    c.agree(nullptr);
}

TEST(MpiCommunicator, SharedMemoryOutlivesTheCommunicator) {
    std::shared_ptr<const std::byte> memory;
    {
        backend::MpiCommunicator c(MPI_COMM_WORLD);
        memory = c.share(10'000, [](std::span<std::byte> block) { std::ranges::fill(block, std::byte{7}); });
    }
    EXPECT_EQ(memory.get()[9'999], std::byte{7});
}

TEST(MpiBackend, SaysWhatItIs) {
    EXPECT_EQ(world->name(), "mpi");
    const auto ranks = std::to_string(world->communicator().size());
    EXPECT_NE(world->description().find(" " + ranks + " rank"), std::string::npos) << world->description();
    EXPECT_NE(world->description().find(" on 1 node"), std::string::npos) << world->description();
}

/// Reports failures only, with the rank in front.
class Quiet final : public ::testing::EmptyTestEventListener {
  public:
    explicit Quiet(int rank) : rank_(rank) {}
    void OnTestPartResult(const ::testing::TestPartResult& result) override {
        if (!result.failed()) return;
        std::fprintf(stderr, "rank %d: %s:%d: %s\n", rank_, result.file_name() ? result.file_name() : "?",
                     result.line_number(), result.message());
    }

  private:
    int rank_;
};

/// Ends a run in the middle of things. Returns only when that went wrong.
int run_scenario(const std::string& scenario) {
    auto& c = world->communicator();
    core::install_interrupt_handlers();
    c.agree(nullptr);
    const auto start = std::chrono::steady_clock::now();
    if (scenario == "abort") {
        if (c.rank() == 1) world->abort(7);
        while (seconds_since(start) < 20) std::this_thread::sleep_for(10ms);
        return 1;
    }
    try {
        if (scenario == "interrupt-all") {
            // As under mpirun, whose Ctrl-C reaches every rank; one of them notices while it trains.
            std::thread([] {
                std::this_thread::sleep_for(500ms);
                std::raise(SIGTERM);
            }).detach();
            core::collectively(c, [&] {
                while (c.rank() == 1 && seconds_since(start) < 20) {
                    core::check_interrupt();
                    std::this_thread::sleep_for(1ms);
                }
            });
        } else {
            // Only one rank hears of it, while it waits in a broadcast that never comes.
            core::Bytes data(10);
            if (c.rank() == 2) {
                std::thread([] {
                    std::this_thread::sleep_for(500ms);
                    std::raise(SIGTERM);
                }).detach();
                c.broadcast(data, 0);
            }
            while (seconds_since(start) < 20) std::this_thread::sleep_for(10ms);
        }
    } catch (const core::Interrupted&) {
        if (seconds_since(start) > 1.5) std::fprintf(stderr, "late: %.1f s\n", seconds_since(start));
        world->abort(seconds_since(start) > 1.5 ? 3 : 130);
    }
    return 1;
}

}  // namespace
}  // namespace thalweg

int main(int argc, char** argv) {
    ::testing::InitGoogleTest(&argc, argv);
    const auto backend = thalweg::backend::make_backend(&argc, &argv);
    thalweg::world = backend.get();
    if (backend->name() != "mpi") {
        std::fprintf(stderr, "run me under mpirun\n");
        return 1;
    }
    if (argc == 3 && std::strcmp(argv[1], "--scenario") == 0) return thalweg::run_scenario(argv[2]);

    auto& listeners = ::testing::UnitTest::GetInstance()->listeners();
    delete listeners.Release(listeners.default_result_printer());
    listeners.Append(new thalweg::Quiet(backend->communicator().rank()));
    return RUN_ALL_TESTS();
}
