#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "kept_gains.hpp"
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

/// The model with its biases times √weight, so that their products count `weight`.
model::Parameters with_biases(const model::Parameters& model, double weight) {
    if (weight == 1) return model;
    model::Parameters scaled = model.clone();
    const auto& entries = model.layout->entries();
    for (std::size_t i = 0; i < entries.size(); ++i) {
        if (entries[i].role == model::Role::bias) scaled.view(i).mul_(std::sqrt(weight));
    }
    return scaled;
}

/// Coordinate descent from one starting point: algorithm 1 of Git Re-Basin. A coordinate is a group, or the groups of a
/// bond, whose blocks move together.
class Descent {
  public:
    /// `flips` may be null: no signs.
    Descent(const symmetry::Symmetries& symmetries, const model::Parameters& a, const model::Parameters& b,
            const symmetry::Flips* flips, const WeightMatchingOptions& options);
    MatchResult run(Permutations start, core::Random& random);

  private:
    struct Member {
        std::size_t group;
        std::vector<AxisUse> uses;          ///< on trainable entries
        symmetry::AssignmentSolver solver;  ///< keeps its prices from sweep to sweep
        std::optional<KeptGains> kept;      ///< where one assignment on kept gains solves it
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
    std::vector<std::int64_t> order(core::Random& random) const;
    bool improve(Coordinate& coordinate, double threshold);
    bool improve_with_signs(Member& member, double threshold);
    bool improve_channels(Coordinate& coordinate, Member& member, double threshold);
    bool improve_blocks(Coordinate& coordinate, double threshold);
    std::vector<GainTerm> operands(const Member& member, const std::vector<std::size_t>& except,
                                   const std::vector<std::size_t>& leave_out) const;
    at::Tensor gains(Member& member, std::vector<GainTerm>& terms);
    bool take(Member& member, const at::Tensor& gain, const std::vector<GainTerm>& terms,
              const Permutation& best, const std::vector<double>& signs, double threshold);
    void forget_gains();
    at::Tensor gain_of(const symmetry::Group& group, const std::vector<GainTerm>& terms) const;
    static void normalise(std::vector<GainTerm>& terms, at::Tensor GainTerm::*side);
    double objective_on(const std::vector<std::size_t>& entries) const;
    bool accept(const Coordinate& coordinate,
                const std::vector<std::pair<std::size_t, Permutation>>& proposal, double threshold);

    const symmetry::Symmetries& symmetries_;
    const model::Parameters a_, given_;
    const symmetry::Flips* flips_;
    WeightMatchingOptions options_;
    std::vector<Coordinate> coordinates_;
    Permutations permutations_;
    model::Parameters b_;  ///< as it was given, under the signs found so far
    std::vector<std::vector<double>> signs_;
    double scale_ = 1;  ///< of the objective
};

Descent::Descent(const symmetry::Symmetries& symmetries, const model::Parameters& a,
                 const model::Parameters& b, const symmetry::Flips* flips,
                 const WeightMatchingOptions& options)
    : symmetries_(symmetries), a_(a), given_(b), flips_(flips), options_(options) {
    std::map<int, std::size_t> of_bond;
    for (std::size_t g = 0; g < symmetries.groups.size(); ++g) add_to_coordinate(g, of_bond);
    find_neighbours();
    const bool cosine = options.kernel == WeightMatchingOptions::Kernel::cosine;
    for (Coordinate& coordinate : coordinates_) {
        for (Member& member : coordinate.members) {
            if (!coordinate.has_blocks && coordinate.shared.empty() &&
                KeptGains::can_keep(symmetries, member.group, member.uses))
                member.kept.emplace(symmetries, a_, member.group, member.uses, cosine);
        }
    }
}

void Descent::add_to_coordinate(std::size_t group, std::map<int, std::size_t>& of_bond) {
    const int bond = symmetries_.groups[group].bond;
    std::size_t index = coordinates_.size();
    if (bond >= 0) index = of_bond.try_emplace(bond, index).first->second;
    if (index == coordinates_.size()) coordinates_.emplace_back();
    Coordinate& coordinate = coordinates_[index];
    Member member{.group = group, .uses = {}, .solver = {}, .kept = {}};
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

std::vector<std::int64_t> Descent::order(core::Random& random) const {
    const auto count = static_cast<std::int64_t>(coordinates_.size());
    if (options_.order == WeightMatchingOptions::Order::random) return random.permutation(count);
    std::vector<std::int64_t> result(coordinates_.size());
    std::iota(result.begin(), result.end(), std::int64_t{0});
    if (options_.order == WeightMatchingOptions::Order::backward) std::reverse(result.begin(), result.end());
    return result;
}

MatchResult Descent::run(Permutations start, core::Random& random) {
    permutations_ = std::move(start);
    b_ = given_;
    signs_.assign(symmetries_.groups.size(), {});
    for (Coordinate& coordinate : coordinates_) {
        for (Member& member : coordinate.members) member.solver.reset();
    }
    forget_gains();
    scale_ = options_.kernel == WeightMatchingOptions::Kernel::cosine
                 ? 1.0  // of a cosine
                 : std::sqrt(inner_product(a_, a_)) * std::sqrt(inner_product(b_, b_));
    const double threshold = options_.tolerance * scale_;

    // A coordinate none of whose neighbours has moved since it was last solved would find the same assignment again.
    std::vector<bool> open(coordinates_.size(), true);
    int sweeps = 0;
    while (sweeps < options_.max_sweeps && std::find(open.begin(), open.end(), true) != open.end()) {
        ++sweeps;
        for (const std::int64_t next : order(random)) {
            const auto index = static_cast<std::size_t>(next);
            Coordinate& coordinate = coordinates_[index];
            if (!open[index]) continue;
            if (options_.communicator == nullptr) core::check_interrupt();
            // A step that was not the exact best one may have another behind it.
            const bool moved = improve(coordinate, threshold);
            open[index] = moved && !coordinate.is_exact();
            if (!moved) continue;
            for (const std::size_t neighbour : coordinate.neighbours) open[neighbour] = true;
        }
    }
    const double objective = inner_product(a_, symmetry::permute(b_, symmetries_, permutations_));
    const bool flipped =
        std::any_of(signs_.begin(), signs_.end(), [](const auto& signs) { return !signs.empty(); });
    if (!flipped) signs_.clear();  // none at all
    return {permutations_, objective, sweeps, 1, signs_};
}

/// One step: the best permutation of this coordinate while all others stand. True when it was better and has been taken.
bool Descent::improve(Coordinate& coordinate, double threshold) {
    bool moved = coordinate.has_blocks && improve_blocks(coordinate, threshold);
    for (Member& member : coordinate.members)
        moved = improve_channels(coordinate, member, threshold) || moved;
    return moved;
}

/// The gains of a member's channels; `terms`: where they are not kept, what they are made of.
at::Tensor Descent::gains(Member& member, std::vector<GainTerm>& terms) {
    if (member.kept) return member.kept->at(b_, permutations_, options_.communicator);
    terms = operands(member, {member.group}, {});
    return gain_of(symmetries_.groups[member.group], terms);
}

/// Channels move inside their blocks, the blocks stay.
bool Descent::improve_channels(Coordinate& coordinate, Member& member, double threshold) {
    const symmetry::Group& group = symmetries_.groups[member.group];
    const std::int64_t inside = group.size / group.blocks;
    if (inside == 1 && group.blocks > 1) return false;
    if (flips_ != nullptr && flips_->has(member.group) && coordinate.shared.empty())
        return improve_with_signs(member, threshold);
    std::vector<GainTerm> terms;
    const at::Tensor gain = gains(member, terms);
    const Permutation& current = permutations_[member.group];
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
    if (coordinate.shared.empty()) return take(member, gain, terms, best, {}, threshold);
    // The objective is not linear in this permutation, so that the assignment is a proposal: all of it is compared.
    return accept(coordinate, {{member.group, best}}, threshold);
}

/// Takes the assignment when it raises the objective. Float products would let two equally good assignments take turns for
/// ever: unless they show a gain far beyond their rounding, what is accepted is a gain in double.
bool Descent::take(Member& member, const at::Tensor& gain, const std::vector<GainTerm>& terms,
                   const Permutation& best, const std::vector<double>& signs, double threshold) {
    constexpr double beyond_rounding =
        1e-4;  // of the scale; products of floats are right to about 1e-5 of it
    Permutation& current = permutations_[member.group];
    const auto matched = [&](const Permutation& permutation) {
        return gain.gather(1, at::tensor(permutation, at::kLong).unsqueeze(1)).squeeze(1).to(at::kDouble);
    };
    at::Tensor after = matched(best);
    if (!signs.empty()) after.mul_(at::tensor(signs, at::kDouble));
    if (after.sub_(matched(current)).sum().item<double>() <= beyond_rounding * scale_) {
        const ChannelMoves moves(current, best, signs);
        const double gained = member.kept ? member.kept->improvement(b_, moves) : improvement(terms, moves);
        if (gained <= threshold) return false;
    }
    current = best;
    return true;
}

/// Channels change places and signs: what a pair is worth is |gain|, whichever sign brings it.
bool Descent::improve_with_signs(Member& member, double threshold) {
    std::vector<GainTerm> terms;
    const at::Tensor gain = gains(member, terms);
    const Permutation best =
        best_assignment(member.solver, gain.abs(), symmetries_.groups[member.group].name);
    const at::Tensor chosen =
        gain.gather(1, at::tensor(best, at::kLong).unsqueeze(1)).squeeze(1).to(at::kDouble);
    std::vector<double> signs;  // by place
    for (const double worth : std::span(chosen.data_ptr<double>(), best.size()))
        signs.push_back(worth < 0 ? -1.0 : 1.0);
    if (!take(member, gain, terms, best, signs, threshold)) return false;
    if (std::find(signs.begin(), signs.end(), -1.0) == signs.end()) return true;
    std::vector<std::vector<double>> turned(symmetries_.groups.size());
    auto& of_source = turned[member.group];
    of_source.resize(signs.size());
    for (std::size_t i = 0; i < signs.size(); ++i) of_source[static_cast<std::size_t>(best[i])] = signs[i];
    b_ = flips_->multiply(b_, turned);
    forget_gains();
    auto& total = signs_[member.group];
    if (total.empty()) total.assign(signs.size(), 1.0);
    for (std::size_t c = 0; c < total.size(); ++c) total[c] *= of_source[c];
    return true;
}

void Descent::forget_gains() {
    for (Coordinate& coordinate : coordinates_) {
        for (Member& member : coordinate.members) {
            if (member.kept) member.kept->forget();
        }
    }
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

std::vector<GainTerm> Descent::operands(const Member& member, const std::vector<std::size_t>& except,
                                        const std::vector<std::size_t>& leave_out) const {
    std::vector<GainTerm> result;
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
    if (options_.kernel == WeightMatchingOptions::Kernel::cosine) {
        normalise(result, &GainTerm::a);
        normalise(result, &GainTerm::b);
    }
    return result;
}

/// Every channel to length 1 over all terms together; one that is zero stays zero.
void Descent::normalise(std::vector<GainTerm>& terms, at::Tensor GainTerm::*side) {
    if (terms.empty()) return;
    at::Tensor squares = at::zeros({(terms.front().*side).size(0), 1}, at::kDouble);
    for (const GainTerm& term : terms) squares.add_((term.*side).to(at::kDouble).square().sum(1, true));
    const at::Tensor length = squares.sqrt();
    const at::Tensor factor = at::where(length.gt(0), length, at::ones_like(length)).reciprocal();
    for (GainTerm& term : terms) term.*side = (term.*side) * factor.to((term.*side).scalar_type());
}

at::Tensor Descent::gain_of(const symmetry::Group& group, const std::vector<GainTerm>& terms) const {
    at::Tensor gain = at::zeros({group.size, group.size}, a_.values.options());
    add_products(gain, terms, options_.communicator);
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

}  // namespace

MatchResult weight_matching(const model::ModelGraph& graph, const symmetry::Symmetries& symmetries,
                            const model::Parameters& a, const model::Parameters& b, core::Random& random,
                            const WeightMatchingOptions& options) {
    require_same_layout(graph, a, b);
    double pairs = 0;
    for (const auto& group : symmetries.groups)
        pairs += static_cast<double>(group.size) * static_cast<double>(group.size);
    const auto require_room = [&] {
        core::require_memory(pairs * static_cast<double>(a.values.element_size()),
                             "the gains of all pairs of channels");
    };
    if (options.communicator == nullptr) {
        require_room();
    } else {
        core::collectively(*options.communicator, require_room);
    }
    std::optional<symmetry::Flips> flips;
    if (options.flips) flips.emplace(graph, symmetries);
    Descent descent(symmetries, with_biases(a, options.bias_weight), with_biases(b, options.bias_weight),
                    flips && flips->any() ? &*flips : nullptr, options);
    MatchResult best = descent.run(options.start.value_or(symmetry::identity(symmetries)), random);
    // What is enough is reached up to the rounding of a sum.
    const double enough =
        std::isfinite(options.enough) ? options.enough - 1e-12 * std::abs(options.enough) : options.enough;
    int starts = 1;
    for (; starts < options.restarts && best.objective < enough; ++starts) {
        MatchResult other = descent.run(symmetry::random_permutations(symmetries, random), random);
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
