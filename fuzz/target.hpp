#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "thalweg/core/error.hpp"

namespace thalweg::fuzz {

/// A reader either reads or refuses with an error of ours; any other exception ends the program, which libFuzzer counts
/// as a crash.
template <class Work>
bool reads(Work&& work) {
    try {
        work();
        return true;
    } catch (const core::UsageError&) {
    } catch (const core::RunError&) {
    }
    return false;
}

inline std::string text_of(const std::uint8_t* data, std::size_t size) {
    return std::string(reinterpret_cast<const char*>(data), size);
}

}  // namespace thalweg::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
