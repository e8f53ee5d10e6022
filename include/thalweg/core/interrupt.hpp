#pragma once

namespace thalweg::core {

/// Turns SIGINT and SIGTERM into a flag that long loops look at. Called once, by main.
void install_interrupt_handlers();

/// True once SIGINT or SIGTERM has arrived. Cheap: one relaxed atomic load; call it once a training step.
bool interrupt_requested();

/// Sets the flag as a signal would (tests).
void request_interrupt();

/// Clears the flag (tests).
void clear_interrupt();

/// Throws Interrupted when the flag is set.
void check_interrupt();

}  // namespace thalweg::core
