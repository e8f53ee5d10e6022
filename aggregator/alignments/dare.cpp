#include <torch/types.h>

#include "thalweg/aggregator/stage.hpp"

namespace thalweg::aggregator {

namespace {

/// DARE (Yu et al., ICML 2024): drops each entry of a client's task vector θ_k − base with probability p and multiplies the
/// others by 1/(1 − p), so that the expectation stays. Goes before a reduction (`dare+mean`, `dare+ties`). The base is the
/// previous global model. Every client draws for itself (seed, round, client). Running statistics are left alone.
class Dare final : public PerUpdateStage {
  public:
    explicit Dare(const core::Value& options) : drop_(options["drop"].as_number()) {}

    StageTraits traits() const override {
        return {.kind = StageKind::per_update,
                .uses_mask = true,
                .needs_base = true,
                .needs_global_frame = true,
                .frame_free = false,
                .sets_own = true,
                .fixed_point = false};
    }

  protected:
    void treat(Update& update, const model::Parameters&, const FusionContext& context) const override {
        core::Random random(context.seed, "dare", context.round, update.client);
        if (!update.own.defined()) update.own = update.parameters;
        update.parameters = update.parameters.clone();
        const std::int64_t count = context.graph.layout->trainable_size();
        const at::Tensor kept = at::empty({count}, at::kBool);
        auto* keep = kept.data_ptr<bool>();
        for (std::int64_t i = 0; i < count; ++i) keep[i] = random.uniform() >= drop_;
        const at::Tensor values = update.parameters.trainable();
        const at::Tensor base = context.global->trainable().to(at::kDouble);
        const at::Tensor delta = (values.to(at::kDouble) - base).div_(1.0 - drop_);
        values.copy_(base + delta.mul_(kept));
    }

  private:
    double drop_;
};

const StageRegistration dare_registration{
    {.kind = "stage",
     .name = "dare",
     .help = "drops entries of every task vector at random and rescales the others",
     .citation = "Yu, Yu, Yu, Huang & Li, Language Models are Super Mario (DARE), ICML 2024",
     .options = {core::number("drop", "probability p that an entry is dropped")
                     .at_least(0)
                     .below(1)
                     .by_default(0.9)},
     .cost = "O(d) an update, on its rank"},
    [](const core::Value& options) { return std::make_unique<Dare>(options); }};

}  // namespace

}  // namespace thalweg::aggregator
