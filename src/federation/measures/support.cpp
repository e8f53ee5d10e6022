#include "thalweg/analysis/support.hpp"

#include "samples.hpp"

namespace thalweg::federation {

namespace {

/// Effective dimension of the new global model's layers on the first test samples.
class SupportMeasure final : public Measure {
  public:
    explicit SupportMeasure(const core::Value& options) : samples_(options["samples"].as_int()) {}

    bool takes_any_width() const override { return true; }

    record::Json finish(const aggregator::FusionState& state, const RoundView& view) override {
        record::Json json = record::Json::object();
        for (const auto& layer :
             analysis::support(view.context.graph, state.merged, first_test_samples(view, samples_),
                               view.context.communicator)) {
            json[layer.layer] = {{"weights", layer.weights},
                                 {"outputs_covariance", layer.outputs_covariance},
                                 {"inputs_covariance", layer.inputs_covariance}};
        }
        return json;
    }

  private:
    std::int64_t samples_;
};

const MeasureRegistration support_registration{
    {.kind = "measure",
     .name = "support",
     .help = "effective dimension by layer of the global model's weights and activations",
     .citation = "Ferbach et al., AISTATS 2024 (arXiv 2310.19103)",
     .options = {core::integer("samples", "test samples used, the first ones").at_least(2).by_default(500)}},
    [](const core::Value& options) { return std::make_unique<SupportMeasure>(options); }};

}  // namespace

}  // namespace thalweg::federation
