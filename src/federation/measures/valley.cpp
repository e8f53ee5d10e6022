#include "thalweg/analysis/valley.hpp"

#include "samples.hpp"
#include "thalweg/federation/measure.hpp"

namespace thalweg::federation {

namespace {

/// The valley about the new global model, on the first test samples. The same directions in every round, so that rounds can
/// be compared.
class ValleyMeasure final : public Measure {
  public:
    explicit ValleyMeasure(const core::Value& options) : samples_(options["samples"].as_int()) {
        options_.noise = options["noise"];
        if (options.has("sign_ratio")) options_.sign_ratio = options["sign_ratio"].as_number();
        options_.scale = options["scale"].as_number();
        options_.norm = options["norm"].as_text();
        options_.points = options["points"].as_int();
        options_.repeats = options["repeats"].as_int();
        options_.part = options["part"].as_text();
        options_.reset_batch_norm = options["reset_batch_norm"].as_bool();
    }

    void check(const model::ModelGraph& graph) const override { analysis::require_valley(graph, options_); }
    bool takes_any_width() const override { return true; }
    bool mends() const override { return options_.reset_batch_norm; }

    record::Json finish(const aggregator::FusionState& state, const RoundView& view) override {
        const auto samples = first_test_samples(view, samples_);
        const auto found =
            analysis::valley(view.context.graph, state.merged, samples, options_, view.context.seed,
                             mends() ? view.context.holdout : nullptr, view.context.communicator);
        record::Json json = {{"lambdas", found.lambdas},
                             {"loss", found.loss},
                             {"accuracy", found.accuracy},
                             {"asymmetry", found.asymmetry}};
        if (found.asymmetries.size() > 1)
            json["asymmetry_interval"] = {found.asymmetry_low, found.asymmetry_high};
        if (found.sign_ratio) json["sign_ratio"] = *found.sign_ratio;
        return json;
    }

  private:
    std::int64_t samples_;
    analysis::ValleyOptions options_;
};

const MeasureRegistration valley_registration{
    {.kind = "measure",
     .name = "valley",
     .help = "loss and accuracy along random directions through the new global model, and their asymmetry",
     .citation = "Li et al., Exploring and Exploiting the Asymmetric Valley of DNNs, NeurIPS 2024 (arXiv "
                 "2405.12489)",
     .options =
         {core::plugin("noise", "noise", "what the directions are drawn from").by_default("gaussian"),
          core::number("sign_ratio",
                       "share of the entries whose noise has the model's own sign; null: as drawn")
              .at_least(0)
              .at_most(1)
              .optional(),
          core::number("scale", "length of the noise ÷ length of the parameters").above(0).by_default(1),
          core::choice("norm", {"global", "filter"}, "what is scaled: all as one, or filter by filter")
              .by_default("global"),
          core::integer("points", "values of λ from −1 to 1").at_least(3).by_default(11),
          core::integer("repeats", "directions drawn").at_least(1).by_default(3),
          core::text("part",
                     "what gets noise: all, classifier, features, batch_norm, or a module's or "
                     "tensor's name")
              .by_default("all"),
          core::boolean("reset_batch_norm",
                        "take batch norms' statistics anew at every point, on the hold-out")
              .by_default(false),
          core::integer("samples", "test samples used, the first ones").at_least(1).by_default(2000)}},
    [](const core::Value& options) { return std::make_unique<ValleyMeasure>(options); }};

}  // namespace

}  // namespace thalweg::federation
