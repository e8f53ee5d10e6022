#include "thalweg/core/memory.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <malloc.h>
#include <unistd.h>

#include <cstdint>
#include <fstream>
#include <limits>
#include <vector>

#include "thalweg/core/error.hpp"

namespace thalweg::core::memory_test {
namespace {

TEST(Memory, RefusesWhatTheMachineCannotGive) {
    if (available_memory(0) == 0) GTEST_SKIP() << "this machine does not say what is available";
    EXPECT_NO_THROW(require_memory(1e6, "a little"));
    EXPECT_NO_THROW(require_memory(0.5 * static_cast<double>(available_memory(0)), "half"));
    try {
        require_memory(1e18, "a model of 250,000,000,000,000,000 parameters");
        FAIL() << "an exabyte was promised";
    } catch (const RunError& error) {
        EXPECT_THAT(error.what(), ::testing::HasSubstr("a model of 250,000,000,000,000,000 parameters"));
        EXPECT_THAT(error.what(), ::testing::HasSubstr("are available"));
    }
}

TEST(Memory, KeptByTheHeapIsGivenBackWhenItIsWanted) {
    if (available_memory(0) == 0) GTEST_SKIP() << "this machine does not say what is available";
    // As the program does (keep_freed_memory): freed blocks stay with the process.
    ASSERT_EQ(mallopt(M_MMAP_THRESHOLD, 32 << 20), 1);
    ASSERT_EQ(mallopt(M_TRIM_THRESHOLD, -1), 1);
    const auto resident = [] {
        std::ifstream file("/proc/self/statm");
        std::int64_t all = 0, pages = 0;
        file >> all >> pages;
        return pages * sysconf(_SC_PAGESIZE);
    };
    constexpr std::int64_t size = 200'000'000;
    std::vector<std::vector<char>>(10, std::vector<char>(size / 10, 1));
    const auto kept = resident();
    EXPECT_GT(kept, size);
    available_memory(0);
    EXPECT_GT(resident(), size);
    available_memory(std::numeric_limits<std::uint64_t>::max());
    EXPECT_LT(resident(), kept - size / 2);
}

}  // namespace
}  // namespace thalweg::core::memory_test
