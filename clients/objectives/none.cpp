#include "thalweg/clients/training.hpp"

namespace thalweg::clients {
namespace {

class None final : public Objective {
  public:
    double add(std::span<const float>, std::span<const float>, std::span<float>) const override { return 0; }
    bool empty() const override { return true; }
};

const ObjectiveRegistration none_registration{{.kind = "objective",
                                               .name = "none",
                                               .help = "the cross-entropy alone (FedAvg)",
                                               .citation = "McMahan et al. 2017, arXiv:1602.05629",
                                               .options = {}},
                                              [](const core::Value&) { return std::make_unique<None>(); }};

}  // namespace
}  // namespace thalweg::clients
