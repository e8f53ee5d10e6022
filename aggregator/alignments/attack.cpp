#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "thalweg/aggregator/stage.hpp"

namespace thalweg::aggregator {

namespace {

/// Corrupts what some clients send, to try reductions that claim to bear it: first in the pipeline, before anything the
/// server does. Trainable entries only.
///
/// `sign_flip`: −scale · θ. `update_flip`: base − scale · (θ − base), the previous global model mirrored (in a round that has
/// none: sign_flip). `noise`: θ plus normal numbers of `scale` times the root mean square of θ.
class Attack final : public PerUpdateStage {
  public:
    explicit Attack(const core::Value& options)
        : how_(options["how"].as_text()), scale_(options["scale"].as_number()) {
        for (const auto& item : options["clients"].items()) clients_.push_back(item.as_int());
    }

    StageTraits traits() const override {
        return {.kind = StageKind::per_update,
                .plays_clients = true,
                .frame_free = how_ != "noise",
                .names_clients = clients_,
                .fixed_point = false};
    }

  protected:
    void treat(Update& update, const model::Parameters&, const FusionContext& context) const override {
        if (std::find(clients_.begin(), clients_.end(), update.client) == clients_.end()) return;
        update.parameters = update.parameters.clone();
        const at::Tensor values = update.parameters.trainable();
        if (how_ == "noise") {
            core::Random random(context.seed, "attack", context.round, update.client);
            const at::Tensor noise = at::empty({values.numel()}, at::kDouble);
            for (std::int64_t i = 0; i < noise.numel(); ++i) noise.data_ptr<double>()[i] = random.normal();
            const double size = std::sqrt(values.to(at::kDouble).square().mean().item<double>());
            values.add_(noise, scale_ * size);
        } else if (how_ == "update_flip" && context.global != nullptr) {
            const at::Tensor base = context.global->trainable();
            values.copy_(base - (values - base) * scale_);
        } else {
            values.mul_(-scale_);
        }
    }

  private:
    std::vector<std::int64_t> clients_;
    std::string how_;
    double scale_;
};

const StageRegistration attack_registration{
    {.kind = "stage",
     .name = "attack",
     .help = "corrupts what the named clients send, to try robust reductions: put it first",
     .citation = "",
     .options = {core::integers("clients", "ids of the corrupted clients").at_least(0).at_least_items(1),
                 core::choice("how", {"sign_flip", "update_flip", "noise"},
                              "the model with all signs turned, the update turned, or noise added")
                     .by_default("sign_flip"),
                 core::number("scale", "how much: the factor, or the noise relative to the weights")
                     .above(0)
                     .by_default(1)},
     .cost = "O(d) a corrupted update"},
    [](const core::Value& options) { return std::make_unique<Attack>(options); }};

}  // namespace

}  // namespace thalweg::aggregator
