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
          samples_(options["samples"].as_int()) {}

    record::Json finish(const aggregator::FusionState& state, const RoundView& view) override {
        const auto samples = first_test_samples(view, samples_);
        const auto& graph = merged_graph(state, view);
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
        return json;
    }

  private:
    std::int64_t top_, probes_, samples_;
};

const MeasureRegistration registration{
    {.kind = "measure",
     .name = "hessian",
     .help = "largest eigenvalues and trace of the Hessian of the global model's loss",
     .citation = "Yao et al., PyHessian, 2020 (arXiv 1912.07145)",
     .options =
         {core::integer("top", "largest eigenvalues").at_least(1).by_default(1),
          core::integer("probes", "random probes for the trace; 0: no trace").at_least(0).by_default(5),
          core::integer("samples", "test samples used, the first ones").at_least(1).by_default(500)}},
    [](const core::Value& options) { return std::make_unique<HessianMeasure>(options); }};

}  // namespace

}  // namespace thalweg::federation
