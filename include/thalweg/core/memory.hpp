#pragma once

#include <cstdint>
#include <string>

namespace thalweg::core {

/// Bytes of memory this machine can still give without swapping (`MemAvailable`), or 0 when it does not say.
/// When that is less than `wanted`, this process gives back what its heap keeps for later first.
std::uint64_t available_memory(std::uint64_t wanted);

/// RunError that names `what` (`a model of 3,000,000,000 parameters`) when so many bytes are more than the machine can still
/// give. The kernel promises more than it has and kills the process later, without a word. Small amounts are not checked.
void require_memory(double bytes, const std::string& what);

}  // namespace thalweg::core
