#include <torch/types.h>

#include <algorithm>
#include <array>
#include <stdexcept>

#include "thalweg/aggregator/exchange.hpp"
#include "thalweg/aggregator/stage.hpp"
#include "thalweg/core/error.hpp"

namespace thalweg::aggregator {

namespace {

enum class SignMode { elect, attenuate, measure };
enum class Vote { majority, sum, global };

int sign(double value) {
    return (value > 0) - (value < 0);
}

/// Does an entry take part in the vote and in the count? Zeros have no sign; masked entries were left out before.
bool takes_part(double value, const std::uint8_t* mask, std::size_t i) {
    return value != 0 && (mask == nullptr || mask[i] != 0);
}

/// Elects a sign for every trainable coordinate and deals with the entries that have the other one. Ours; electing by
/// weighted sum follows TIES (Yadav et al., NeurIPS 2023), which like this averages the agreeing entries only.
///
/// A coordinate without a winner (a tie, or all entries zero) keeps all its entries. Entries that are exactly zero
/// neither agree nor disagree. Entries that an earlier mask leaves out do not vote and are not counted.
///
/// `vote: global` goes by the signs of the previous global model (the updates should lie in its frame); in a round
/// that has no such model it elects by majority, and the notes say so (`elected_by_majority` = 1).
class SignAlignment final : public Stage {
  public:
    explicit SignAlignment(const core::Value& options)
        : mode_(mode_of(options["mode"].as_text())),
          vote_(vote_of(options["vote"].as_text())),
          rho_(options["rho"].as_number()),
          weighting_(weighting_of(options["weights"].as_text())) {}

    StageTraits traits() const override {
        return {.kind = StageKind::cross_update,
                .keeps_function = mode_ != SignMode::attenuate,
                .sets_mask = mode_ == SignMode::elect,
                .uses_mask = true,
                .needs_global_frame = vote_ == Vote::global,
                .sets_own = mode_ == SignMode::attenuate};
    }

    StageNotes apply(FusionState& state, const FusionContext& context) const override;

  private:
    using Block = std::array<double, block_length>;
    struct Count {
        std::int64_t disagreeing = 0, counted = 0;
    };

    static SignMode mode_of(const std::string& name) {
        return name == "elect"       ? SignMode::elect
               : name == "attenuate" ? SignMode::attenuate
                                     : SignMode::measure;
    }
    static Vote vote_of(const std::string& name) {
        return name == "majority" ? Vote::majority : name == "sum" ? Vote::sum : Vote::global;
    }

    Vote vote_in(const FusionContext& context) const {
        return vote_ == Vote::global && context.global == nullptr ? Vote::majority : vote_;
    }
    /// What each member's voice weighs. Whole numbers, so that votes add up without rounding and a tie is seen as one.
    std::vector<double> voices(const FusionContext& context) const {
        std::vector<double> result;
        for (const Member& member : context.members) {
            result.push_back(weighting_ == Weighting::uniform ? 1.0 : static_cast<double>(member.samples));
        }
        return result;
    }
    void elect(const FusionContext& context, const UpdateSlices& slices, std::int64_t first, std::size_t n,
               Block& tally) const;
    Count mark(const FusionContext& context, const UpdateSlices& slices, std::vector<core::Bytes>& out) const;
    void treat(FusionState& state, const FusionContext& context,
               const std::vector<core::Bytes>& received) const;

    SignMode mode_;
    Vote vote_;
    double rho_;
    Weighting weighting_;
};

/// The sign of tally[i] is the elected one of coordinate first + i.
void SignAlignment::elect(const FusionContext& context, const UpdateSlices& slices, std::int64_t first,
                          std::size_t n, Block& tally) const {
    const Vote vote = vote_in(context);
    if (vote == Vote::global) {
        load(context.global->values, first, std::span(tally).first(n));
        return;
    }
    const auto voice = voices(context);
    Block value;
    tally.fill(0);
    for (std::size_t k = 0; k < slices.count(); ++k) {
        slices.load(k, first, std::span(value).first(n));
        const std::uint8_t* mask = slices.mask(k, first);
        for (std::size_t i = 0; i < n; ++i) {
            if (!takes_part(value[i], mask, i)) continue;
            tally[i] += voice[k] * (vote == Vote::majority ? sign(value[i]) : value[i]);
        }
    }
}

/// Fills, for every member, one byte a coordinate of this rank's slice (1: it disagrees), in the message to its owner.
SignAlignment::Count SignAlignment::mark(const FusionContext& context, const UpdateSlices& slices,
                                         std::vector<core::Bytes>& out) const {
    const auto length = static_cast<std::size_t>(slices.end() - slices.begin());
    std::vector<std::byte*> flags;  // of each member, within its owner's message
    if (mode_ != SignMode::measure) {
        for (const Member& member : context.members) {
            auto& message = out[static_cast<std::size_t>(member.owner)];
            message.resize(message.size() + length);
        }
        std::vector<std::size_t> position(out.size(), 0);
        for (const Member& member : context.members) {
            const auto owner = static_cast<std::size_t>(member.owner);
            flags.push_back(out[owner].data() + position[owner]);
            position[owner] += length;
        }
    }
    Count count;
    Block tally, value;
    for_each_block(slices.begin(), slices.end(), slices.end(), [&](std::int64_t first, std::int64_t size) {
        const auto n = static_cast<std::size_t>(size);
        elect(context, slices, first, n, tally);
        for (std::size_t k = 0; k < slices.count(); ++k) {
            slices.load(k, first, std::span(value).first(n));
            const std::uint8_t* mask = slices.mask(k, first);
            for (std::size_t i = 0; i < n; ++i) {
                if (!takes_part(value[i], mask, i)) continue;
                const bool disagrees = sign(value[i]) * sign(tally[i]) < 0;
                count.counted += 1;
                count.disagreeing += disagrees ? 1 : 0;
                if (disagrees && !flags.empty())
                    flags[k][first - slices.begin() + static_cast<std::int64_t>(i)] = std::byte{1};
            }
        }
    });
    return count;
}

/// Masks or shrinks this rank's disagreeing entries; received[r] holds the flags of rank r's slice, update by update.
void SignAlignment::treat(FusionState& state, const FusionContext& context,
                          const std::vector<core::Bytes>& received) const {
    const std::int64_t trainable = context.graph.layout->trainable_size();
    for (std::size_t u = 0; u < state.updates.size(); ++u) {
        const at::Tensor disagrees = at::empty({trainable}, at::kBool);
        auto* out = static_cast<std::byte*>(disagrees.data_ptr());
        for (int r = 0; r < context.communicator.size(); ++r) {
            const auto [begin, end] = slice_of(trainable, r, context.communicator.size());
            const auto* from =
                received[static_cast<std::size_t>(r)].data() + static_cast<std::int64_t>(u) * (end - begin);
            out = std::copy(from, from + (end - begin), out);
        }
        Update& update = state.updates[u];
        if (mode_ == SignMode::elect) {
            const at::Tensor agrees = disagrees.logical_not();
            update.mask = update.mask.defined() ? agrees.logical_and(update.mask) : agrees;
        } else {
            if (!update.own.defined()) update.own = update.parameters;
            update.parameters = update.parameters.clone();
            const at::Tensor values = update.parameters.trainable();
            values.copy_(at::where(disagrees, values * rho_, values));
        }
    }
}

StageNotes SignAlignment::apply(FusionState& state, const FusionContext& context) const {
    auto& communicator = context.communicator;
    const UpdateSlices slices(state.updates, context, context.graph.layout->trainable_size());
    std::vector<core::Bytes> out(static_cast<std::size_t>(communicator.size()));
    const Count mine = core::collectively(communicator, [&] { return mark(context, slices, out); });
    if (mode_ != SignMode::measure) {
        const auto received = communicator.exchange(out);
        core::collectively(communicator, [&] { treat(state, context, received); });
    }
    double disagreeing = 0, counted = 0;  // whole numbers: exact in any order
    for (const auto& bytes : communicator.all_gather(core::as_bytes(std::vector{mine}))) {
        const Count count = core::from_bytes<Count>(bytes).front();
        disagreeing += static_cast<double>(count.disagreeing);
        counted += static_cast<double>(count.counted);
    }
    StageNotes notes{{"disagreeing", counted > 0 ? disagreeing / counted : 0.0}};
    if (vote_ == Vote::global)
        notes.emplace_back("elected_by_majority", context.global == nullptr ? 1.0 : 0.0);
    return notes;
}

const StageRegistration sign_alignment_registration{
    {.kind = "stage",
     .name = "sign_alignment",
     .help = "elects a sign for every coordinate; entries of the other sign are left out, shrunk or counted",
     .citation = "ours; vote: sum as in Yadav et al., TIES-Merging, NeurIPS 2023",
     .options = {core::choice(
                     "mode", {"elect", "attenuate", "measure"},
                     "disagreeing entries are masked out of the mean, multiplied by rho, or only counted")
                     .by_default("elect"),
                 core::choice(
                     "vote", {"majority", "sum", "global"},
                     "sign of the weighted majority, of the weighted sum, or of the previous global model "
                     "(majority in a round that has none)")
                     .by_default("majority"),
                 core::number("rho", "factor of disagreeing entries in mode attenuate")
                     .at_least(0)
                     .at_most(1)
                     .by_default(0.5),
                 core::choice("weights", {"samples", "uniform"},
                              "what a client's vote counts: its samples, or all alike")
                     .by_default("samples")},
     .cost = "O(K · d ÷ ranks) after one exchange"},
    [](const core::Value& options) { return std::make_unique<SignAlignment>(options); }};

}  // namespace

}  // namespace thalweg::aggregator
