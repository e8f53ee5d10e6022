#include <torch/types.h>

#include <algorithm>
#include <chrono>
#include <stdexcept>
#include <utility>
#include <variant>

#include "thalweg/aggregator/exchange.hpp"
#include "thalweg/aggregator/stage.hpp"
#include "thalweg/core/error.hpp"

namespace thalweg::aggregator {

namespace {

bool is_alignment(const Pipeline::Item& item) {
    return item.traits.kind == StageKind::per_update || item.traits.kind == StageKind::cross_update;
}

}  // namespace

Pipeline::Pipeline(const core::Value& stages) : options_(stages) {
    if (!stages.is_list()) stages.reject("must be a list of stages, such as [merge_many, mean, repair]");
    for (const core::Value& options : options_.items()) {
        Item item;
        item.name = options["kind"].as_text();
        item.options = options;
        item.stage = core::Registry<std::unique_ptr<Stage>>::make(options);
        item.traits = item.stage->traits();
        items_.push_back(std::move(item));
    }
    check_order();
    reduction_ = static_cast<std::size_t>(
        std::find_if(items_.begin(), items_.end(),
                     [](const Item& item) { return item.traits.kind == StageKind::reduction; }) -
        items_.begin());
}

void Pipeline::check_order() const {
    const Item* reduction = nullptr;
    const Item* moved = nullptr;    // the last stage that may have left the previous global model's frame
    const Item* changed = nullptr;  // the last alignment that changed what the models compute
    const Item* masking = nullptr;  // the last stage that set a mask nobody has used yet
    const Item* bent =
        nullptr;  // the last stage after which the merged model is no plain mean of the clients'
    for (const Item& item : items_) {
        const bool is_reduction = item.traits.kind == StageKind::reduction;
        if (reduction != nullptr && is_reduction) {
            item.options.reject(item.name + " is a second reduction: " + reduction->name +
                                " has made one model already. Keep one of the two.");
        }
        if (reduction != nullptr && is_alignment(item)) {
            item.options.reject(item.name + " works on the clients' models and comes after the reduction " +
                                reduction->name + ", which has made one model of them. Put it before " +
                                reduction->name + ".");
        }
        if (reduction == nullptr && item.traits.kind == StageKind::finisher) {
            item.options.reject(
                item.name +
                " is a finisher: it mends the merged model and comes before any reduction has "
                "made one. Put it after the reduction.");
        }
        if (masking != nullptr && reduction == nullptr && !item.traits.uses_mask) {
            item.options.reject(item.name + " cannot use the mask that " + masking->name +
                                " sets before it. Put " + masking->name +
                                (is_reduction
                                     ? " in a mode that sets no mask, or choose a reduction that uses "
                                       "masks, such as mean."
                                     : " after " + item.name + "."));
        }
        if (moved != nullptr && item.traits.needs_global_frame) {
            item.options.reject(item.name +
                                " goes by the previous global model coordinate by coordinate, and " +
                                moved->name + " before it may have moved the updates to another frame. Put " +
                                "weight_matching with anchor: global in its place, or choose options of " +
                                item.name + " that do not look at the global model.");
        }
        if (bent != nullptr && item.traits.needs_linear) {
            item.options.reject(
                item.name +
                " with these options presumes that the merged model is the weighted mean of the "
                "clients', and after " +
                bent->name +
                " it is not. Use a method that measures the merged model (method: sequential), or " +
                (bent == reduction ? "mean instead of " + bent->name + "."
                                   : "leave " + bent->name + " out."));
        }
        // What works entry by entry (and so can use masks) may follow a stage that changes the function; what moves
        // channels may not.
        if (changed != nullptr && reduction == nullptr && is_alignment(item) && !item.traits.uses_mask) {
            item.options.reject(item.name + " aligns the clients' models and comes after " + changed->name +
                                ", which changes what they compute. Put it before " + changed->name + ".");
        }
        if (is_alignment(item) && item.traits.changes_frame) moved = &item;
        const bool changes =
            !item.traits.keeps_function && !item.traits.keeps_decision && !item.traits.plays_clients;
        if (is_alignment(item) && changes) changed = &item;
        if (is_reduction) reduction = &item;
        if (item.traits.sets_mask) masking = &item;
        const bool bends =
            is_alignment(item) ? item.traits.sets_mask || item.traits.sets_own : !item.traits.linear;
        if (bends) bent = &item;
    }
    if (reduction == nullptr) {
        options_.reject(
            "has no reduction, the stage that makes one model of the clients'. Give alignments (or none), "
            "one "
            "reduction, finishers (or none): weight_matching, mean, repair.");
    }
}

bool Pipeline::needs_holdout() const {
    return std::any_of(items_.begin(), items_.end(), [](const Item& i) { return i.traits.needs_holdout; });
}

bool Pipeline::needs_clients() const {
    return std::any_of(items_.begin(), items_.end(), [](const Item& i) { return i.traits.needs_clients; });
}

bool Pipeline::permutes() const {
    return std::any_of(items_.begin(), items_.end(), [](const Item& i) { return i.traits.permutes; });
}

bool Pipeline::changes_frame() const {
    return std::any_of(items_.begin(), items_.end(), [](const Item& i) { return i.traits.changes_frame; });
}

bool Pipeline::needs_start() const {
    return std::any_of(items_.begin(), items_.end(), [](const Item& i) { return i.traits.needs_start; });
}

bool Pipeline::folds_norms() const {
    return std::any_of(items_.begin(), items_.end(), [](const Item& i) { return i.traits.folds_norms; });
}

void Pipeline::require_sources(bool holdout, bool clients) const {
    for (const Item& item : items_) {
        if (item.traits.needs_holdout && !holdout) {
            item.options.reject(item.name +
                                " looks at samples of the server's, and the server has none. Hold some out "
                                "(data.holdout: 1000), or name the data on the command line (--data).");
        }
        if (item.traits.needs_clients && !clients) {
            item.options.reject(
                item.name +
                " asks the clients for statistics, and there are no clients to ask here. Use the "
                "server's samples (statistics: server).");
        }
    }
}

namespace {

/// Every rank knows what it sent itself; the record wants the sum.
void add_bytes_of_all_ranks(std::vector<StageReport>& reports, core::Communicator& communicator) {
    std::vector<std::uint64_t> mine;
    for (auto& report : reports) mine.push_back(std::exchange(report.bytes, 0));
    for (const auto& bytes : communicator.all_gather(core::as_bytes(mine))) {
        const auto sent = core::from_bytes<std::uint64_t>(bytes);
        for (std::size_t i = 0; i < reports.size(); ++i) reports[i].bytes += sent[i];
    }
}

/// The context as later stages see it: all updates of one width, and where the architecture has changed, statistics of that,
/// and no previous global model.
struct Adapted {
    Adapted(const FusionContext& before, const FusionState& state)
        : architecture(state.architecture),
          context{.graph = architecture ? architecture->graph : before.graph,
                  .symmetries = architecture ? architecture->symmetries : before.symmetries,
                  .communicator = before.communicator,
                  .seed = before.seed,
                  .round = before.round,
                  .members = before.members,
                  .global = architecture ? nullptr : before.global,
                  .server = before.server,
                  .clients = before.clients,
                  .holdout = before.holdout} {
        for (Member& member : context.members) member.graph = nullptr;
        if (!architecture) return;
        if (before.server != nullptr) server = before.server->for_graph(architecture->graph);
        if (before.clients != nullptr) clients = before.clients->for_graph(architecture->graph);
        context.server = server.get();
        context.clients = clients.get();
    }
    std::shared_ptr<const Architecture> architecture;
    std::unique_ptr<StatisticsSource> server, clients;
    FusionContext context;
};

}  // namespace

void Pipeline::require_base(const FusionState& state, const FusionContext& context) const {
    for (const Item& item : items_) {
        const auto& updates = state.updates;
        const bool has_starts = std::all_of(updates.begin(), updates.end(),
                                            [](const Update& update) { return update.start.defined(); });
        if (item.traits.needs_start && !has_starts)
            item.options.reject(
                item.name +
                " looks at the models that the clients' trainings started from, and here only the trained "
                "ones are known (offline: thalweg align has --apply-to)");
        if (item.traits.needs_base && context.global == nullptr)
            item.options.reject(
                item.name +
                " goes by what training changed in the previous global model, and there is none here: give "
                "one (offline: --base), or clients.init: shared");
    }
}

/// Folded batch norms do nothing as long as their running statistics stay; with others they would normalise once more.
void Pipeline::require_unfolded(const FusionContext& context) const {
    const auto& operations = context.graph.operations;
    const bool any = std::any_of(operations.begin(), operations.end(), [](const model::Operation& operation) {
        return std::holds_alternative<model::BatchNorm>(operation.kind);
    });
    const Item* folding = nullptr;
    for (const Item& item : items_) {
        if (any && folding != nullptr && item.traits.recomputes_norms) {
            item.options.reject(
                item.name + " takes the statistics of batch norms anew, and " + folding->name +
                " before it has folded them into the layers they follow, so that the model would "
                "compute something else. Leave one of the two out, or use a model without batch "
                "norms.");
        }
        if (item.traits.folds_norms) folding = &item;
    }
}

/// Updates of several widths need a stage that brings them together before any other looks at them.
void Pipeline::require_one_width(const FusionContext& context) const {
    const bool all = std::all_of(context.members.begin(), context.members.end(),
                                 [](const Member& member) { return member.graph == nullptr; });
    if (all) return;
    for (const Item& item : items_) {
        if (item.traits.takes_any_width) return;
        if (item.traits.plays_clients) continue;
        throw core::UsageError(
            "the models have different widths, and " + item.name +
            " works on models of one architecture; put optimal_transport or matched_averaging before "
            "it");
    }
}

std::vector<StageReport> Pipeline::run(FusionState& state, const FusionContext& context,
                                       const Observer& observer) const {
    require_sources(context.server != nullptr || context.holdout != nullptr, context.clients != nullptr);
    core::collectively(context.communicator, [&] {
        if (context.members.empty()) throw std::logic_error("a fusion of no models");
        check_updates(state.updates, context, true);
        refuse_non_finite(state.updates);
        require_one_width(context);
        require_base(state, context);
        require_unfolded(context);
    });
    std::vector<StageReport> reports;
    std::unique_ptr<Adapted> adapted;  // once updates or architecture are no longer as the context says
    for (std::size_t i = 0; i < items_.size(); ++i) {
        const auto start = std::chrono::steady_clock::now();
        const auto sent = context.communicator.bytes_sent();
        StageReport report;
        report.name = items_[i].name;
        const FusionContext& here = adapted ? adapted->context : context;
        report.notes = items_[i].stage->apply(state, here);
        if (state.merged.defined()) refuse_non_finite(state.merged, items_[i].name);
        if (items_[i].traits.takes_any_width) adapted = std::make_unique<Adapted>(context, state);
        report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        report.bytes = context.communicator.bytes_sent() - sent;
        reports.push_back(std::move(report));
        if (observer) observer(i, state);
    }
    add_bytes_of_all_ranks(reports, context.communicator);
    return reports;
}

}  // namespace thalweg::aggregator
