#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <exception>
#include <ostream>
#include <string>

#include "thalweg/core/value.hpp"

namespace thalweg::core {
/// How GoogleTest shows a Value.
inline void PrintTo(const Value& value, std::ostream* stream) {
    *stream << to_flow(value);
}
}  // namespace thalweg::core

namespace thalweg::testing {

/// The message of the `Failure` that `work` must throw.
template <class Failure, class Work>
std::string message_of(Work&& work) {
    try {
        work();
    } catch (const Failure& failure) {
        return failure.what();
    } catch (const std::exception& other) {
        ADD_FAILURE() << "another error: " << other.what();
        return {};
    }
    ADD_FAILURE() << "no error";
    return {};
}

}  // namespace thalweg::testing
