#include "thalweg/analysis/surface.hpp"

#include "samples.hpp"
#include "thalweg/analysis/valley.hpp"

namespace thalweg::federation {

namespace {

/// Loss and accuracy about the new global model in two random directions, on the first test samples. The same draws in every
/// round, scaled to the round's filters.
class SurfaceMeasure final : public Measure {
  public:
    explicit SurfaceMeasure(const core::Value& options) : samples_(options["samples"].as_int()) {
        options_.columns = options_.rows = options["points"].as_int();
        options_.range = options["range"].as_number();
        options_.reset_batch_norm = options["reset_batch_norm"].as_bool();
    }

    void check(const model::ModelGraph& graph) const override {
        analysis::require_valley(graph, {.norm = "filter"});  // of such noise the directions are made
    }
    bool takes_any_width() const override { return true; }
    bool mends() const override { return options_.reset_batch_norm; }

    record::Json finish(const aggregator::FusionState& state, const RoundView& view) override {
        const auto& context = view.context;
        const auto plane = core::collectively(context.communicator, [&] {
            return analysis::random_plane(context.graph, state.merged, context.seed);
        });
        const auto found =
            analysis::surface(context.graph, plane, first_test_samples(view, samples_), options_,
                              mends() ? context.holdout : nullptr, context.communicator);
        return {{"x", found.x}, {"y", found.y}, {"loss", found.loss}, {"accuracy", found.accuracy}};
    }

  private:
    std::int64_t samples_;
    analysis::SurfaceOptions options_;
};

const MeasureRegistration surface_registration{
    {.kind = "measure",
     .name = "surface",
     .help = "loss and accuracy about the new global model in two random filter-normalised directions",
     .citation = "Li et al., Visualizing the Loss Landscape of Neural Nets, NeurIPS 2018 (arXiv 1712.09913)",
     .options =
         {core::integer("points", "points along each axis").at_least(2).by_default(11),
          core::number("range", "the axes reach so many filter norms to each side").above(0).by_default(1),
          core::integer("samples", "test samples used, the first ones").at_least(1).by_default(1000),
          core::boolean("reset_batch_norm",
                        "take batch norms' statistics anew at every point, on the hold-out")
              .by_default(false)}},
    [](const core::Value& options) { return std::make_unique<SurfaceMeasure>(options); }};

}  // namespace

}  // namespace thalweg::federation
