#include "../lanes.hpp"
#include "thalweg/clients/training.hpp"

namespace thalweg::clients {
namespace {

/// (μ/2)·‖θ − θ_g‖², which keeps a client near the model it started from.
class FedProx final : public Objective {
  public:
    explicit FedProx(double mu) : mu_(mu) {}

    double add(std::span<const float> local, std::span<const float> global,
               std::span<float> gradient) const override {
        const auto mu = static_cast<float>(mu_);
        const float* l = local.data();
        const float* g = global.data();
        float* __restrict out = gradient.data();
        const double squares = lane_sum(local.size(), [=](std::size_t i) {
            const float difference = l[i] - g[i];
            out[i] += mu * difference;
            return static_cast<double>(difference) * difference;
        });
        return 0.5 * mu_ * squares;
    }

    bool empty() const override { return mu_ == 0; }

  private:
    double mu_;
};

const ObjectiveRegistration fedprox_registration{
    {.kind = "objective",
     .name = "fedprox",
     .help = "adds (mu/2)·|local − start|²: keeps a client near the model it started from",
     .citation = "Li et al. 2020, Federated Optimization in Heterogeneous Networks, arXiv:1812.06127",
     .options = core::Schema{core::number("mu", "weight of the term").at_least(0).by_default(0.01)}},
    [](const core::Value& options) { return std::make_unique<FedProx>(options["mu"].as_number()); }};

}  // namespace
}  // namespace thalweg::clients
