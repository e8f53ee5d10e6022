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
        before_ = curves(state, view);
    }

    void after(std::size_t index, const aggregator::FusionState& state, const RoundView& view) override {
        if (index + 1 == view.pipeline.reduction()) after_ = curves(state, view);
    }

    record::Json finish(const aggregator::FusionState&, const RoundView& view) override {
        const auto pairs = measured_pairs(view, pairs_);
        if (pairs.empty()) return nullptr;
        if (view.pipeline.reduction() == 0) after_ = before_;
        record::Json json{{"pairs", static_cast<std::int64_t>(pairs.size())},
                          {"before", mean(before_)},
                          {"after", mean(after_)},
                          {"by_pair", record::Json::object()}};
        for (std::size_t i = 0; i < pairs.size(); ++i)
            json["by_pair"][pair_name(view, pairs[i])] = {{"before", whole(before_[i])},
                                                          {"after", whole(after_[i])}};
        return json;
    }

    bool brief() const override { return true; }

  private:
    using Curves = std::vector<analysis::SplitCurve>;

    static record::Json mean(const Curves& curves) {
        double loss = 0, error = 0;
        for (const auto& curve : curves) {
            loss += curve.loss_barrier;
            error += curve.error_barrier;
        }
        const auto n = static_cast<double>(curves.size());
        return {{"loss", loss / n}, {"error", error / n}};
    }

    /// Barriers, and the values at the points from the first model to the second.
    static record::Json whole(const analysis::SplitCurve& curve) {
        record::Json errors = record::Json::array();
        for (const double accuracy : curve.accuracy) errors.push_back(1 - accuracy);
        return {{"loss", curve.loss_barrier},
                {"error", curve.error_barrier},
                {"curve", {{"loss", curve.loss}, {"error", std::move(errors)}}}};
    }

    /// One a measured pair, from the client of the smaller id to the other.
    Curves curves(const aggregator::FusionState& state, const RoundView& view) const {
        const auto samples = first_test_samples(view, samples_);
        Curves found;
        for (const auto& [a, b] : measured_pairs(view, pairs_)) {
            const auto first_end = fetch_update(a, state, view.context);
            const auto second_end = fetch_update(b, state, view.context);
            const auto curve =
                analysis::linear_curve(view.context.graph, first_end.parameters, second_end.parameters,
                                       {{"samples", &samples}}, {.points = points_, .finish = finish_},
                                       mends() ? view.context.holdout : nullptr, view.context.communicator);
            found.push_back(curve.splits.front().second);
        }
        return found;
    }

    std::int64_t pairs_, points_, samples_;
    std::string finish_;
    Curves before_, after_;
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
