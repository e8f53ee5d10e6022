#include <algorithm>

#include "thalweg/analysis/evaluate.hpp"
#include "thalweg/federation/measure.hpp"

namespace thalweg::federation {

namespace {

using analysis::Evaluation;

record::Json as_json(const Evaluation& evaluation) {
    return {{"loss", evaluation.loss}, {"accuracy", evaluation.accuracy}};
}

/// What each step of the pipeline buys on the test set: every client alone, their plain mean, the mean after each
/// alignment, the model after the reduction and each finisher, and the ensemble of the clients' logits, an upper mark
/// that no single model is.
class Ladder final : public Measure {
  public:
    void begin(const aggregator::FusionState& state, const RoundView& view) override {
        clients_and_ensemble(state, view);
        if (view.pipeline.reduction() == 0) return;  // the reduction itself is the plain one
        aggregator::FusionState copy = state;
        reduce(copy, view);
        add("", copy.merged, view);
    }

    void after(std::size_t index, const aggregator::FusionState& state, const RoundView& view) override {
        const auto& items = view.pipeline.items();
        const std::size_t reduction = view.pipeline.reduction();
        done_ += (done_.empty() ? "" : "+") + items[index].name;
        if (index >= reduction) {
            add(done_, state.merged, view);
        } else if (index + 1 < reduction) {
            aggregator::FusionState copy = state;
            reduce(copy, view);
            add(done_ + "+" + items[reduction].name, copy.merged, view);
        }
    }

    record::Json finish(const aggregator::FusionState&, const RoundView&) override {
        return {{"clients", clients_}, {"steps", steps_}, {"ensemble", ensemble_}};
    }

  private:
    static void reduce(aggregator::FusionState& state, const RoundView& view) {
        view.pipeline.items()[view.pipeline.reduction()].stage->apply(state, view.context);
    }

    /// `name`: the part of the pipeline that was run; empty: the reduction alone.
    void add(const std::string& name, const model::Parameters& parameters, const RoundView& view) {
        auto json = as_json(
            analysis::evaluate(view.context.graph, parameters, *view.data.test(), view.context.communicator));
        json["name"] = name.empty() ? view.pipeline.items()[view.pipeline.reduction()].name : name;
        steps_.push_back(std::move(json));
    }

    /// One pass over the test set for each client, on its rank; logits are added up in client-id order.
    void clients_and_ensemble(const aggregator::FusionState& state, const RoundView& view) {
        auto& communicator = view.context.communicator;
        const auto& samples = *view.data.test();
        const auto& members = view.context.members;
        at::Tensor sum = at::zeros({samples.size(), view.context.graph.classes()}, at::kDouble);
        std::size_t next = 0;
        // A few clients a rank at a time: all ranks compute, and memory does not grow with the cohort.
        const std::size_t window = 4 * static_cast<std::size_t>(communicator.size());
        for (std::size_t first = 0; first < members.size(); first += window) {
            const std::size_t last = std::min(first + window, members.size());
            const auto own = core::collectively(communicator, [&] {
                std::vector<at::Tensor> logits(last - first);
                for (std::size_t k = first; k < last; ++k) {
                    if (members[k].owner != communicator.rank()) continue;
                    logits[k - first] =
                        analysis::logits(view.context.graph, state.updates[next++].parameters, samples);
                }
                return logits;
            });
            for (std::size_t k = first; k < last; ++k) {
                at::Tensor logits = own[k - first];
                if (!logits.defined())
                    logits = at::empty({samples.size(), view.context.graph.classes()}, at::kFloat);
                communicator.broadcast({static_cast<std::byte*>(logits.data_ptr()), logits.nbytes()},
                                       members[k].owner);
                sum += logits;
                auto json = as_json(analysis::score(view.context.graph, logits, samples));
                json["client"] = members[k].client;
                json["samples"] = members[k].samples;
                clients_.push_back(std::move(json));
            }
        }
        const auto mean = sum / static_cast<double>(members.size());
        ensemble_ = as_json(analysis::score(view.context.graph, mean.to(at::kFloat), samples));
    }

    std::string done_;
    record::Json clients_ = record::Json::array();
    record::Json steps_ = record::Json::array();
    record::Json ensemble_;
};

const MeasureRegistration registration{
    {.kind = "measure",
     .name = "ladder",
     .help =
         "test accuracy of every client, of the plain mean, after each stage, and of the ensemble of logits",
     .citation = "",
     .options = {}},
    [](const core::Value&) { return std::make_unique<Ladder>(); }};

}  // namespace

}  // namespace thalweg::federation
