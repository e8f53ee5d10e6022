#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>
#include <vector>

#include "../holdout_loss.hpp"
#include "matching_support.hpp"
#include "thalweg/aggregator/matching.hpp"
#include "thalweg/core/interrupt.hpp"

namespace thalweg::aggregator {

namespace {

/// Exchanges two channels of a group, both in one block of it, or, half of the time where there is a bond, two blocks of it in
/// all its groups.
class Moves {
  public:
    explicit Moves(const symmetry::Symmetries& symmetries) : symmetries_(symmetries) {
        for (std::size_t g = 0; g < symmetries.groups.size(); ++g) {
            if (symmetries.groups[g].bond >= 0) bonds_[symmetries.groups[g].bond].push_back(g);
        }
    }

    void make(symmetry::Permutations& permutations, core::Random& random) const {
        const auto g = static_cast<std::size_t>(random.below(static_cast<std::int64_t>(permutations.size())));
        const auto& group = symmetries_.groups[g];
        const std::int64_t inside = group.size / group.blocks;
        if (group.blocks > 1 && (inside == 1 || random.uniform() < 0.5)) {
            const auto [first, second] = two_of(group.blocks, random);
            for (const std::size_t member : bonds_.at(group.bond))
                exchange_blocks(permutations[member], group.blocks, first, second);
            return;
        }
        if (inside < 2) return;
        const std::int64_t block = random.below(group.blocks) * inside;
        const auto [first, second] = two_of(inside, random);
        std::swap(permutations[g][static_cast<std::size_t>(block + first)],
                  permutations[g][static_cast<std::size_t>(block + second)]);
    }

  private:
    static std::pair<std::int64_t, std::int64_t> two_of(std::int64_t count, core::Random& random) {
        const std::int64_t first = random.below(count), second = random.below(count - 1);
        return {first, second + (second >= first ? 1 : 0)};
    }
    static void exchange_blocks(symmetry::Permutation& permutation, std::int64_t blocks, std::int64_t first,
                                std::int64_t second) {
        const auto inside = static_cast<std::int64_t>(permutation.size()) / blocks;
        std::swap_ranges(permutation.begin() + first * inside, permutation.begin() + (first + 1) * inside,
                         permutation.begin() + second * inside);
    }

    const symmetry::Symmetries& symmetries_;
    std::map<int, std::vector<std::size_t>> bonds_;
};

}  // namespace

MatchResult simulated_annealing(const model::ModelGraph& graph, const symmetry::Symmetries& symmetries,
                                const model::Parameters& a, const model::Parameters& b,
                                std::shared_ptr<const data::SampleSet> samples, core::Random& random,
                                const AnnealingOptions& options) {
    require_same_layout(graph, a, b);
    MatchResult best{symmetry::identity(symmetries), 0.0, 0};
    if (distance(a, b) == 0)
        return best;  // the same model is in its own basin, whatever the loss in the middle
    HoldoutLoss loss(graph, std::move(samples), 1, core::Random(random.next(), "simulated_annealing"),
                     a.is_double());
    const auto energy = [&](const symmetry::Permutations& permutations) {
        const model::Parameters moved = symmetry::permute(b, symmetries, permutations);
        model::Parameters point = a.clone();
        point.trainable().copy_(at::lerp(a.trainable(), moved.trainable(), 0.5));
        return loss.whole(point);
    };
    const Moves moves(symmetries);
    symmetry::Permutations current = best.permutations;
    double now = energy(current), least = now;
    for (std::int64_t step = 0; step < options.steps && !current.empty(); ++step) {
        core::check_interrupt();
        const double temperature =
            options.start * std::pow(options.end / options.start,
                                     static_cast<double>(step) / static_cast<double>(options.steps));
        symmetry::Permutations proposal = current;
        moves.make(proposal, random);
        const double value = energy(proposal);
        // Drawn in every step, so that the stream does not depend on rounding.
        const double luck = random.uniform();
        if (value > now && luck >= std::exp((now - value) / temperature)) continue;
        now = value;
        current = std::move(proposal);
        if (now >= least) continue;
        least = now;
        best.permutations = current;
    }
    best.sweeps = static_cast<int>(options.steps);
    best.objective = inner_product(a, symmetry::permute(b, symmetries, best.permutations));
    return best;
}

}  // namespace thalweg::aggregator
