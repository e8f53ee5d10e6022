#include <torch/types.h>

#include "thalweg/aggregator/server_optimizer.hpp"

namespace thalweg::aggregator {

namespace {

/// Federated averaging as it was published: the fused model is the new global one.
class None final : public ServerOptimizer {
  public:
    model::Parameters step(const model::Parameters& previous, const model::Parameters& fused) override {
        return fused;
    }
};

const ServerOptimizerRegistration none_registration{
    {.kind = "server_optimizer",
     .name = "none",
     .help = "the fused model becomes the global one as it is",
     .citation = "",
     .options = {}},
    [](const core::Value&) { return std::make_unique<None>(); }};

}  // namespace

}  // namespace thalweg::aggregator
