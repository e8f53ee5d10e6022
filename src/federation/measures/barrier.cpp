#include <algorithm>

#include "samples.hpp"
#include "thalweg/analysis/measures.hpp"
#include "thalweg/federation/measure.hpp"

namespace thalweg::federation {

namespace {

/// Loss and error barrier between sampled client pairs as sent and as aligned, on the first test samples.
class BarrierMeasure final : public Measure {
  public:
    explicit BarrierMeasure(const core::Value& options)
        : pairs_(options["pairs"].as_int()),
          points_(options["points"].as_int()),
          samples_(options["samples"].as_int()),
          finish_(options["finish"].as_text()) {}

    bool mends() const override { return finish_ != "none"; }

    void begin(const aggregator::FusionState& state, const RoundView& view) override {
        before_ = mean(state, view);
    }

    void after(std::size_t index, const aggregator::FusionState& state, const RoundView& view) override {
        if (index + 1 == view.pipeline.reduction()) after_ = mean(state, view);
    }

    record::Json finish(const aggregator::FusionState&, const RoundView& view) override {
        const auto pairs = static_cast<std::int64_t>(measured_pairs(view, pairs_).size());
        if (pairs == 0) return nullptr;
        if (view.pipeline.reduction() == 0) after_ = before_;
        return {{"pairs", pairs},
                {"before", {{"loss", before_.first}, {"error", before_.second}}},
                {"after", {{"loss", after_.first}, {"error", after_.second}}}};
    }

    bool brief() const override { return true; }

  private:
    std::pair<double, double> mean(const aggregator::FusionState& state, const RoundView& view) const {
        const auto samples = first_test_samples(view, samples_);
        double loss = 0, error = 0;
        const auto pairs = measured_pairs(view, pairs_);
        for (const auto& [a, b] : pairs) {
            const auto first_end = fetch_update(a, state, view.context);
            const auto second_end = fetch_update(b, state, view.context);
            const auto curve =
                analysis::linear_curve(view.context.graph, first_end.parameters, second_end.parameters,
                                       {{"samples", &samples}}, {.points = points_, .finish = finish_},
                                       mends() ? view.context.holdout : nullptr, view.context.communicator);
            loss += curve.splits.front().second.loss_barrier;
            error += curve.splits.front().second.error_barrier;
        }
        const double n = std::max<double>(1, static_cast<double>(pairs.size()));
        return {loss / n, error / n};
    }

    std::int64_t pairs_, points_, samples_;
    std::string finish_;
    std::pair<double, double> before_, after_;
};

const MeasureRegistration barrier_registration{
    {.kind = "measure",
     .name = "barrier",
     .help = "mean loss and error barrier between sampled client pairs, before and after alignment",
     .citation = "Entezari et al., ICLR 2022 (arXiv 2110.06296)",
     .options = {core::integer("pairs", "client pairs drawn each round").at_least(1).by_default(3),
                 core::integer("points", "points on each line").at_least(3).by_default(5),
                 core::integer("samples", "test samples used, the first ones").at_least(1).by_default(2000),
                 core::choice("finish", {"none", "repair", "rescale", "reset_batch_norm"},
                              "how every point between the models is mended, on the hold-out")
                     .by_default("none")}},
    [](const core::Value& options) { return std::make_unique<BarrierMeasure>(options); }};

}  // namespace

}  // namespace thalweg::federation
