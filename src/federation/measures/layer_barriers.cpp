#include "samples.hpp"
#include "thalweg/analysis/paths.hpp"
#include "thalweg/federation/measure.hpp"

namespace thalweg::federation {

namespace {

using Barriers = std::vector<analysis::LayerBarrier>;

/// Barriers of one layer at a time between sampled client pairs as sent and as aligned, on the first test samples.
class LayerBarriersMeasure final : public Measure {
  public:
    explicit LayerBarriersMeasure(const core::Value& options)
        : pairs_(options["pairs"].as_int()),
          points_(options["points"].as_int()),
          samples_(options["samples"].as_int()),
          reset_batch_norm_(options["reset_batch_norm"].as_bool()) {}

    bool mends() const override { return reset_batch_norm_; }

    void begin(const aggregator::FusionState& state, const RoundView& view) override {
        before_ = of_pairs(state, view);
    }

    void after(std::size_t index, const aggregator::FusionState& state, const RoundView& view) override {
        if (index + 1 == view.pipeline.reduction()) after_ = of_pairs(state, view);
    }

    record::Json finish(const aggregator::FusionState&, const RoundView& view) override {
        const auto pairs = measured_pairs(view, pairs_);
        if (pairs.empty()) return nullptr;
        if (view.pipeline.reduction() == 0) after_ = before_;
        record::Json json{{"pairs", static_cast<std::int64_t>(pairs.size())},
                          {"before", by_layer(mean(before_))},
                          {"after", by_layer(mean(after_))},
                          {"by_pair", record::Json::object()}};
        for (std::size_t i = 0; i < pairs.size(); ++i)
            json["by_pair"][pair_name(view, pairs[i])] = {{"before", by_layer(before_[i])},
                                                          {"after", by_layer(after_[i])}};
        return json;
    }

  private:
    static record::Json by_layer(const Barriers& barriers) {
        record::Json json = record::Json::object();
        for (const auto& barrier : barriers) {
            json[barrier.layer] = {
                {"loss", barrier.loss_barrier},
                {"error", barrier.error_barrier},
                {"midpoint", {{"loss", barrier.loss_at_middle}, {"error", barrier.error_at_middle}}}};
        }
        return json;
    }

    static Barriers mean(const std::vector<Barriers>& pairs) {
        const double share = 1 / static_cast<double>(pairs.size());
        Barriers sum(pairs.front().size());
        for (const auto& barriers : pairs) {
            for (std::size_t layer = 0; layer < barriers.size(); ++layer) {
                sum[layer].layer = barriers[layer].layer;
                sum[layer].loss_barrier += share * barriers[layer].loss_barrier;
                sum[layer].error_barrier += share * barriers[layer].error_barrier;
                sum[layer].loss_at_middle += share * barriers[layer].loss_at_middle;
                sum[layer].error_at_middle += share * barriers[layer].error_at_middle;
            }
        }
        return sum;
    }

    std::vector<Barriers> of_pairs(const aggregator::FusionState& state, const RoundView& view) const {
        const auto samples = first_test_samples(view, samples_);
        std::vector<Barriers> found;
        for (const auto& [a, b] : measured_pairs(view, pairs_)) {
            const auto first_end = fetch_update(a, state, view.context);
            const auto second_end = fetch_update(b, state, view.context);
            found.push_back(analysis::layer_barriers(
                view.context.graph, first_end.parameters, second_end.parameters, samples, points_,
                view.context.communicator, mends() ? view.context.holdout : nullptr));
        }
        return found;
    }

    std::int64_t pairs_, points_, samples_;
    bool reset_batch_norm_;
    std::vector<Barriers> before_, after_;
};

const MeasureRegistration layer_barriers_registration{
    {.kind = "measure",
     .name = "layer_barriers",
     .help = "mean loss and error barrier of each layer alone between sampled client pairs, before and after "
             "alignment",
     .citation = "Adilova et al., Layer-wise Linear Mode Connectivity, ICLR 2024 (arXiv 2307.06966)",
     .options = {core::integer("pairs", "client pairs drawn each round").at_least(1).by_default(3),
                 core::integer("points", "points on each line").at_least(3).by_default(5),
                 core::integer("samples", "test samples used, the first ones").at_least(1).by_default(2000),
                 core::boolean(
                     "reset_batch_norm",
                     "take batch norms' statistics anew at every point but the ends, on the hold-out")
                     .by_default(false)}},
    [](const core::Value& options) { return std::make_unique<LayerBarriersMeasure>(options); }};

}  // namespace

}  // namespace thalweg::federation
