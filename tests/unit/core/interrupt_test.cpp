#include "thalweg/core/interrupt.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <thread>

#include "thalweg/core/error.hpp"

namespace thalweg::core::interrupt_test {
namespace {

TEST(Interrupt, TheFlagIsSetAndCleared) {
    clear_interrupt();
    EXPECT_FALSE(interrupt_requested());
    EXPECT_NO_THROW(check_interrupt());
    request_interrupt();
    EXPECT_TRUE(interrupt_requested());
    try {
        check_interrupt();
        FAIL();
    } catch (const Interrupted& interrupted) {
        EXPECT_EQ(interrupted.exit_code(), 130);
    }
    clear_interrupt();
    EXPECT_NO_THROW(check_interrupt());
}

// Below in processes of their own (death tests), so that no handler stays installed.
TEST(InterruptDeathTest, ASignalSetsTheFlag) {
    for (const int signal : {SIGINT, SIGTERM}) {
        EXPECT_EXIT(
            {
                install_interrupt_handlers();
                std::raise(signal);
                _exit(interrupt_requested() ? 3 : 4);
            },
            ::testing::ExitedWithCode(3), "");
    }
}

TEST(InterruptDeathTest, TheSecondSignalEndsTheProcess) {
    EXPECT_EXIT(
        {
            install_interrupt_handlers();
            request_interrupt();  // the stop button is not a signal
            std::raise(SIGTERM);
            std::raise(SIGINT);
            _exit(3);
        },
        ::testing::ExitedWithCode(130), "");
    EXPECT_EXIT(
        {
            install_interrupt_handlers();
            request_interrupt();
            std::raise(SIGINT);
            _exit(3);
        },
        ::testing::ExitedWithCode(3), "");
}

TEST(InterruptDeathTest, ABlockedCallReturns) {
    EXPECT_EXIT(
        {
            install_interrupt_handlers();
            int ends[2];
            if (::pipe(ends) != 0) _exit(5);
            alarm(20);
            const pthread_t reader = pthread_self();
            std::thread([reader] {
                ::usleep(100000);
                pthread_kill(reader, SIGINT);
            }).detach();
            char byte = 0;
            const auto got = ::read(ends[0], &byte, 1);
            _exit(got < 0 && errno == EINTR && interrupt_requested() ? 3 : 4);
        },
        ::testing::ExitedWithCode(3), "");
}

}  // namespace
}  // namespace thalweg::core::interrupt_test
