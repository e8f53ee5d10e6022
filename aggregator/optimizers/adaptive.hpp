#pragma once

#include <torch/types.h>

#include "pseudo_gradient.hpp"

namespace thalweg::aggregator {

/// What FedAdagrad, FedAdam and FedYogi share: m ← β₁ m + (1 − β₁) Δ, v by each one's rule, θ ← θ + η m ÷ (√v + τ), with
/// v = τ² before the first step.
class AdaptiveOptimizer : public PseudoGradientOptimizer {
  public:
    static std::vector<core::Option> options(bool decays) {
        std::vector<core::Option> options{
            core::number("lr", "server learning rate η").above(0).by_default(0.01),
            core::number("beta1", "momentum β₁").at_least(0).below(1).by_default(decays ? 0.9 : 0.0),
            core::number("tau", "adaptivity τ: larger is nearer to plain averaging")
                .above(0)
                .by_default(1e-3)};
        if (decays)
            options.push_back(
                core::number("beta2", "decay of the second moment β₂").at_least(0).below(1).by_default(0.99));
        return options;
    }

  protected:
    explicit AdaptiveOptimizer(const core::Value& options)
        : PseudoGradientOptimizer({"first_moment", "second_moment"},
                                  {0.0, options["tau"].as_number() * options["tau"].as_number()}),
          lr_(options["lr"].as_number()),
          beta1_(options["beta1"].as_number()),
          tau_(options["tau"].as_number()) {}

    /// v after one more Δ², in place.
    virtual void accumulate(at::Tensor& v, const at::Tensor& square) const = 0;

    at::Tensor direction(const at::Tensor& delta, std::vector<at::Tensor>& kept) const final {
        kept[0].mul_(beta1_).add_(delta, 1 - beta1_);
        accumulate(kept[1], delta * delta);
        return kept[0] * lr_ / (kept[1].sqrt() + tau_);
    }

  private:
    double lr_, beta1_, tau_;
};

}  // namespace thalweg::aggregator
