#include <torch/types.h>

#include <algorithm>
#include <string>
#include <vector>

#include "thalweg/aggregator/stage.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/text.hpp"

namespace thalweg::aggregator {

namespace {

/// Averages the chosen layers only (FedPer's base layers, say; Arivazhagan et al. 2019). The others keep the values of the
/// previous global model, in a round that has none those of the first client. Departure: FedPer leaves the other layers
/// with each client, which trains its own on; here there is one model, and clients go on from its layers.
///
/// A layer is chosen by its module's name: `features.0` chooses all entries `features.0.…` (weights, biases and running
/// statistics), `features` all below it.
class LayerwiseMean final : public Stage {
  public:
    explicit LayerwiseMean(const core::Value& options)
        : options_(options), weighting_(weighting_of(options["weights"].as_text())) {
        for (const auto& item : options["layers"].items()) layers_.push_back(item.as_text());
    }

    StageTraits traits() const override {
        // A layer of the updates beside one of the global model: they must agree on which channel is which.
        return {.kind = StageKind::reduction, .uses_mask = true, .needs_global_frame = true};
    }

    StageNotes apply(FusionState& state, const FusionContext& context) const override {
        const auto w = core::collectively(context.communicator, [&] {
            require_known(context);
            return weights(context.members, weighting_);
        });
        const model::Parameters others = resolve_anchor("global", state, context);
        state.merged = mean(state.updates, context, w);
        state.weights = w;
        std::int64_t averaged = 0;
        const auto& entries = context.graph.layout->entries();
        for (std::size_t i = 0; i < entries.size(); ++i) {
            if (is_chosen(entries[i].name)) {
                averaged += entries[i].size;
            } else {
                state.merged.view(i).copy_(others.view(i));
            }
        }
        const auto& counters = context.graph.layout->counters();
        for (std::size_t i = 0; i < counters.size(); ++i) {
            if (is_chosen(counters[i])) continue;
            const auto at = static_cast<std::int64_t>(i);
            state.merged.counters[at] = others.counters[at];
        }
        return {{"averaged_elements", static_cast<double>(averaged)}};
    }

  private:
    static bool is_below(const std::string& name, const std::string& module) {
        return name == module || name.starts_with(module + ".");
    }

    bool is_chosen(const std::string& name) const {
        return std::any_of(layers_.begin(), layers_.end(),
                           [&](const std::string& layer) { return is_below(name, layer); });
    }

    /// Every layer named must stand for something.
    void require_known(const FusionContext& context) const {
        std::vector<std::string> modules;
        for (const auto& entry : context.graph.layout->entries()) {
            const std::string module = entry.name.substr(0, entry.name.rfind('.'));
            if (modules.empty() || modules.back() != module) modules.push_back(module);
        }
        for (const auto& layer : layers_) {
            const bool known = std::any_of(modules.begin(), modules.end(), [&](const std::string& module) {
                return is_below(module, layer);
            });
            if (!known) options_["layers"].reject(core::unknown_name("layer", layer, modules));
        }
    }

    core::Value options_;
    std::vector<std::string> layers_;
    Weighting weighting_;
};

const StageRegistration layerwise_mean_registration{
    {.kind = "stage",
     .name = "layerwise_mean",
     .help = "weighted mean of the chosen layers; the others keep the previous global model's values",
     .citation = "Arivazhagan et al., Federated Learning with Personalization Layers, 2019",
     .options = {core::texts("layers", "names of modules; each chooses all below it").at_least_items(1),
                 core::choice("weights", {"samples", "uniform"},
                              "what a client counts: its samples, or all alike")
                     .by_default("samples")},
     .cost = "O(K · d ÷ ranks) after one exchange"},
    [](const core::Value& options) { return std::make_unique<LayerwiseMean>(options); }};

}  // namespace

}  // namespace thalweg::aggregator
