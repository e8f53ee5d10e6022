#include "kept_gains.hpp"

#include <torch/types.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <numeric>
#include <utility>

#include "thalweg/core/interrupt.hpp"

namespace thalweg::aggregator {

using symmetry::AxisUse;
using symmetry::Permutation;
using symmetry::Permutations;

at::Tensor unfold(const at::Tensor& entry, const AxisUse& use, std::int64_t size) {
    const auto channelwise = [&](const at::Tensor& axis_first) {
        return axis_first.reshape({size, use.each * (axis_first.numel() / axis_first.size(0))});
    };
    if (use.slabs > 0) {  // [slab, row in it, …, place, …] → [slab, place, …]
        const std::int64_t inside = size / static_cast<std::int64_t>(use.slab_of.size());
        const at::Tensor slabs =
            entry.unflatten(0, {use.slabs, entry.size(0) / use.slabs}).movedim(use.axis + 1, 1);
        std::vector<at::Tensor> blocks;
        for (std::size_t block = 0; block < use.slab_of.size(); ++block) {
            const auto first = use.places.begin() + static_cast<std::ptrdiff_t>(block) * inside;
            blocks.push_back(slabs[use.slab_of[block]].index_select(
                0, at::tensor(std::vector<std::int64_t>(first, first + inside), at::kLong)));
        }
        return channelwise(at::cat(blocks, 0));
    }
    const auto length = static_cast<std::int64_t>(use.places.size());
    if (const auto first = use.run()) {
        const at::Tensor places = entry.narrow(use.axis, *first, length);
        if (use.each == 1) return channelwise(places.movedim(use.axis, 0));
        return places.unflatten(use.axis, {size, use.each}).movedim(use.axis, 0).reshape({size, -1});
    }
    return channelwise(entry.index_select(use.axis, at::tensor(use.places, at::kLong)).movedim(use.axis, 0));
}

void add_products(const at::Tensor& gain, const std::vector<GainTerm>& terms,
                  core::Communicator* communicator) {
    if (communicator == nullptr) {
        for (const auto& [a, b] : terms) gain.addmm_(a, b.t());
        return;
    }
    constexpr std::int64_t block = 128;
    const std::int64_t size = gain.size(0);
    const std::int64_t blocks = (size + block - 1) / block;
    const auto rows_of = [&](std::int64_t i) {
        return gain.narrow(0, i * block, std::min(block, size - i * block));
    };
    core::Bytes mine;
    core::collectively(*communicator, [&] {
        core::check_interrupt();
        for (std::int64_t i = communicator->rank(); i < blocks; i += communicator->size()) {
            const at::Tensor rows = rows_of(i);
            for (const auto& [a, b] : terms) rows.addmm_(a.narrow(0, i * block, rows.size(0)), b.t());
            if (communicator->size() == 1) continue;
            const auto* bytes = static_cast<const std::byte*>(rows.data_ptr());
            mine.insert(mine.end(), bytes, bytes + rows.nbytes());
        }
    });
    if (communicator->size() == 1) return;
    const auto all = communicator->all_gather(mine);
    std::vector<std::size_t> position(all.size(), 0);
    for (std::int64_t i = 0; i < blocks; ++i) {
        const at::Tensor rows = rows_of(i);
        const auto from = static_cast<std::size_t>(i % communicator->size());
        std::memcpy(rows.data_ptr(), all[from].data() + position[from], rows.nbytes());
        position[from] += rows.nbytes();
    }
}

at::Tensor index_of(const std::vector<std::int64_t>& places) {
    return at::tensor(places, at::kLong);
}

namespace {

/// The places of some channels, channel by channel.
at::Tensor places_of(const AxisUse& use, const std::vector<std::int64_t>& channels) {
    std::vector<std::int64_t> places;
    for (const std::int64_t channel : channels) {
        const auto first = use.places.begin() + channel * use.each;
        places.insert(places.end(), first, first + use.each);
    }
    return index_of(places);
}

}  // namespace

ChannelMoves::ChannelMoves(const Permutation& from, const Permutation& to,
                           const std::vector<double>& turned) {
    for (std::size_t i = 0; i < to.size(); ++i) {
        const double sign = turned.empty() ? 1.0 : turned[i];
        if (from[i] == to[i] && sign > 0) continue;
        signs.push_back(sign);
        places.push_back(static_cast<std::int64_t>(i));
        before.push_back(from[i]);
        after.push_back(to[i]);
    }
}

double improvement(const std::vector<GainTerm>& terms, const ChannelMoves& moves) {
    if (moves.places.empty()) return 0.0;
    double sum = 0;
    for (const auto& [a, b] : terms) {
        at::Tensor change = b.index_select(0, index_of(moves.after)).to(at::kDouble);
        change.mul_(at::tensor(moves.signs, at::kDouble).unsqueeze(1));
        change.sub_(b.index_select(0, index_of(moves.before)));
        sum += a.index_select(0, index_of(moves.places)).to(at::kDouble).mul_(change).sum().item<double>();
    }
    return sum;
}

bool KeptGains::can_keep(const symmetry::Symmetries& symmetries, std::size_t group,
                         const std::vector<AxisUse>& uses) {
    if (symmetries.groups[group].blocks > 1) return false;
    for (const AxisUse& use : uses) {
        if (use.slabs > 0) return false;
        std::int64_t other_axis = -1;
        for (std::size_t g = 0; g < symmetries.groups.size(); ++g) {
            for (const AxisUse& other : symmetries.groups[g].uses) {
                if (other.entry != use.entry) continue;
                if (g == group && other.axis == use.axis) continue;
                const bool stands_beside =
                    g != group && other.axis == use.axis;  // at other places of this axis
                if (stands_beside) continue;
                if (g == group || other.slabs > 0) return false;
                if (other_axis >= 0 && other_axis != other.axis) return false;
                other_axis = other.axis;
            }
        }
    }
    return true;
}

KeptGains::KeptGains(const symmetry::Symmetries& symmetries, const model::Parameters& a, std::size_t group,
                     const std::vector<AxisUse>& uses, bool cosine)
    : a_(a), size_(symmetries.groups[group].size), cosine_(cosine) {
    for (const AxisUse& use : uses) {
        Tensor& tensor = tensors_.emplace_back();
        tensor.use = use;
        for (std::size_t g = 0; g < symmetries.groups.size(); ++g) {
            for (const AxisUse& other : symmetries.groups[g].uses) {
                if (other.entry != use.entry || g == group || other.axis == use.axis) continue;
                tensor.other_axis = other.axis;
                tensor.neighbours.push_back({g, other});
            }
        }
    }
}

void KeptGains::forget() {
    gain_ = at::Tensor();
    factor_a_ = at::Tensor();
    factor_b_ = at::Tensor();
}

/// Where each place along the other axis comes from in B as it was given.
std::vector<std::int64_t> KeptGains::source_of(const Tensor& tensor, std::int64_t length,
                                               const Permutations& permutations) const {
    std::vector<std::int64_t> source(static_cast<std::size_t>(length));
    std::iota(source.begin(), source.end(), 0);
    for (const auto& [group, use] : tensor.neighbours) {
        auto to = use.places.begin();
        for (const std::int64_t from : permutations[group]) {
            for (std::int64_t k = 0; k < use.each; ++k)
                source[static_cast<std::size_t>(*to++)] =
                    use.places[static_cast<std::size_t>(from * use.each + k)];
        }
    }
    return source;
}

/// Permutations of other groups change no channel's length.
void KeptGains::measure_lengths(const model::Parameters& b) {
    const auto factor_of = [&](const model::Parameters& model) {
        at::Tensor squares = at::zeros({size_}, at::kDouble);
        for (const Tensor& tensor : tensors_) {
            const at::Tensor channels = unfold(model.view(tensor.use.entry), tensor.use, size_);
            squares.add_(channels.to(at::kDouble).square().sum(1));
        }
        const at::Tensor length = squares.sqrt();
        return at::where(length.gt(0), length, at::ones_like(length)).reciprocal();  // a zero stays a zero
    };
    factor_a_ = factor_of(a_);
    factor_b_ = factor_of(b);
}

at::Tensor KeptGains::at(const model::Parameters& b, const Permutations& permutations,
                         core::Communicator* communicator) {
    const bool first = !gain_.defined();
    if (first) {
        gain_ = at::zeros({size_, size_}, a_.values.options());
        if (cosine_) measure_lengths(b);
    }
    std::vector<GainTerm> terms;
    for (Tensor& tensor : tensors_) {
        const at::Tensor of_a = a_.view(tensor.use.entry), of_b = b.view(tensor.use.entry);
        if (tensor.other_axis < 0) {
            if (first) terms.push_back({unfold(of_a, tensor.use, size_), unfold(of_b, tensor.use, size_)});
            continue;
        }
        const std::int64_t axis = tensor.other_axis;
        auto source = source_of(tensor, of_b.size(axis), permutations);
        if (first) {
            terms.push_back({unfold(of_a, tensor.use, size_),
                             unfold(of_b.index_select(axis, index_of(source)), tensor.use, size_)});
        } else {
            std::vector<std::int64_t> places, before, after;
            for (std::size_t place = 0; place < source.size(); ++place) {
                if (source[place] == tensor.source[place]) continue;
                places.push_back(static_cast<std::int64_t>(place));
                before.push_back(tensor.source[place]);
                after.push_back(source[place]);
            }
            if (places.empty()) continue;
            at::Tensor change = of_b.index_select(axis, index_of(after));
            change.sub_(of_b.index_select(axis, index_of(before)));
            terms.push_back({unfold(of_a.index_select(axis, index_of(places)), tensor.use, size_),
                             unfold(change, tensor.use, size_)});
        }
        tensor.source = std::move(source);
    }
    if (!terms.empty()) add_products(gain_, terms, communicator);
    if (!cosine_) return gain_;
    const auto type = gain_.scalar_type();
    return gain_ * factor_a_.to(type).unsqueeze(1) * factor_b_.to(type);
}

double KeptGains::improvement(const model::Parameters& b, const ChannelMoves& moves) const {
    if (moves.places.empty()) return 0.0;
    const auto count = static_cast<std::int64_t>(moves.places.size());
    at::Tensor worth = at::zeros({count}, at::kDouble);
    at::Tensor worth_before = at::zeros({count}, at::kDouble);
    for (const Tensor& tensor : tensors_) {
        // Only the channels that move.
        const auto channels = [&](const model::Parameters& model, const std::vector<std::int64_t>& chosen,
                                  bool permuted) {
            at::Tensor rows =
                model.view(tensor.use.entry).index_select(tensor.use.axis, places_of(tensor.use, chosen));
            if (permuted && tensor.other_axis >= 0)
                rows = rows.index_select(tensor.other_axis, index_of(tensor.source));
            return rows.unflatten(tensor.use.axis, {count, tensor.use.each})
                .movedim(tensor.use.axis, 0)
                .reshape({count, -1})
                .to(at::kDouble);
        };
        const at::Tensor of_a = channels(a_, moves.places, false);
        worth.add_(channels(b, moves.after, true).mul_(of_a).sum(1));
        worth_before.add_(channels(b, moves.before, true).mul_(of_a).sum(1));
    }
    worth.mul_(at::tensor(moves.signs, at::kDouble));
    if (cosine_) {
        const at::Tensor of_a = factor_a_.index_select(0, index_of(moves.places));
        worth.mul_(of_a).mul_(factor_b_.index_select(0, index_of(moves.after)));
        worth_before.mul_(of_a).mul_(factor_b_.index_select(0, index_of(moves.before)));
    }
    return worth.sub_(worth_before).sum().item<double>();
}

}  // namespace thalweg::aggregator
