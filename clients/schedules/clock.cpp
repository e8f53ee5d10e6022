#include "thalweg/clients/schedule.hpp"
#include "thalweg/clients/training.hpp"

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

double schedule_factor(const core::Value& schedule, std::int64_t step, std::int64_t steps, std::int64_t round,
                       std::int64_t rounds) {
    return core::Registry<std::unique_ptr<Schedule>>::make(schedule)->factor({step, steps, round, rounds});
}

}  // namespace thalweg::clients
