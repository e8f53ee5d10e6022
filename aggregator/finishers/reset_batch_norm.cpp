#include <torch/types.h>

#include "thalweg/aggregator/repair.hpp"
#include "thalweg/aggregator/stage.hpp"

namespace thalweg::aggregator {

namespace {

/// See reset_batch_norm().
class ResetBatchNorm final : public Stage {
  public:
    explicit ResetBatchNorm(const core::Value& options)
        : statistics_(options["statistics"].as_text()),
          samples_(options["samples"].as_int()),
          weights_(options["weights"].as_text()) {}

    StageTraits traits() const override {
        return {.kind = StageKind::finisher,
                .needs_holdout = statistics_ == "server",
                .needs_clients = statistics_ == "clients",
                .recomputes_norms = true,
                .linear = true};
    }

    StageNotes apply(FusionState& state, const FusionContext& context) const override {
        const auto w = core::collectively(context.communicator,
                                          [&] { return finisher_weights(weights_, state, context); });
        const auto source = source_of(statistics_, context).limited(samples_);
        model::Parameters merged =
            core::collectively(context.communicator, [&] { return state.merged.clone(); });
        const auto count = reset_batch_norm(merged, context, *source, w);
        state.merged = merged;
        return {{"batch_norms_reset", static_cast<double>(count)},
                {"samples", samples_seen(state, context, *source)}};
    }

  private:
    std::string statistics_;
    std::int64_t samples_;
    std::string weights_;
};

const StageRegistration reset_batch_norm_registration{
    {.kind = "stage",
     .name = "reset_batch_norm",
     .help = "recomputes the running statistics of the merged model's batch norms",
     .citation =
         "Izmailov et al., Averaging Weights Leads to Wider Optima and Better Generalization, UAI 2018",
     .options = {core::choice("statistics", {"server", "clients"},
                              "whose data: the server's hold-out, or moments that clients send of their own")
                     .by_default("server"),
                 core::integer(
                     "samples",
                     "look at no more than so many samples of the server's, or of each client's; 0: all")
                     .at_least(0)
                     .by_default(0),
                 core::choice("weights", {"reduction", "samples", "uniform"},
                              "what a client counts: as in the reduction, its samples, or all alike")
                     .by_default("reduction")},
     .cost = "a pass through the first l operations for each batch norm l"},
    [](const core::Value& options) { return std::make_unique<ResetBatchNorm>(options); }};

}  // namespace

}  // namespace thalweg::aggregator
