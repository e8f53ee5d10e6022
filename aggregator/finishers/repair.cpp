#include "thalweg/aggregator/repair.hpp"

#include <torch/types.h>

#include "thalweg/aggregator/stage.hpp"

namespace thalweg::aggregator {

namespace {

/// See repair().
class Repair final : public Stage {
  public:
    explicit Repair(const core::Value& options)
        : statistics_(options["statistics"].as_text()),
          samples_(options["samples"].as_int()),
          noise_(options["noise"].as_number()),
          weights_(options["weights"].as_text()),
          options_(RepairOptions::from(options["target"].as_text(), options["average"].as_text(),
                                       options["mode"].as_text(), options["classifier"].as_bool(),
                                       options["residual"].as_bool())) {
        options_.method = RepairOptions::method_of(options["method"].as_text());
        if (options_.method == RepairOptions::Method::closed_form && statistics_ == "clients") {
            options["method"].reject(
                "REPAIR in closed form compares all clients' models on the same samples, which only the "
                "server has: "
                "set statistics: server, or another method");
        }
        if (noise_ > 0 && statistics_ == "server") {
            options["noise"].reject(
                "noise disturbs what clients send, and the server's own samples are not sent: set "
                "statistics: "
                "clients, or noise: 0");
        }
    }

    StageTraits traits() const override {
        return {.kind = StageKind::finisher,
                .needs_holdout = statistics_ == "server",
                .needs_clients = statistics_ == "clients",
                .frame_free = noise_ == 0,  // the draws meet channels
                .recomputes_norms = true,
                .needs_linear = options_.method == RepairOptions::Method::closed_form,
                // Chunks are mended by their own moments, which differ a little from all samples'.
                .fixed_point = noise_ == 0 && options_.method != RepairOptions::Method::one_pass};
    }

    StageNotes apply(FusionState& state, const FusionContext& context) const override {
        const auto w = core::collectively(context.communicator,
                                          [&] { return finisher_weights(weights_, state, context); });
        const auto source =
            source_of(statistics_, context).limited(samples_)->disturbed(noise_, context.seed, context.round);
        model::Parameters merged =
            core::collectively(context.communicator, [&] { return state.merged.clone(); });
        const auto report = repair(merged, state, context, *source, w, options_);
        state.merged = merged;
        auto notes = report.notes();
        notes.emplace_back("samples", samples_seen(state, context, *source));
        return notes;
    }

  private:
    std::string statistics_;
    std::int64_t samples_;
    double noise_;
    std::string weights_;
    RepairOptions options_;
};

const StageRegistration repair_registration{
    {.kind = "stage",
     .name = "repair",
     .help = "gives the merged model's pre-activations the means and deviations the clients' models have",
     .citation =
         "Jordan et al., REPAIR: REnormalizing Permuted Activations for Interpolation Repair, ICLR 2023",
     .options =
         {core::choice("statistics", {"server", "clients"},
                       "whose data: the server's hold-out, or moments that clients send of their own")
              .by_default("server"),
          core::choice("target", {"within", "pooled"},
                       "the average of the clients' deviations, or the deviation of their pooled values")
              .by_default("within"),
          core::choice("average", {"std", "variance"},
                       "what is averaged over clients for the target 'within'")
              .by_default("std"),
          core::choice("mode", {"repair", "rescale", "reshift"},
                       "means and deviations, deviations only, means only")
              .by_default("repair"),
          core::choice("method", {"sequential", "one_pass", "closed_form"},
                       "each layer measured after those before it were mended; all in one pass; or predicted "
                       "from the clients' models on the server's samples, without a pass of the merged one")
              .by_default("sequential"),
          core::number(
              "noise",
              "clients disturb the moments they send by so many standard deviations (means) and as a "
              "share (variances)")
              .at_least(0)
              .by_default(0),
          core::boolean("classifier", "repair the last layer (the logits) too").by_default(false),
          core::boolean("residual",
                        "give the sums of residual blocks the clients' moments too, by scaling and "
                        "shifting the branch that is added")
              .by_default(true),
          core::integer("samples",
                        "look at no more than so many samples of the server's, or of each client's; 0: all")
              .at_least(0)
              .by_default(0),
          core::choice("weights", {"reduction", "samples", "uniform"},
                       "what a client counts: as in the reduction, its samples, or all alike")
              .by_default("reduction")},
     .cost = "sequential: a pass through the first l layers for each repaired layer l, and one of every "
             "client's model; "
             "one_pass: one pass; closed_form: one pass of every client's model"},
    [](const core::Value& options) { return std::make_unique<Repair>(options); }};

}  // namespace

}  // namespace thalweg::aggregator
