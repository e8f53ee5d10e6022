#include <torch/types.h>

#include "pseudo_gradient.hpp"

namespace thalweg::aggregator {

namespace {

/// FedAvgM (Hsu, Qi & Brown 2019): v ← β v + Δ, θ ← θ + η v. With β = 0 and η = 1 the fused model itself. The source's
/// formula has η = 1; the server's learning rate is ours.
class FedAvgM final : public PseudoGradientOptimizer {
  public:
    explicit FedAvgM(const core::Value& options)
        : PseudoGradientOptimizer({"velocity"}, {0.0}),
          lr_(options["lr"].as_number()),
          momentum_(options["momentum"].as_number()) {}

  protected:
    at::Tensor direction(const at::Tensor& delta, std::vector<at::Tensor>& kept) const override {
        kept[0].mul_(momentum_).add_(delta);
        return kept[0] * lr_;
    }

  private:
    double lr_, momentum_;
};

const ServerOptimizerRegistration fedavgm_registration{
    {.kind = "server_optimizer",
     .name = "fedavgm",
     .help = "momentum on the server over the rounds' updates",
     .citation = "Hsu, Qi & Brown, Measuring the Effects of Non-Identical Data Distribution, 2019",
     .options = {core::number("lr", "server learning rate").above(0).by_default(1.0),
                 core::number("momentum", "momentum β").at_least(0).below(1).by_default(0.9)}},
    [](const core::Value& options) { return std::make_unique<FedAvgM>(options); }};

}  // namespace

}  // namespace thalweg::aggregator
