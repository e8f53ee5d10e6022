#include "thalweg/clients/schedule.hpp"

namespace thalweg::clients {

core::Option Clock::option() {
    return core::choice(
               "over", {"steps", "rounds"},
               "what is counted: a client's local steps (anew in every round) or the experiment's rounds")
        .by_default("steps");
}

Clock Clock::from(const core::Value& options) {
    return {options["over"].as_text() == "rounds"};
}

}  // namespace thalweg::clients
