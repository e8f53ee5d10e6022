#include "../lanes.hpp"
#include "thalweg/clients/training.hpp"

namespace thalweg::clients {
namespace {

/// (γ/d)·Σ_p max(0, −θ_p·sign θ_p^g), which pulls parameters back to the sign they had in the model the client started
/// from. A reconstruction: the source describes the term, but its formula could not be read. Entries that were exactly
/// zero have no sign and feel nothing; at θ_p = 0 the subgradient 0 is taken.
class FedSign final : public Objective {
  public:
    explicit FedSign(double gamma) : gamma_(gamma) {}

    double add(std::span<const float> local, std::span<const float> global,
               std::span<float> gradient) const override {
        if (local.empty()) return 0;
        const double weight = gamma_ / static_cast<double>(local.size());
        const auto pull = static_cast<float>(weight);
        const float* l = local.data();
        const float* g = global.data();
        float* __restrict out = gradient.data();
        const double sum = lane_sum(local.size(), [=](std::size_t i) {
            const float sign = static_cast<float>(g[i] > 0) - static_cast<float>(g[i] < 0);
            const float agreement = l[i] * sign;
            out[i] -= agreement < 0 ? pull * sign : 0.0F;
            return agreement < 0 ? -agreement : 0.0F;
        });
        return weight * sum;
    }

    bool empty() const override { return gamma_ == 0; }

  private:
    double gamma_;
};

const ObjectiveRegistration fedsign_registration{
    {.kind = "objective",
     .name = "fedsign",
     .help =
         "adds (gamma/d)·Σ max(0, −local·sign(start)): keeps the signs of the model the client started from",
     .citation =
         "after Li et al. 2024, Exploring and Exploiting the Asymmetric Valley of DNNs, arXiv:2405.12489 "
         "(formula reconstructed)",
     .options = core::Schema{core::number("gamma", "weight of the term").at_least(0).by_default(1.0)}},
    [](const core::Value& options) { return std::make_unique<FedSign>(options["gamma"].as_number()); }};

}  // namespace
}  // namespace thalweg::clients
