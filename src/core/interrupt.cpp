#include "thalweg/core/interrupt.hpp"

#include <signal.h>
#include <unistd.h>

#include <atomic>

#include "thalweg/core/error.hpp"

namespace thalweg::core {
namespace {

// Lock-free atomics are the only shared state a signal handler may touch. Signals are counted apart from the flag:
// the first Ctrl-C after request_interrupt() must still be answered gently.
std::atomic<bool> requested{false};
std::atomic<int> signals{0};
static_assert(std::atomic<bool>::is_always_lock_free && std::atomic<int>::is_always_lock_free);

extern "C" void on_signal(int) {
    if (signals.fetch_add(1, std::memory_order_relaxed) > 0) _exit(130);  // whoever insists is obeyed at once
    requested.store(true, std::memory_order_relaxed);
}

}  // namespace

void install_interrupt_handlers() {
    struct sigaction action = {};
    action.sa_handler = on_signal;
    sigemptyset(&action.sa_mask);
    action.sa_flags = 0;  // no SA_RESTART: a blocked read or sleep returns and its loop sees the flag
    sigaction(SIGINT, &action, nullptr);
    sigaction(SIGTERM, &action, nullptr);
}

bool interrupt_requested() {
    return requested.load(std::memory_order_relaxed);
}

void request_interrupt() {
    requested.store(true, std::memory_order_relaxed);
}

void clear_interrupt() {
    signals.store(0, std::memory_order_relaxed);
    requested.store(false, std::memory_order_relaxed);
}

void check_interrupt() {
    if (interrupt_requested()) throw Interrupted();
}

}  // namespace thalweg::core
