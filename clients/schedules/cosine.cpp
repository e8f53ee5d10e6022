#include <cmath>
#include <numbers>

#include "thalweg/clients/schedule.hpp"

namespace thalweg::clients {
namespace {

/// min + (1 − min)·(1 + cos(π t / T))/2 at t = 0…T−1, as torch's CosineAnnealingLR with T_max = T.
class Cosine final : public Schedule {
  public:
    Cosine(Clock clock, double minimum) : clock_(clock), minimum_(minimum) {}

    double factor(const StepPlace& place) const override {
        const double part = static_cast<double>(clock_.now(place)) / static_cast<double>(clock_.total(place));
        return minimum_ + (1.0 - minimum_) * 0.5 * (1.0 + std::cos(std::numbers::pi * part));
    }

  private:
    Clock clock_;
    double minimum_;
};

const ScheduleRegistration cosine_registration{
    {.kind = "schedule",
     .name = "cosine",
     .help = "falls along half a cosine from the full learning rate to `min` times it",
     .citation = "Loshchilov & Hutter 2017, SGDR, arXiv:1608.03983 (without restarts)",
     .options = core::Schema{Clock::option(),
                             core::number("min", "the factor it falls towards, reached after the last step")
                                 .at_least(0)
                                 .at_most(1)
                                 .by_default(0.0)}},
    [](const core::Value& options) {
        return std::make_unique<Cosine>(Clock::from(options), options["min"].as_number());
    }};

}  // namespace
}  // namespace thalweg::clients
