#include <algorithm>

#include "../ensemble.hpp"
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
    bool takes_any_width() const override { return true; }

    void begin(const aggregator::FusionState& state, const RoundView& view) override {
        clients_and_ensemble(state, view);
        if (view.pipeline.reduction() == 0) return;  // the reduction itself is the plain one
        if (has_widths(view)) return;                // there is no plain one
        aggregator::FusionState copy = state;
        reduce(copy, view);
        add("", copy, view);
    }

    void after(std::size_t index, const aggregator::FusionState& state, const RoundView& view) override {
        const auto& items = view.pipeline.items();
        const std::size_t reduction = view.pipeline.reduction();
        done_ += (done_.empty() ? "" : "+") + items[index].name;
        one_width_ = one_width_ || items[index].traits.takes_any_width || !has_widths(view);
        if (index >= reduction) {
            add(done_, state, view);
        } else if (index + 1 < reduction && one_width_ && !state.architecture) {
            aggregator::FusionState copy = state;
            reduce(copy, view);
            add(done_ + "+" + items[reduction].name, copy, view);
        }
    }

    record::Json finish(const aggregator::FusionState&, const RoundView&) override {
        return {{"clients", clients_}, {"steps", steps_}, {"ensemble", ensemble_}};
    }

    bool brief() const override { return true; }

  private:
    static bool has_widths(const RoundView& view) {
        const auto& members = view.context.members;
        return std::any_of(members.begin(), members.end(),
                           [](const auto& member) { return member.graph != nullptr; });
    }
    /// Of updates of one width, whatever the clients sent.
    static void reduce(aggregator::FusionState& state, const RoundView& view) {
        aggregator::FusionContext context = view.context;
        for (auto& member : context.members) member.graph = nullptr;
        view.pipeline.items()[view.pipeline.reduction()].stage->apply(state, context);
    }

    /// `name`: the part of the pipeline that was run; empty: the reduction alone.
    void add(const std::string& name, const aggregator::FusionState& state, const RoundView& view) {
        const auto& graph = state.architecture ? state.architecture->graph : view.context.graph;
        auto json =
            as_json(analysis::evaluate(graph, state.merged, *view.data.test(), view.context.communicator));
        json["name"] = name.empty() ? view.pipeline.items()[view.pipeline.reduction()].name : name;
        steps_.push_back(std::move(json));
    }

    void clients_and_ensemble(const aggregator::FusionState& state, const RoundView& view) {
        const auto score = score_ensemble(state, view.context, *view.data.test());
        for (std::size_t k = 0; k < score.clients.size(); ++k) {
            auto json = as_json(score.clients[k]);
            json["client"] = view.context.members[k].client;
            json["samples"] = view.context.members[k].samples;
            clients_.push_back(std::move(json));
        }
        ensemble_ = as_json(score.ensemble);
    }

    std::string done_;
    bool one_width_ = false;  ///< a stage has brought all updates to one width, or they were
    record::Json clients_ = record::Json::array();
    record::Json steps_ = record::Json::array();
    record::Json ensemble_;
};

const MeasureRegistration ladder_registration{
    {.kind = "measure",
     .name = "ladder",
     .help =
         "test accuracy of every client, of the plain mean, after each stage, and of the ensemble of logits",
     .citation = "",
     .options = {}},
    [](const core::Value&) { return std::make_unique<Ladder>(); }};

}  // namespace

}  // namespace thalweg::federation
