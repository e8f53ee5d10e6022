#include <torch/types.h>

#include "../holdout_loss.hpp"
#include "matching_support.hpp"
#include "thalweg/aggregator/matching.hpp"

namespace thalweg::aggregator {

namespace {

model::Parameters midpoint(const model::Parameters& a, const model::Parameters& b) {
    model::Parameters point = a.clone();
    point.trainable().copy_(at::lerp(a.trainable(), b.trainable(), 0.5));
    return point;
}

}  // namespace

MatchResult straight_through(const model::ModelGraph& graph, const symmetry::Symmetries& symmetries,
                             const model::Parameters& a, const model::Parameters& b,
                             std::shared_ptr<const data::SampleSet> samples, core::Random& random,
                             const StraightThroughOptions& options) {
    require_same_layout(graph, a, b);
    // The same model is in its own basin, whatever the loss in the middle.
    if (distance(a, b) == 0) return {symmetry::identity(symmetries), inner_product(a, b), 0};
    HoldoutLoss loss(graph, std::move(samples), options.batch_size,
                     core::Random(random.next(), "straight_through"), a.is_double());
    AdamW optimizer(options.lr);
    model::Parameters shadow = a.clone();  // θ̃
    WeightMatchingOptions warm;
    warm.flips = false;  // permutations are all that is learnt here, and all that is kept from step to step
    MatchResult current = weight_matching(graph, symmetries, shadow, b, random, warm), best = current;
    model::Parameters moved = symmetry::permute(b, symmetries, current.permutations);
    double least = loss.whole(midpoint(a, moved));
    int sweeps = current.sweeps;
    const std::int64_t steps = options.epochs * loss.steps_per_epoch();
    symmetry::Permutations judged = current.permutations;
    for (std::int64_t step = 1; step <= steps; ++step) {
        loss.step(midpoint(a, moved));
        // The gradient passes π(B) + θ̃ − sg(θ̃) as if it were θ̃.
        optimizer.step(shadow.trainable(), loss.gradient() * 0.5);
        warm.start = current.permutations;
        auto next = weight_matching(graph, symmetries, shadow, b, random, warm);
        sweeps += next.sweeps;
        if (next.permutations != current.permutations)
            moved = symmetry::permute(b, symmetries, next.permutations);
        current = std::move(next);
        if (step % loss.steps_per_epoch() != 0 || current.permutations == judged) continue;
        judged = current.permutations;
        const double value = loss.whole(midpoint(a, moved));
        if (value >= least) continue;
        least = value;
        best.permutations = judged;
    }
    best.sweeps = sweeps;
    best.objective = inner_product(a, symmetry::permute(b, symmetries, best.permutations));
    return best;
}

}  // namespace thalweg::aggregator
