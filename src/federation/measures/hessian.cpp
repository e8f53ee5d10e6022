#include "thalweg/analysis/hessian.hpp"

#include "samples.hpp"

namespace thalweg::federation {

namespace {

/// Curvature of the new global model's loss on the first test samples.
class HessianMeasure final : public Measure {
  public:
    explicit HessianMeasure(const core::Value& options)
        : top_(options["top"].as_int()),
          probes_(options["probes"].as_int()),
          density_(options["density"].as_bool()),
          samples_(options["samples"].as_int()) {
        density_options_.probes = options["density_probes"].as_int();
        density_options_.steps = options["density_steps"].as_int();
    }

    bool takes_any_width() const override { return true; }

    record::Json finish(const aggregator::FusionState& state, const RoundView& view) override {
        const auto samples = first_test_samples(view, samples_);
        const auto& graph = view.context.graph;
        auto& communicator = view.context.communicator;
        const std::int64_t k = std::min(top_, graph.layout->trainable_size());
        const auto top =
            analysis::top_eigenvalues(graph, state.merged, samples, k, {}, view.context.seed, communicator);
        record::Json json{{"eigenvalues", top.eigenvalues},
                          {"smallest", top.smallest},
                          {"converged", top.converged},
                          {"trace", nullptr},
                          {"parameters", top.parameters}};
        if (probes_ > 0) {
            const auto trace = analysis::hutchinson_trace(graph, state.merged, samples, probes_,
                                                          view.context.seed, communicator);
            json["trace"] = {{"value", trace.trace}, {"standard_error", trace.standard_error}};
        }
        if (density_) {
            const auto density = analysis::spectral_density(graph, state.merged, samples, density_options_,
                                                            view.context.seed, communicator);
            json["density"] = {{"grid", density.grid},         {"density", density.density},
                               {"sigma", density.sigma},       {"mean", density.mean},
                               {"negative", density.negative}, {"smallest", density.smallest},
                               {"largest", density.largest}};
        }
        return json;
    }

  private:
    std::int64_t top_, probes_;
    bool density_;
    std::int64_t samples_;
    analysis::DensityOptions density_options_;
};

const MeasureRegistration hessian_registration{
    {.kind = "measure",
     .name = "hessian",
     .help = "largest eigenvalues, trace and spectral density of the Hessian of the global model's loss",
     .citation = "Yao et al., PyHessian, 2020 (arXiv 1912.07145)",
     .options =
         {core::integer("top", "largest eigenvalues").at_least(1).by_default(1),
          core::integer("probes", "random probes for the trace; 0: no trace").at_least(0).by_default(5),
          core::boolean("density", "also the spectral density (stochastic Lanczos quadrature)")
              .by_default(false),
          core::integer("density_probes", "random starts for it").at_least(1).by_default(4),
          core::integer("density_steps", "Lanczos steps from each").at_least(1).by_default(40),
          core::integer("samples", "test samples used, the first ones").at_least(1).by_default(500)}},
    [](const core::Value& options) { return std::make_unique<HessianMeasure>(options); }};

}  // namespace

}  // namespace thalweg::federation
