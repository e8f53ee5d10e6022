#include "ensemble.hpp"

#include <torch/types.h>

#include <algorithm>

namespace thalweg::federation {

EnsembleScore score_ensemble(const aggregator::FusionState& state, const aggregator::FusionContext& context,
                             const data::SampleSet& samples) {
    auto& communicator = context.communicator;
    const auto& members = context.members;
    const std::int64_t classes = context.graph.classes();
    EnsembleScore score;
    at::Tensor sum = at::zeros({samples.size(), classes}, at::kDouble);
    std::size_t next = 0;
    // A few clients a rank at a time: all ranks compute, and memory does not grow with the cohort.
    const std::size_t window = 4 * static_cast<std::size_t>(communicator.size());
    for (std::size_t first = 0; first < members.size(); first += window) {
        const std::size_t last = std::min(first + window, members.size());
        const auto own = core::collectively(communicator, [&] {
            std::vector<at::Tensor> logits(last - first);
            for (std::size_t k = first; k < last; ++k) {
                if (members[k].owner != communicator.rank()) continue;
                const auto& update = state.updates[next++];
                logits[k - first] = analysis::logits(update.graph ? *update.graph : context.graph,
                                                     update.parameters, samples);
            }
            return logits;
        });
        for (std::size_t k = first; k < last; ++k) {
            at::Tensor logits = own[k - first];
            if (!logits.defined()) logits = at::empty({samples.size(), classes}, at::kFloat);
            communicator.broadcast({static_cast<std::byte*>(logits.data_ptr()), logits.nbytes()},
                                   members[k].owner);
            sum += logits;
            score.clients.push_back(analysis::score(context.graph, logits, samples));
        }
    }
    const auto mean = sum / static_cast<double>(members.size());
    score.ensemble = analysis::score(context.graph, mean.to(at::kFloat), samples);
    return score;
}

}  // namespace thalweg::federation
