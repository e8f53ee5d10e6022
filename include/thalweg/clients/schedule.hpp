#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "thalweg/core/registry.hpp"

namespace thalweg::clients {

/// Where in the experiment a local step stands.
struct StepPlace {
    std::int64_t step = 0;    ///< of this client's training, from 0
    std::int64_t steps = 1;   ///< of this client's training
    std::int64_t round = 1;   ///< from 1
    std::int64_t rounds = 1;  ///< of the experiment
};

/// How the learning rate changes. Registry kind `schedule`: constant, cosine, step.
class Schedule {
  public:
    virtual ~Schedule() = default;
    /// What the base learning rate is multiplied by at this place.
    virtual double factor(const StepPlace& place) const = 0;
};
using ScheduleRegistration = core::Registration<std::unique_ptr<Schedule>>;

/// What a schedule counts: the client's local steps, beginning anew in every local training, or the rounds.
struct Clock {
    bool rounds = false;

    /// The option `over`, shared by the schedules.
    static core::Option option();
    static Clock from(const core::Value& options);
    /// From 0 for the first one.
    std::int64_t now(const StepPlace& place) const { return rounds ? place.round - 1 : place.step; }
    std::int64_t total(const StepPlace& place) const { return rounds ? place.rounds : place.steps; }
};

}  // namespace thalweg::clients
