#include "thalweg/analysis/flatness.hpp"

#include "samples.hpp"

namespace thalweg::federation {

namespace {

/// Local energy of the new global model on the first test samples.
class FlatnessMeasure final : public Measure {
  public:
    explicit FlatnessMeasure(const core::Value& options)
        : repeats_(options["repeats"].as_int()), samples_(options["samples"].as_int()) {
        for (const auto& item : options["sigma"].items()) {
            sigmas_.push_back(item.as_number());
            if (sigmas_.back() < 0) item.reject("a noise strength is 0 or more");
        }
        if (sigmas_.empty()) options["sigma"].reject("give at least one noise strength");
    }

    bool takes_any_width() const override { return true; }

    record::Json finish(const aggregator::FusionState& state, const RoundView& view) override {
        const auto found =
            analysis::local_energy(view.context.graph, state.merged, first_test_samples(view, samples_),
                                   sigmas_, repeats_, view.context.seed, view.context.communicator);
        record::Json json{{"error", 1 - found.at.accuracy}, {"points", record::Json::array()}};
        for (const auto& point : found.points) {
            json["points"].push_back({{"sigma", point.sigma},
                                      {"energy", point.energy},
                                      {"standard_error", point.standard_error},
                                      {"loss_rise", point.loss_rise}});
        }
        return json;
    }

  private:
    std::vector<double> sigmas_;
    std::int64_t repeats_, samples_;
};

const MeasureRegistration flatness_registration{
    {.kind = "measure",
     .name = "flatness",
     .help = "local energy of the global model: the error's rise under noise in proportion to each weight",
     .citation = "Pittorino et al., ICML 2022 (arXiv 2202.03038)",
     .options = {core::numbers("sigma", "strengths of the noise").by_default("[0.1, 0.3]"),
                 core::integer("repeats", "draws of noise").at_least(1).by_default(5),
                 core::integer("samples", "test samples used, the first ones").at_least(1).by_default(1000)}},
    [](const core::Value& options) { return std::make_unique<FlatnessMeasure>(options); }};

}  // namespace

}  // namespace thalweg::federation
