#include "thalweg/core/memory.hpp"

#include <malloc.h>

#include <fstream>

#include "thalweg/core/error.hpp"
#include "thalweg/core/text.hpp"

namespace thalweg::core {

namespace {

std::uint64_t reported_memory() {
    std::ifstream file("/proc/meminfo");
    std::string key, unit;
    std::uint64_t kilobytes = 0;
    while (file >> key >> kilobytes) {
        if (key == "MemAvailable:") return kilobytes * 1024;
        std::getline(file, unit);
    }
    return 0;
}

}  // namespace

std::uint64_t available_memory(std::uint64_t wanted) {
    const std::uint64_t reported = reported_memory();
    if (reported == 0 || wanted <= reported) return reported;
    malloc_trim(0);  // what this process has freed but kept counts as taken until it is given back
    return reported_memory();
}

void require_memory(double bytes, const std::string& what) {
    constexpr double always_there = 256e6;
    if (bytes < always_there) return;
    const auto available = static_cast<double>(available_memory(static_cast<std::uint64_t>(bytes)));
    if (available == 0 || bytes <= available) return;
    throw RunError("There is not enough memory for " + what + ": it takes " + bytes_text(bytes) + ", and " +
                   bytes_text(available) +
                   " are available. Choose a smaller model, or run fewer processes on this machine.");
}

}  // namespace thalweg::core
