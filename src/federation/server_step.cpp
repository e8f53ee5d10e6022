#include <span>

#include "thalweg/aggregator/matching.hpp"
#include "thalweg/federation/cohort.hpp"

namespace thalweg::federation {

ServerStep::ServerStep(const Experiment& experiment, const Setting& setting, core::Communicator& communicator)
    : experiment_(experiment),
      setting_(setting),
      communicator_(communicator),
      optimizer_(core::Registry<std::unique_ptr<aggregator::ServerOptimizer>>::make(
          experiment.config["server"]["optimizer"])) {}

void ServerStep::apply(std::int64_t round, const aggregator::Pipeline& pipeline,
                       aggregator::FusionState& state, model::Parameters& global) {
    // Optimizer and client state keep one frame through the rounds: the fused model goes back to that of the previous
    // global one, and the updates with it, so that measures compare what lies in one frame. (No function changes.)
    if (global.defined() && pipeline.changes_frame()) {
        const auto back = back_to_global(round, global, state.merged);
        core::collectively(communicator_, [&] {
            const symmetry::Flips flips(setting_.graph, setting_.symmetries);
            state.merged = flips.apply(state.merged, setting_.symmetries, back);
            for (auto& update : state.updates)
                update.parameters = flips.apply(update.parameters, setting_.symmetries, back);
        });
    }
    core::collectively(communicator_, [&] {
        if (communicator_.rank() == 0) global = optimizer_->step(global, state.merged);
    });
    broadcast_model(global, setting_.graph, communicator_);
    state.merged = global;
}

symmetry::Element ServerStep::back_to_global(std::int64_t round, const model::Parameters& global,
                                             const model::Parameters& fused) {
    std::vector<symmetry::Element> found;
    core::collectively(communicator_, [&] {
        if (communicator_.rank() != 0) return;
        core::Random random(experiment_.seed, "server_frame", round);
        const auto match =
            aggregator::weight_matching(setting_.graph, setting_.symmetries, global, fused, random);
        found.push_back({match.permutations, match.signs});
    });
    return aggregator::broadcast_elements(communicator_, setting_.symmetries, 1, found).front();
}

void broadcast_model(model::Parameters& parameters, const model::ModelGraph& graph,
                     core::Communicator& communicator) {
    core::collectively(communicator, [&] {
        if (!parameters.defined()) parameters = model::Parameters(graph.layout);
    });
    const auto bytes_of = [](const at::Tensor& tensor) {
        return std::span(static_cast<std::byte*>(tensor.data_ptr()), tensor.nbytes());
    };
    communicator.broadcast(bytes_of(parameters.values), 0);
    if (parameters.counters.defined() && parameters.counters.numel() > 0)
        communicator.broadcast(bytes_of(parameters.counters), 0);
}

}  // namespace thalweg::federation
