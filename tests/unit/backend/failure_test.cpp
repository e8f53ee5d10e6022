#include "../../../src/backend/failure.hpp"

#include <gtest/gtest.h>

#include "thalweg/backend/backend.hpp"
#include "thalweg/core/error.hpp"

namespace thalweg::backend::failure_test {
namespace {

/// The error after a journey to another rank.
template <class E>
Failure journey(const E& error) {
    return describe(std::make_exception_ptr(error));
}

TEST(Failure, KeepsClassExitCodeAndWords) {
    EXPECT_THROW(raise(journey(core::UsageError("u"))), core::UsageError);
    EXPECT_THROW(raise(journey(core::RunError("r"))), core::RunError);
    EXPECT_THROW(raise(journey(core::Interrupted("i"))), core::Interrupted);
    try {
        raise(journey(core::Error("seven", 7)));
    } catch (const core::Error& error) {
        EXPECT_STREQ(error.what(), "seven");
        EXPECT_EQ(error.exit_code(), 7);
    }
}

TEST(Failure, OtherExceptionsAreTheProgramsFault) {
    const auto failure = journey(std::logic_error("boom"));
    EXPECT_EQ(failure.message.rfind("internal error: boom", 0), 0U) << failure.message;
    EXPECT_THROW(raise(failure), core::RunError);
    EXPECT_EQ(journey(42).exit_code, 1);
}

TEST(SerialBackend, IsOneRank) {
    const auto backend = make_serial_backend();
    EXPECT_EQ(backend->name(), "serial");
    EXPECT_EQ(backend->communicator().size(), 1);
    EXPECT_EQ(backend->description(), "one process");
}

TEST(MakeBackend, IsSerialWithoutAnMpiLauncher) {
    EXPECT_EQ(make_backend(nullptr, nullptr)->name(), "serial");
}

}  // namespace
}  // namespace thalweg::backend::failure_test
