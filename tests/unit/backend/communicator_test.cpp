#include <gtest/gtest.h>

#include "thalweg/core/communicator.hpp"
#include "unit/support/communicator_contract.hpp"
#include "unit/support/thread_communicator.hpp"

namespace thalweg::communicator_test {
namespace {

TEST(Communicator, SelfKeepsTheContract) {
    core::SelfCommunicator self;
    testing::contract::everything(self, 1000);
    EXPECT_EQ(self.bytes_sent(), 0U);
}

TEST(Communicator, ThreadsKeepTheContract) {
    for (const int ranks : {1, 2, 3, 5}) {
        testing::run_ranks(ranks, [](core::Communicator& c) { testing::contract::everything(c, 1000); });
    }
}

}  // namespace
}  // namespace thalweg::communicator_test
