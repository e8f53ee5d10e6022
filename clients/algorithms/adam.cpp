#include <cmath>
#include <vector>

#include "thalweg/clients/training.hpp"
#include "thalweg/core/memory.hpp"

namespace thalweg::clients {
namespace {

struct AdamOptions {
    double lr, beta1, beta2, epsilon, weight_decay;
};

/// Adam as torch.optim.Adam: g ← g + wd·θ; m ← β₁m + (1−β₁)g; v ← β₂v + (1−β₂)g²;
/// θ ← θ − lr/(1−β₁ᵗ) · m / (√v/√(1−β₂ᵗ) + ε). One pass over the flat vector.
class Adam final : public Algorithm {
  public:
    explicit Adam(const AdamOptions& options) : options_(options) {}

    void start(std::int64_t n) override {
        if (first_.size() != static_cast<std::size_t>(n))
            core::require_memory(8.0 * static_cast<double>(n),
                                 "Adam's moments of " + std::to_string(n) + " parameters");
        first_.assign(static_cast<std::size_t>(n), 0.0F);
        second_.assign(static_cast<std::size_t>(n), 0.0F);
        time_ = 0;
    }

    void step(std::span<float> values, std::span<const float> gradient, double lr) override {
        ++time_;
        const auto time = static_cast<double>(time_);
        const auto rate = static_cast<float>(lr / (1.0 - std::pow(options_.beta1, time)));
        const auto correction = static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(options_.beta2, time)));
        const auto epsilon = static_cast<float>(options_.epsilon);
        const auto decay = static_cast<float>(options_.weight_decay);
        const auto keep1 = static_cast<float>(options_.beta1);
        const auto keep2 = static_cast<float>(options_.beta2);
        const auto take1 = static_cast<float>(1.0 - options_.beta1);
        const auto take2 = static_cast<float>(1.0 - options_.beta2);
        float* __restrict p = values.data();
        const float* __restrict gradients = gradient.data();
        float* __restrict m = first_.data();
        float* __restrict v = second_.data();
        const std::size_t n = values.size();
        for (std::size_t i = 0; i < n; ++i) {
            const float g = gradients[i] + decay * p[i];
            m[i] = keep1 * m[i] + take1 * g;
            v[i] = keep2 * v[i] + take2 * (g * g);
            p[i] -= rate * m[i] / (std::sqrt(v[i]) * correction + epsilon);
        }
    }

    double learning_rate() const override { return options_.lr; }

  private:
    AdamOptions options_;
    std::vector<float> first_, second_;
    std::int64_t time_ = 0;
};

const AlgorithmRegistration adam_registration{
    {.kind = "algorithm",
     .name = "adam",
     .help = "Adam; its moments start anew in every local training",
     .citation = "Kingma & Ba 2015, arXiv:1412.6980",
     .options =
         core::Schema{core::number("lr", "learning rate").above(0).by_default(0.001),
                      core::numbers("betas", "decay of the first and the second moment, each in [0, 1)")
                          .by_default("[0.9, 0.999]"),
                      core::number("eps", "added to the denominator").above(0).by_default(1e-8),
                      core::number("weight_decay", "L2 penalty's factor").at_least(0).by_default(0.0)}},
    [](const core::Value& options) {
        const auto betas = options["betas"].as_numbers();
        const auto valid = [](double beta) { return beta >= 0 && beta < 1; };
        if (betas.size() != 2 || !valid(betas[0]) || !valid(betas[1])) {
            options["betas"].reject(
                "betas are two numbers, each at least 0 and below 1, for example [0.9, 0.999]");
        }
        return std::make_unique<Adam>(AdamOptions{options["lr"].as_number(), betas[0], betas[1],
                                                  options["eps"].as_number(),
                                                  options["weight_decay"].as_number()});
    }};

}  // namespace
}  // namespace thalweg::clients
