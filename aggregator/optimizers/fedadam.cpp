#include "adaptive.hpp"

namespace thalweg::aggregator {

namespace {

/// v ← β₂ v + (1 − β₂) Δ².
class FedAdam final : public AdaptiveOptimizer {
  public:
    explicit FedAdam(const core::Value& options)
        : AdaptiveOptimizer(options), beta2_(options["beta2"].as_number()) {}

  protected:
    void accumulate(at::Tensor& v, const at::Tensor& square) const override {
        v.mul_(beta2_).add_(square, 1 - beta2_);
    }

  private:
    double beta2_;
};

const ServerOptimizerRegistration fedadam_registration{
    {.kind = "server_optimizer",
     .name = "fedadam",
     .help = "Adam on the server over the rounds' updates",
     .citation = "Reddi et al., Adaptive Federated Optimization, ICLR 2021",
     .options = core::Schema(AdaptiveOptimizer::options(true))},
    [](const core::Value& options) { return std::make_unique<FedAdam>(options); }};

}  // namespace

}  // namespace thalweg::aggregator
