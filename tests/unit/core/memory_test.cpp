#include "thalweg/core/memory.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "thalweg/core/error.hpp"

namespace thalweg::core {
namespace {

TEST(Memory, RefusesWhatTheMachineCannotGive) {
    if (available_memory() == 0) GTEST_SKIP() << "this machine does not say what is available";
    EXPECT_NO_THROW(require_memory(1e6, "a little"));
    EXPECT_NO_THROW(require_memory(0.5 * static_cast<double>(available_memory()), "half"));
    try {
        require_memory(1e18, "a model of 250,000,000,000,000,000 parameters");
        FAIL() << "an exabyte was promised";
    } catch (const RunError& error) {
        EXPECT_THAT(error.what(), ::testing::HasSubstr("a model of 250,000,000,000,000,000 parameters"));
        EXPECT_THAT(error.what(), ::testing::HasSubstr("are available"));
    }
}

}  // namespace
}  // namespace thalweg::core
