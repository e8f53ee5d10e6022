#include <vector>

#include "thalweg/clients/training.hpp"
#include "thalweg/core/memory.hpp"

namespace thalweg::clients {
namespace {

struct SgdOptions {
    double lr, momentum, weight_decay;
    bool nesterov;
};

/// Stochastic gradient descent as torch.optim.SGD with dampening 0: d = g + wd·θ; b ← m·b + d; θ ← θ − lr·b, or with
/// Nesterov's look-ahead θ ← θ − lr·(d + m·b). One pass over the flat vector.
class Sgd final : public Algorithm {
  public:
    explicit Sgd(const SgdOptions& options) : options_(options) {}

    void start(std::int64_t n) override {
        if (options_.momentum == 0) return;
        if (momentum_.size() != static_cast<std::size_t>(n))
            core::require_memory(4.0 * static_cast<double>(n),
                                 "SGD's momentum of " + std::to_string(n) + " parameters");
        momentum_.assign(static_cast<std::size_t>(n), 0.0F);
    }

    void step(std::span<float> values, std::span<const float> gradient, double lr) override {
        const auto rate = static_cast<float>(lr);
        const auto decay = static_cast<float>(options_.weight_decay);
        float* __restrict p = values.data();
        const float* __restrict g = gradient.data();
        const std::size_t n = values.size();
        if (options_.momentum == 0) {
            for (std::size_t i = 0; i < n; ++i) p[i] -= rate * (g[i] + decay * p[i]);
            return;
        }
        const auto momentum = static_cast<float>(options_.momentum);
        float* __restrict b = momentum_.data();
        if (options_.nesterov) {
            for (std::size_t i = 0; i < n; ++i) {
                const float d = g[i] + decay * p[i];
                b[i] = momentum * b[i] + d;
                p[i] -= rate * (d + momentum * b[i]);
            }
        } else {
            for (std::size_t i = 0; i < n; ++i) {
                b[i] = momentum * b[i] + (g[i] + decay * p[i]);
                p[i] -= rate * b[i];
            }
        }
    }

    double learning_rate() const override { return options_.lr; }

  private:
    SgdOptions options_;
    std::vector<float> momentum_;
};

const AlgorithmRegistration sgd_registration{
    {.kind = "algorithm",
     .name = "sgd",
     .help = "stochastic gradient descent; momentum starts anew in every local training",
     .citation = "McMahan et al. 2017, arXiv:1602.05629 (as the local step of FedAvg)",
     .options =
         core::Schema{core::number("lr", "learning rate").above(0).by_default(0.01),
                      core::number("momentum", "share of the last direction kept")
                          .at_least(0)
                          .below(1)
                          .by_default(0.0),
                      core::boolean("nesterov", "Nesterov's momentum").by_default(false),
                      core::number("weight_decay", "L2 penalty's factor").at_least(0).by_default(0.0)}},
    [](const core::Value& options) {
        const SgdOptions read{options["lr"].as_number(), options["momentum"].as_number(),
                              options["weight_decay"].as_number(), options["nesterov"].as_bool()};
        if (read.nesterov && read.momentum == 0) {
            options["nesterov"].reject(
                "nesterov needs a momentum above 0; set momentum (0.9 is usual) or nesterov: false");
        }
        return std::make_unique<Sgd>(read);
    }};

}  // namespace
}  // namespace thalweg::clients
