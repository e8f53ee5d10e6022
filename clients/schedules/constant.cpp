#include "thalweg/clients/schedule.hpp"

namespace thalweg::clients {
namespace {

class Constant final : public Schedule {
  public:
    double factor(const StepPlace&) const override { return 1.0; }
};

const ScheduleRegistration constant_registration{
    {.kind = "schedule",
     .name = "constant",
     .help = "the same learning rate throughout",
     .citation = {},
     .options = {}},
    [](const core::Value&) { return std::make_unique<Constant>(); }};

}  // namespace
}  // namespace thalweg::clients
