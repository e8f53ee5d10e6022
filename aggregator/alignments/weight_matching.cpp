#include <torch/types.h>

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "matching_support.hpp"
#include "thalweg/aggregator/matching.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/interrupt.hpp"

namespace thalweg::aggregator {
namespace {

using symmetry::AxisUse;
using symmetry::Permutation;
using symmetry::Permutations;

/// The stretch of an entry where a group acts, channel by channel: [size, everything else].
at::Tensor unfold(const at::Tensor& entry, const AxisUse& use, std::int64_t size) {
    at::Tensor channels = entry.narrow(use.axis, use.offset, size * use.block);
    if (use.block > 1)
        return channels.unflatten(use.axis, {size, use.block}).movedim(use.axis, 0).reshape({size, -1});
    return channels.movedim(use.axis, 0).reshape({size, -1});
}

/// Coordinate descent from one starting point: algorithm 1 of Git Re-Basin.
class Descent {
  public:
    Descent(const symmetry::Symmetries& symmetries, const model::Parameters& a, const model::Parameters& b);
    MatchResult run(Permutations start, core::Random& random, const WeightMatchingOptions& options);

  private:
    /// What one tensor has to say about a group: A's channels, and B's with all other groups permuted; [size, rest].
    struct Operands {
        at::Tensor a, b;
    };
    struct Coordinate {
        std::int64_t size = 0;
        std::vector<AxisUse> uses;            ///< on trainable entries
        std::vector<std::size_t> neighbours;  ///< groups that share an entry with this one
        symmetry::AssignmentSolver solver;    ///< keeps its prices from sweep to sweep
    };

    void find_neighbours();
    bool improve(std::size_t group, double threshold);
    std::vector<Operands> operands(std::size_t group) const;
    double improvement(const std::vector<Operands>& operands, const Permutation& from,
                       const Permutation& to) const;

    const symmetry::Symmetries& symmetries_;
    const model::Parameters& a_;
    const model::Parameters& b_;
    std::vector<Coordinate> coordinates_;
    Permutations permutations_;
};

Descent::Descent(const symmetry::Symmetries& symmetries, const model::Parameters& a,
                 const model::Parameters& b)
    : symmetries_(symmetries), a_(a), b_(b) {
    const auto& entries = a.layout->entries();
    for (const symmetry::Group& group : symmetries.groups) {
        Coordinate& coordinate = coordinates_.emplace_back();
        coordinate.size = group.size;
        for (const AxisUse& use : group.uses) {
            if (!entries[use.entry].trainable) continue;
            for (const AxisUse& other : coordinate.uses) {
                // The gain would be quadratic in the permutation, and the assignment no longer an exact step.
                if (other.entry == use.entry && other.axis != use.axis) {
                    throw std::logic_error("weight matching cannot treat " + entries[use.entry].name +
                                           ", on which the group " + group.name + " stands twice");
                }
            }
            coordinate.uses.push_back(use);
        }
    }
    find_neighbours();
}

void Descent::find_neighbours() {
    std::vector<std::vector<std::size_t>> groups_of_entry(a_.layout->entries().size());
    for (std::size_t g = 0; g < coordinates_.size(); ++g) {
        for (const AxisUse& use : coordinates_[g].uses) groups_of_entry[use.entry].push_back(g);
    }
    for (std::size_t g = 0; g < coordinates_.size(); ++g) {
        auto& neighbours = coordinates_[g].neighbours;
        for (const AxisUse& use : coordinates_[g].uses) {
            for (const std::size_t other : groups_of_entry[use.entry]) {
                if (other != g) neighbours.push_back(other);
            }
        }
        std::sort(neighbours.begin(), neighbours.end());
        neighbours.erase(std::unique(neighbours.begin(), neighbours.end()), neighbours.end());
    }
}

MatchResult Descent::run(Permutations start, core::Random& random, const WeightMatchingOptions& options) {
    permutations_ = std::move(start);
    for (Coordinate& coordinate : coordinates_) coordinate.solver.reset();
    const double scale = std::sqrt(inner_product(a_, a_)) * std::sqrt(inner_product(b_, b_));
    const double threshold = options.tolerance * scale;

    // A group none of whose neighbours has moved since it was last solved would find the same assignment again.
    std::vector<bool> open(coordinates_.size(), true);
    int sweeps = 0;
    while (sweeps < options.max_sweeps && std::find(open.begin(), open.end(), true) != open.end()) {
        ++sweeps;
        for (const std::int64_t next : random.permutation(static_cast<std::int64_t>(coordinates_.size()))) {
            const auto group = static_cast<std::size_t>(next);
            if (!open[group]) continue;
            core::check_interrupt();
            open[group] = false;
            if (!improve(group, threshold)) continue;
            for (const std::size_t neighbour : coordinates_[group].neighbours) open[neighbour] = true;
        }
    }
    const double objective = inner_product(a_, symmetry::permute(b_, symmetries_, permutations_));
    return {permutations_, objective, sweeps};
}

/// One step: the best permutation of this group while all others stand. True when it was better and has been taken.
bool Descent::improve(std::size_t group, double threshold) {
    Coordinate& coordinate = coordinates_[group];
    const auto terms = operands(group);
    at::Tensor gain = at::zeros({coordinate.size, coordinate.size}, a_.values.options());
    for (const auto& [a, b] : terms) gain.addmm_(a, b.t());
    const Permutation best = best_assignment(coordinate.solver, gain, symmetries_.groups[group].name);

    // Float products would let two equally good assignments take turns for ever: what is accepted is a gain in double.
    Permutation& current = permutations_[group];
    if (improvement(terms, current, best) <= threshold) return false;
    current = best;
    return true;
}

std::vector<Descent::Operands> Descent::operands(std::size_t group) const {
    std::vector<Operands> result;
    const Coordinate& coordinate = coordinates_[group];
    for (const AxisUse& use : coordinate.uses) {
        const at::Tensor b = symmetry::permuted_entry(b_, use.entry, symmetries_, permutations_, group);
        result.push_back({unfold(a_.view(use.entry), use, coordinate.size), unfold(b, use, coordinate.size)});
    }
    return result;
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
    Descent descent(symmetries, a, b);
    MatchResult best = descent.run(symmetry::identity(symmetries), random, options);
    for (int restart = 1; restart < options.restarts; ++restart) {
        MatchResult other = descent.run(symmetry::random_permutations(symmetries, random), random, options);
        if (other.objective > best.objective) best = std::move(other);
    }
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
