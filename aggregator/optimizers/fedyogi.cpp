#include "adaptive.hpp"

namespace thalweg::aggregator {

namespace {

/// v ← v − (1 − β₂) Δ² sign(v − Δ²): the second moment moves by no more than Δ² says.
class FedYogi final : public AdaptiveOptimizer {
  public:
    explicit FedYogi(const core::Value& options)
        : AdaptiveOptimizer(options), beta2_(options["beta2"].as_number()) {}

  protected:
    void accumulate(at::Tensor& v, const at::Tensor& square) const override {
        v.sub_(square * (v - square).sign(), 1 - beta2_);
    }

  private:
    double beta2_;
};

const ServerOptimizerRegistration fedyogi_registration{
    {.kind = "server_optimizer",
     .name = "fedyogi",
     .help = "Yogi on the server over the rounds' updates: Adam whose second moment changes slowly",
     .citation = "Reddi et al., Adaptive Federated Optimization, ICLR 2021",
     .options = core::Schema(AdaptiveOptimizer::options(true))},
    [](const core::Value& options) { return std::make_unique<FedYogi>(options); }};

}  // namespace

}  // namespace thalweg::aggregator
