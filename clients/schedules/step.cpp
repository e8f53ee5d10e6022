#include <cmath>

#include "thalweg/clients/schedule.hpp"

namespace thalweg::clients {
namespace {

/// factor^⌊t / every⌋, as torch's StepLR.
class Step final : public Schedule {
  public:
    Step(Clock clock, std::int64_t every, double factor) : clock_(clock), every_(every), factor_(factor) {}

    double factor(const StepPlace& place) const override {
        return std::pow(factor_, static_cast<double>(clock_.now(place) / every_));
    }

  private:
    Clock clock_;
    std::int64_t every_;
    double factor_;
};

const ScheduleRegistration step_registration{
    {.kind = "schedule",
     .name = "step",
     .help = "multiplies the learning rate by `factor` after every `every` steps or rounds",
     .citation = {},
     .options =
         core::Schema{
             Clock::option(), core::integer("every", "steps or rounds between two changes").at_least(1),
             core::number("factor", "what each change multiplies by").above(0).at_most(1).by_default(0.1)}},
    [](const core::Value& options) {
        return std::make_unique<Step>(Clock::from(options), options["every"].as_int(),
                                      options["factor"].as_number());
    }};

}  // namespace
}  // namespace thalweg::clients
