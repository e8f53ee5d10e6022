#include "thalweg/analysis/cka.hpp"

#include "samples.hpp"

namespace thalweg::federation {

namespace {

/// Linear CKA of each layer between sampled clients, as their models go into the reduction.
class CkaMeasure final : public Measure {
  public:
    explicit CkaMeasure(const core::Value& options)
        : pairs_(options["pairs"].as_int()),
          samples_(options["samples"].as_int()),
          spatial_(analysis::spatial_of(options["spatial"].as_text())) {}

    void begin(const aggregator::FusionState& state, const RoundView& view) override {
        if (view.pipeline.reduction() == 0) measure(state, view);
    }

    void after(std::size_t index, const aggregator::FusionState& state, const RoundView& view) override {
        if (index + 1 == view.pipeline.reduction()) measure(state, view);
    }

    record::Json finish(const aggregator::FusionState&, const RoundView&) override { return found_; }

  private:
    void measure(const aggregator::FusionState& state, const RoundView& view) {
        const auto pairs = measured_pairs(view, pairs_);
        if (pairs.empty()) return;
        const auto samples = first_test_samples(view, samples_);
        const auto& graph = view.context.graph;
        std::vector<std::string> layers;
        std::vector<double> sum;
        record::Json by_pair = record::Json::object();
        for (const auto& pair : pairs) {
            const auto first = fetch_update(pair.first, state, view.context);
            const auto second = fetch_update(pair.second, state, view.context);
            const auto cka = analysis::cka(graph, first.parameters, graph, second.parameters, samples,
                                           spatial_, view.context.communicator);
            layers = cka.layers_a;
            sum.resize(layers.size());
            auto& of_pair = by_pair[pair_name(view, pair)] = record::Json::object();
            for (std::size_t i = 0; i < sum.size(); ++i) {
                sum[i] += cka.diagonal[i];
                of_pair[layers[i]] = cka.diagonal[i];
            }
        }
        found_ = {{"pairs", static_cast<std::int64_t>(pairs.size())}, {"layers", record::Json::object()}};
        for (std::size_t i = 0; i < layers.size(); ++i)
            found_["layers"][layers[i]] = sum[i] / static_cast<double>(pairs.size());
        found_["by_pair"] = std::move(by_pair);
    }

    std::int64_t pairs_, samples_;
    analysis::Spatial spatial_;
    record::Json found_;
};

const MeasureRegistration cka_registration{
    {.kind = "measure",
     .name = "cka",
     .help = "linear CKA by layer, mean over sampled client pairs, as their models go into the reduction",
     .citation = "Kornblith et al., ICML 2019 (arXiv 1905.00414)",
     .options = {core::integer("pairs", "client pairs drawn each round").at_least(1).by_default(3),
                 core::integer("samples", "test samples used, the first ones").at_least(2).by_default(256),
                 core::choice("spatial", {"flatten", "channels"},
                              "features of images: every channel at every position, or channels' means")
                     .by_default("flatten")}},
    [](const core::Value& options) { return std::make_unique<CkaMeasure>(options); }};

}  // namespace

}  // namespace thalweg::federation
