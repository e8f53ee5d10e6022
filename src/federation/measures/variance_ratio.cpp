#include "thalweg/analysis/measures.hpp"
#include "thalweg/federation/measure.hpp"

namespace thalweg::federation {

namespace {

/// Variance ratio by layer of the model the reduction made and of the one the finishers left.
class VarianceRatioMeasure final : public Measure {
  public:
    void after(std::size_t index, const aggregator::FusionState& state, const RoundView& view) override {
        if (index == view.pipeline.reduction()) before_ = ratios(state, view);
        if (index + 1 == view.pipeline.items().size()) after_ = ratios(state, view);
    }

    record::Json finish(const aggregator::FusionState&, const RoundView&) override {
        return {{"before", before_}, {"after", after_}};
    }

    bool brief() const override { return true; }

  private:
    static record::Json ratios(const aggregator::FusionState& state, const RoundView& view) {
        const auto& context = view.context;
        auto& source = context.server ? *context.server : *context.clients;
        record::Json json = record::Json::object();
        for (const auto& [layer, ratio] :
             analysis::variance_ratio(state.merged, state, context, source, state.weights)) {
            json[layer] = ratio;
        }
        return json;
    }

    record::Json before_, after_;
};

const MeasureRegistration variance_ratio_registration{
    {.kind = "measure",
     .name = "variance_ratio",
     .help = "per layer, variance of the merged model's pre-activations ÷ the clients', before and after the "
             "finishers; "
             "on the server's hold-out, else on the clients' data",
     .citation = "Jordan et al., ICLR 2023 (arXiv 2211.08403)",
     .options = {}},
    [](const core::Value&) { return std::make_unique<VarianceRatioMeasure>(); }};

}  // namespace

}  // namespace thalweg::federation
