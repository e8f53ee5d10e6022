#include "thalweg/aggregator/stage.hpp"

#include <torch/types.h>

#include <algorithm>
#include <stdexcept>

#include "thalweg/aggregator/exchange.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/interrupt.hpp"

namespace thalweg::aggregator {

StageNotes PerUpdateStage::apply(FusionState& state, const FusionContext& context) const {
    model::Parameters common;
    if (traits().needs_anchor) common = resolve_anchor(anchor(), state, context);
    core::collectively(context.communicator, [&] {
        for (Update& update : state.updates) {
            core::check_interrupt();
            try {
                treat(update, common, context);
            } catch (const core::RunError& error) {
                throw core::RunError("client " + std::to_string(update.client) +
                                     "'s model (or its anchor): " + error.what());
            }
        }
    });
    return {};
}

model::Parameters resolve_anchor(const std::string& which, const FusionState& state,
                                 const FusionContext& context) {
    if (which != "global" && which != "first" && which != "largest") {
        throw std::logic_error("no anchor is called " + which);
    }
    if (which == "global" && context.global != nullptr) return *context.global;
    core::collectively(context.communicator, [&] { check_updates(state.updates, context, true); });
    // Of those that have the round's own widths.
    const Member* chosen = nullptr;
    for (const Member& member : context.members) {
        if (member.graph != nullptr) continue;
        if (chosen == nullptr || (which == "largest" && member.samples > chosen->samples)) chosen = &member;
    }
    if (chosen == nullptr) {
        throw core::RunError(
            "no client of this round has the global model's own widths, so there is none to align the others "
            "to; give one "
            "of them the architecture of the section `model`");
    }
    model::Parameters mine;
    for (const Update& update : state.updates) {
        if (update.client == chosen->client) mine = update.parameters;
    }
    return broadcast_parameters(mine, chosen->owner, context);
}

std::vector<Update> gather_updates(const FusionState& state, const FusionContext& context) {
    auto& communicator = context.communicator;
    core::collectively(communicator, [&] { check_updates(state.updates, context, true); });
    const auto has_mask =
        gather_member_rows(communicator, context.members, 1,
                           [&, next = std::size_t{0}](std::size_t, std::span<double> row) mutable {
                               row[0] = state.updates[next++].mask.defined() ? 1 : 0;
                           });
    std::vector<Update> all;
    std::size_t next = 0;
    for (std::size_t k = 0; k < context.members.size(); ++k) {
        const Member& member = context.members[k];
        const bool is_mine = member.owner == communicator.rank();
        Update update;
        if (is_mine) update = state.updates[next++];
        update.client = member.client;
        update.samples = member.samples;
        update.graph = member.graph;
        update.parameters =
            broadcast_parameters(update.parameters, member.owner, context, layout_of(member, context));
        if (has_mask[k] != 0 && communicator.size() > 1) {
            if (!is_mine) {
                const auto layout = layout_of(member, context);
                update.mask = at::empty({layout->trainable_size()}, at::kBool);
            }
            communicator.broadcast({static_cast<std::byte*>(update.mask.data_ptr()),
                                    static_cast<std::size_t>(update.mask.numel())},
                                   member.owner);
        }
        all.push_back(std::move(update));
    }
    return all;
}

void refuse_non_finite(const std::vector<Update>& updates) {
    for (const Update& update : updates) {
        if (!update.start.defined()) continue;
        if (const auto fault = update.start.first_non_finite()) {
            throw core::RunError(
                "the model that client " + std::to_string(update.client) +
                "'s training started from holds values that are NaN or infinite, the first in " + *fault +
                "; give the one it was really trained from.");
        }
    }
    for (const Update& update : updates) {
        if (const auto fault = update.parameters.first_non_finite()) {
            throw core::RunError(
                "client " + std::to_string(update.client) +
                "'s model holds values that are NaN or infinite, the first in " + *fault +
                "; such a model cannot be fused with others. Its training has most likely "
                "diverged: lower the learning rate or clip gradients, or leave the client out.");
        }
    }
}

void refuse_non_finite(const model::Parameters& merged, const std::string& stage) {
    const auto fault = merged.first_non_finite();
    if (!fault) return;
    throw core::RunError("the fused model holds values that are NaN or infinite after " + stage +
                         ", the first in " + *fault +
                         "; the clients' models were finite. Leave the stage out, or change its options (of "
                         "fine_tune a lower learning rate).");
}

}  // namespace thalweg::aggregator
