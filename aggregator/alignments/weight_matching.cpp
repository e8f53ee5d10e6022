#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <utility>

#include "matching_support.hpp"
#include "thalweg/aggregator/matching.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/interrupt.hpp"
#include "thalweg/core/memory.hpp"

namespace thalweg::aggregator {
namespace {

using symmetry::AxisUse;
using symmetry::Permutation;
using symmetry::Permutations;

/// The places where a group acts on an entry, channel by channel: [size, everything else].
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

/// Rows in blocks as `permutation` has moved them, put back where each block came from.
at::Tensor by_source(const at::Tensor& rows, const symmetry::Group& group, const Permutation& permutation) {
    const std::int64_t inside = group.size / group.blocks;
    std::vector<std::int64_t> place_of(static_cast<std::size_t>(group.blocks));
    for (std::int64_t block = 0; block < group.blocks; ++block)
        place_of[static_cast<std::size_t>(permutation[static_cast<std::size_t>(block * inside)] / inside)] =
            block;
    return rows.unflatten(0, {group.blocks, inside})
        .index_select(0, at::tensor(place_of, at::kLong))
        .flatten(0, 1);
}

/// Coordinate descent from one starting point: algorithm 1 of Git Re-Basin. A coordinate is a group, or the groups of a
/// bond, whose blocks move together.
class Descent {
  public:
    Descent(const symmetry::Symmetries& symmetries, const model::Parameters& a, const model::Parameters& b);
    MatchResult run(Permutations start, core::Random& random, const WeightMatchingOptions& options);

  private:
    /// What one tensor has to say about a group: A's channels, and B's with all other groups permuted; [size, rest].
    struct Operands {
        at::Tensor a, b;
    };
    struct Member {
        std::size_t group;
        std::vector<AxisUse> uses;          ///< on trainable entries
        symmetry::AssignmentSolver solver;  ///< keeps its prices from sweep to sweep
    };
    struct Coordinate {
        std::vector<Member> members;
        std::vector<std::size_t> entries;     ///< trainable ones that the members act on
        std::vector<std::size_t> shared;      ///< of these, the ones on which a member acts twice, or two do
        std::vector<std::size_t> neighbours;  ///< coordinates that share an entry with this one
        /// One assignment solves it.
        bool is_exact() const { return members.size() == 1 && shared.empty() && !has_blocks; }
        bool has_blocks = false;
    };

    void add_to_coordinate(std::size_t group, std::map<int, std::size_t>& of_bond);
    void find_neighbours();
    bool improve(Coordinate& coordinate, double threshold);
    bool improve_channels(Coordinate& coordinate, Member& member, double threshold);
    bool improve_blocks(Coordinate& coordinate, double threshold);
    std::vector<Operands> operands(const Member& member, const std::vector<std::size_t>& except,
                                   const std::vector<std::size_t>& leave_out) const;
    at::Tensor gain_of(const symmetry::Group& group, const std::vector<Operands>& terms) const;
    double improvement(const std::vector<Operands>& operands, const Permutation& from,
                       const Permutation& to) const;
    double objective_on(const std::vector<std::size_t>& entries) const;
    bool accept(const Coordinate& coordinate,
                const std::vector<std::pair<std::size_t, Permutation>>& proposal, double threshold);

    const symmetry::Symmetries& symmetries_;
    const model::Parameters& a_;
    const model::Parameters& b_;
    std::vector<Coordinate> coordinates_;
    Permutations permutations_;
};

Descent::Descent(const symmetry::Symmetries& symmetries, const model::Parameters& a,
                 const model::Parameters& b)
    : symmetries_(symmetries), a_(a), b_(b) {
    std::map<int, std::size_t> of_bond;
    for (std::size_t g = 0; g < symmetries.groups.size(); ++g) add_to_coordinate(g, of_bond);
    find_neighbours();
}

void Descent::add_to_coordinate(std::size_t group, std::map<int, std::size_t>& of_bond) {
    const int bond = symmetries_.groups[group].bond;
    std::size_t index = coordinates_.size();
    if (bond >= 0) index = of_bond.try_emplace(bond, index).first->second;
    if (index == coordinates_.size()) coordinates_.emplace_back();
    Coordinate& coordinate = coordinates_[index];
    Member member{.group = group, .uses = {}, .solver = {}};
    for (const AxisUse& use : symmetries_.groups[group].uses) {
        if (!a_.layout->entries()[use.entry].trainable) continue;
        auto& entries = coordinate.entries;
        if (std::find(entries.begin(), entries.end(), use.entry) == entries.end()) {
            entries.push_back(use.entry);
        } else {
            coordinate.shared.push_back(use.entry);
        }
        member.uses.push_back(use);
    }
    coordinate.has_blocks = bond >= 0;
    coordinate.members.push_back(std::move(member));
}

void Descent::find_neighbours() {
    std::vector<std::vector<std::size_t>> coordinates_of(a_.layout->entries().size());
    for (std::size_t c = 0; c < coordinates_.size(); ++c) {
        for (const std::size_t entry : coordinates_[c].entries) coordinates_of[entry].push_back(c);
    }
    for (std::size_t c = 0; c < coordinates_.size(); ++c) {
        auto& neighbours = coordinates_[c].neighbours;
        for (const std::size_t entry : coordinates_[c].entries) {
            for (const std::size_t other : coordinates_of[entry]) {
                if (other != c) neighbours.push_back(other);
            }
        }
        std::sort(neighbours.begin(), neighbours.end());
        neighbours.erase(std::unique(neighbours.begin(), neighbours.end()), neighbours.end());
    }
}

MatchResult Descent::run(Permutations start, core::Random& random, const WeightMatchingOptions& options) {
    permutations_ = std::move(start);
    for (Coordinate& coordinate : coordinates_) {
        for (Member& member : coordinate.members) member.solver.reset();
    }
    const double scale = std::sqrt(inner_product(a_, a_)) * std::sqrt(inner_product(b_, b_));
    const double threshold = options.tolerance * scale;

    // A coordinate none of whose neighbours has moved since it was last solved would find the same assignment again.
    std::vector<bool> open(coordinates_.size(), true);
    int sweeps = 0;
    while (sweeps < options.max_sweeps && std::find(open.begin(), open.end(), true) != open.end()) {
        ++sweeps;
        for (const std::int64_t next : random.permutation(static_cast<std::int64_t>(coordinates_.size()))) {
            const auto index = static_cast<std::size_t>(next);
            Coordinate& coordinate = coordinates_[index];
            if (!open[index]) continue;
            core::check_interrupt();
            // A step that was not the exact best one may have another behind it.
            const bool moved = improve(coordinate, threshold);
            open[index] = moved && !coordinate.is_exact();
            if (!moved) continue;
            for (const std::size_t neighbour : coordinate.neighbours) open[neighbour] = true;
        }
    }
    const double objective = inner_product(a_, symmetry::permute(b_, symmetries_, permutations_));
    return {permutations_, objective, sweeps, 1};
}

/// One step: the best permutation of this coordinate while all others stand. True when it was better and has been taken.
bool Descent::improve(Coordinate& coordinate, double threshold) {
    bool moved = coordinate.has_blocks && improve_blocks(coordinate, threshold);
    for (Member& member : coordinate.members)
        moved = improve_channels(coordinate, member, threshold) || moved;
    return moved;
}

/// Channels move inside their blocks, the blocks stay.
bool Descent::improve_channels(Coordinate& coordinate, Member& member, double threshold) {
    const symmetry::Group& group = symmetries_.groups[member.group];
    const std::int64_t inside = group.size / group.blocks;
    if (inside == 1 && group.blocks > 1) return false;
    const auto terms = operands(member, {member.group}, {});
    const at::Tensor gain = gain_of(group, terms);
    Permutation& current = permutations_[member.group];
    Permutation best;
    if (group.blocks == 1) {
        best = best_assignment(member.solver, gain, group.name);
    } else {
        for (std::int64_t block = 0; block < group.blocks; ++block) {
            const std::int64_t source = current[static_cast<std::size_t>(block * inside)] / inside * inside;
            const at::Tensor part = gain.narrow(0, block * inside, inside).narrow(1, source, inside);
            member.solver.reset();
            for (const std::int64_t channel : best_assignment(member.solver, part, group.name))
                best.push_back(source + channel);
        }
    }
    // Float products would let two equally good assignments take turns for ever: what is accepted is a gain in double.
    if (coordinate.shared.empty()) {
        if (improvement(terms, current, best) <= threshold) return false;
        current = best;
        return true;
    }
    // The objective is not linear in this permutation, so that the assignment is a proposal: all of it is compared.
    return accept(coordinate, {{member.group, best}}, threshold);
}

/// Blocks change places, with the best order of the channels inside for each pair of them.
bool Descent::improve_blocks(Coordinate& coordinate, double threshold) {
    std::vector<std::size_t> groups;
    for (const Member& member : coordinate.members) groups.push_back(member.group);
    std::vector<at::Tensor> gains;
    for (const Member& member : coordinate.members) {
        // What two members share says nothing of one of them alone.
        gains.push_back(
            gain_of(symmetries_.groups[member.group], operands(member, groups, coordinate.shared)));
    }
    return accept(coordinate, best_blocks(symmetries_, groups, gains), threshold);
}

/// Takes the proposal when it raises the objective. Compares all entries that the coordinate acts on.
bool Descent::accept(const Coordinate& coordinate,
                     const std::vector<std::pair<std::size_t, Permutation>>& proposal, double threshold) {
    const double before = objective_on(coordinate.entries);
    std::vector<Permutation> old;
    for (const auto& [group, permutation] : proposal) {
        old.push_back(permutations_[group]);
        permutations_[group] = permutation;
    }
    if (objective_on(coordinate.entries) - before > threshold) return true;
    for (std::size_t i = 0; i < proposal.size(); ++i) permutations_[proposal[i].first] = old[i];
    return false;
}

std::vector<Descent::Operands> Descent::operands(const Member& member, const std::vector<std::size_t>& except,
                                                 const std::vector<std::size_t>& leave_out) const {
    std::vector<Operands> result;
    const symmetry::Group& group = symmetries_.groups[member.group];
    const std::int64_t size = group.size;
    for (const AxisUse& use : member.uses) {
        if (std::find(leave_out.begin(), leave_out.end(), use.entry) != leave_out.end()) continue;
        const at::Tensor b =
            symmetry::permuted_entry(b_, use.entry, symmetries_, permutations_, except, use.axis);
        at::Tensor channels = unfold(b, use, size);
        // The rows of a slab have come with the block that now stands there: name its channels by where they came from.
        if (use.slabs > 0) channels = by_source(channels, group, permutations_[member.group]);
        result.push_back({unfold(a_.view(use.entry), use, size), std::move(channels)});
    }
    return result;
}

at::Tensor Descent::gain_of(const symmetry::Group& group, const std::vector<Operands>& terms) const {
    at::Tensor gain = at::zeros({group.size, group.size}, a_.values.options());
    for (const auto& [a, b] : terms) gain.addmm_(a, b.t());
    return gain;
}

/// ⟨A, π(B)⟩ over some entries, in double.
double Descent::objective_on(const std::vector<std::size_t>& entries) const {
    double sum = 0;
    for (const std::size_t entry : entries) {
        const at::Tensor b = symmetry::permuted_entry(b_, entry, symmetries_, permutations_, {});
        sum += (a_.view(entry).to(at::kDouble) * b).sum().item<double>();
    }
    return sum;
}

/// ⟨A, π'(B)⟩ − ⟨A, π(B)⟩ for two permutations of one group, in double: over the channels where they differ.
double Descent::improvement(const std::vector<Operands>& operands, const Permutation& from,
                            const Permutation& to) const {
    Permutation places, before, after;
    for (std::size_t i = 0; i < to.size(); ++i) {
        if (from[i] == to[i]) continue;
        places.push_back(static_cast<std::int64_t>(i));
        before.push_back(from[i]);
        after.push_back(to[i]);
    }
    if (places.empty()) return 0.0;
    const auto place = at::tensor(places, at::kLong);
    const auto source_before = at::tensor(before, at::kLong);
    const auto source_after = at::tensor(after, at::kLong);
    double sum = 0;
    for (const auto& [a, b] : operands) {
        const at::Tensor change =
            b.index_select(0, source_after).to(at::kDouble) - b.index_select(0, source_before);
        sum += a.index_select(0, place).to(at::kDouble).mul_(change).sum().item<double>();
    }
    return sum;
}

}  // namespace

MatchResult weight_matching(const model::ModelGraph& graph, const symmetry::Symmetries& symmetries,
                            const model::Parameters& a, const model::Parameters& b, core::Random& random,
                            const WeightMatchingOptions& options) {
    require_same_layout(graph, a, b);
    std::int64_t widest = 0;
    for (const auto& group : symmetries.groups) widest = std::max(widest, group.size);
    core::require_memory(static_cast<double>(widest) * static_cast<double>(widest) *
                             static_cast<double>(a.values.element_size()),
                         "the gains of a group of " + std::to_string(widest) + " channels");
    Descent descent(symmetries, a, b);
    MatchResult best = descent.run(symmetry::identity(symmetries), random, options);
    // What is enough is reached up to the rounding of a sum.
    const double enough =
        std::isfinite(options.enough) ? options.enough - 1e-12 * std::abs(options.enough) : options.enough;
    int starts = 1;
    for (; starts < options.restarts && best.objective < enough; ++starts) {
        MatchResult other = descent.run(symmetry::random_permutations(symmetries, random), random, options);
        if (other.objective > best.objective) best = std::move(other);
    }
    best.starts = starts;
    return best;
}

double inner_product(const model::Parameters& a, const model::Parameters& b) {
    return a.trainable().to(at::kDouble).dot(b.trainable().to(at::kDouble)).item<double>();
}

double distance(const model::Parameters& a, const model::Parameters& b) {
    const at::Tensor difference = a.trainable().to(at::kDouble) - b.trainable();
    return std::sqrt(difference.dot(difference).item<double>());
}

}  // namespace thalweg::aggregator
