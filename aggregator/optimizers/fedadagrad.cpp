#include "adaptive.hpp"

namespace thalweg::aggregator {

namespace {

/// v ← v + Δ².
class FedAdagrad final : public AdaptiveOptimizer {
  public:
    explicit FedAdagrad(const core::Value& options) : AdaptiveOptimizer(options) {}

  protected:
    void accumulate(at::Tensor& v, const at::Tensor& square) const override { v.add_(square); }
};

const ServerOptimizerRegistration fedadagrad_registration{
    {.kind = "server_optimizer",
     .name = "fedadagrad",
     .help = "Adagrad on the server over the rounds' updates",
     .citation = "Reddi et al., Adaptive Federated Optimization, ICLR 2021",
     .options = core::Schema(AdaptiveOptimizer::options(false))},
    [](const core::Value& options) { return std::make_unique<FedAdagrad>(options); }};

}  // namespace

}  // namespace thalweg::aggregator
