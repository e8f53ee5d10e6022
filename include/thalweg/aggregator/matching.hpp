#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "thalweg/core/communicator.hpp"
#include "thalweg/core/random.hpp"
#include "thalweg/data/dataset.hpp"
#include "thalweg/model/graph.hpp"
#include "thalweg/symmetry/flips.hpp"
#include "thalweg/symmetry/symmetry.hpp"

namespace thalweg::aggregator {

/// Result of bringing B into A's basin.
struct MatchResult {
    symmetry::Permutations permutations;  ///< apply to B, after the signs
    /// Activation matching: Σ correlation; others: ⟨A, π(s ∘ B)⟩ over trainable entries, in weight matching with a
    /// `bias_weight` other than 1 the weighted product that it maximises.
    double objective = 0;
    int sweeps = 0;
    int starts = 1;  ///< of weight matching; the others found nothing better
    std::vector<std::vector<double>>
        signs{};  ///< of B's channels, by group, as symmetry::Element has them; empty: none
};

/// Two models, and what is known beside them.
struct MatchTask {
    const model::ModelGraph& graph;
    const symmetry::Symmetries& symmetries;
    const model::Parameters& a;
    const model::Parameters& b;
    std::shared_ptr<const data::SampleSet> samples;  ///< that may be looked at; may be null
};

/// B in A's basin: π(s ∘ B).
model::Parameters moved_model(const model::ModelGraph& graph, const symmetry::Symmetries& symmetries,
                              const model::Parameters& b, const MatchResult& match);

struct WeightMatchingOptions {
    int max_sweeps = 100;
    double tolerance = 1e-12;  ///< a group must gain more than this (relative to the objective's scale)
    int restarts = 1;  ///< runs in all: the first starts at the identity, the others at random permutations
    double enough =
        std::numeric_limits<double>::infinity();  ///< no more starts once the objective reaches this
    /// Where the first run starts instead of at the identity.
    std::optional<symmetry::Permutations> start{};
    /// What a group's assignment maximises: Σ ⟨A_i, B_π(i)⟩, or the cosines of the channels (all their weights as one
    /// vector), so that large channels do not decide alone. With cosines a sweep need not raise one common objective.
    enum class Kernel { inner, cosine } kernel = Kernel::inner;
    /// The order in which a sweep takes the groups: at random, from input to output, or back.
    enum class Order { random, forward, backward } order = Order::random;
    double bias_weight = 1;  ///< what products of biases count in the objective
    /// Channels between odd activations may change their sign as well, an exact symmetry: the assignment is on |gain|.
    bool flips = true;
    /// Rows of the gains are computed by its ranks, in blocks that do not depend on how many they are; the call is collective
    /// then, and every rank brings the same models. nullptr: on this rank alone.
    core::Communicator* communicator = nullptr;
};

/// Weight matching (Ainsworth, Hayase & Srinivasa, Git Re-Basin, ICLR 2023, algorithm 1): coordinate descent over groups
/// on ⟨A, π(B)⟩. Only trainable entries count. The source has the inner product, biases as they are, random order, no signs.
MatchResult weight_matching(const model::ModelGraph& graph, const symmetry::Symmetries& symmetries,
                            const model::Parameters& a, const model::Parameters& b, core::Random& random,
                            const WeightMatchingOptions& options = {});

struct ActivationMatchingOptions {
    /// What two channels are compared by: Pearson's correlation [REPAIR], or the cosine of their values as they are, means
    /// included [Benzing].
    enum class Kernel { correlation, cosine } kernel = Kernel::correlation;
    bool flips = true;  ///< as in WeightMatchingOptions
};

/// Activation matching (Li et al. 2015; Jordan et al., REPAIR, ICLR 2023; with the cosine Benzing et al., *Random
/// initialisations performing above chance*, 2022): one assignment a group on the similarity of post-activation channels
/// over `samples`.
MatchResult activation_matching(const model::ModelGraph& graph, const symmetry::Symmetries& symmetries,
                                const model::Parameters& a, const model::Parameters& b,
                                const data::SampleSet& samples,
                                const ActivationMatchingOptions& options = {});

/// Merge-many (Git Re-Basin, appendix; algorithm 3): repeat over models in random order: align model i to the weighted
/// mean of the others, until the mean stops moving. Returns what brings each model there: permutations, and signs where there are
/// any. Each step needs the one before; `communicator`: its ranks share the rows of the gains (collective, every rank with the
/// same models), and nothing else: groups that share a tensor wait for each other, too.
std::vector<symmetry::Element> merge_many(const model::ModelGraph& graph,
                                          const symmetry::Symmetries& symmetries,
                                          const std::vector<model::Parameters>& models,
                                          const std::vector<double>& weights, core::Random& random,
                                          int max_iterations = 100,
                                          core::Communicator* communicator = nullptr);

/// Merge-many by what the channels do instead of what they weigh: each model in turn to all others, by the sum of their
/// similarities over `samples` under the permutations found so far (coordinate ascent on Σ_{p<q} w_p w_q s(π_p(p), π_q(q)),
/// one assignment a group and turn), first each to the models before it, then until a pass gains less than 1e-9 of it or
/// `max_iterations`. Ours: the sources match two models (Li et al. 2015; Jordan et al. 2023), or many to one mean by weights
/// (Git Re-Basin, algorithm 3). The similarities, one matrix a group and pair of models, are computed by the ranks in turn and
/// held by all. Collective; the same on every rank and any number of ranks.
std::vector<symmetry::Element> merge_many_by_activations(
    const model::ModelGraph& graph, const symmetry::Symmetries& symmetries,
    const std::vector<model::Parameters>& models, const std::vector<double>& weights,
    const data::SampleSet& samples, core::Communicator& communicator, int max_iterations = 100,
    const ActivationMatchingOptions& options = {});

struct C2m3Options {
    int max_iterations = 200;
    double tolerance = 1e-6;  ///< a step that raises the objective by less (relatively) counts as none
    int patience = 5;         ///< so many of those in a row end it
    int restarts =
        1;  ///< runs in all: the first starts at the identity, the others at random permutations; the best counts
};
struct C2m3Result {
    std::vector<symmetry::Element> elements;  ///< of every model, into the universe; no signs
    double relaxed = 0;    ///< Σ_{p<q} w_p w_q ⟨M_p(θ_p), M_q(θ_q)⟩ where Frank–Wolfe ended
    double objective = 0;  ///< the same after the final assignment
    int iterations = 0;
};

/// C²M³ (Crisostomi et al., *C²M³: Cycle-Consistent Multi-Model Merging*, NeurIPS 2024): every model gets permutations into
/// a common universe, so that the maps between any two are consistent round every cycle. Frank–Wolfe on the sum over all
/// pairs, all groups of all models at once, one step size a step.
///
/// The step size: along a step the objective is a polynomial of degree 2·(axes of an entry that are permuted), 4 as a rule;
/// it is fitted exactly and maximised on [0, 1] (the source searches with Brent's method). Heads and other blocks: the
/// corners are the permutations that respect them. Weights w_k (the source: all alike).
///
/// Cost of a step: O(K·n·d) products for models with groups of n channels, and K assignments a group. The models' corners
/// and the points of the line search are spread over ranks; every rank holds all models about five times. Collective; the same result
/// on every rank and any number of ranks.
C2m3Result c2m3(const model::ModelGraph& graph, const symmetry::Symmetries& symmetries,
                const std::vector<model::Parameters>& models, const std::vector<double>& weights,
                core::Communicator& communicator, core::Random& random, const C2m3Options& options = {});

struct SinkhornOptions {
    enum class Objective {
        l2,        ///< ‖A − π(B)‖²
        midpoint,  ///< the loss at ½(A + π(B))
        random,    ///< the loss at a uniformly random point of the line, another for each step
    };
    Objective objective = Objective::l2;
    std::int64_t steps = 200;
    double lr = 0.1;           ///< of AdamW (weight decay 0.01, as in the source's programs)
    double temperature = 1.0;  ///< τ: S_τ(P) = sinkhorn(P ÷ τ)
    int iterations = 20;       ///< of Sinkhorn's algorithm
    double noise = 0.1;        ///< the scores start at the identity plus normal numbers of this deviation
    std::int64_t batch_size = 100;
};

/// Sinkhorn re-basin (Guerrero Peña et al., *Re-basin via implicit Sinkhorn differentiation*, CVPR 2023): learns scores P
/// whose soft permutations S_τ(P) bring B near A, by gradients through the fixed point of Sinkhorn's algorithm, and hardens
/// them by assignment. `samples` may be null for the objective l2.
///
/// Departures: the hardened permutations are judged every epoch (l2: every step) by the objective itself, and the best ones
/// are returned, the identity among them; the source takes the last. With the objective `random` they are judged at the
/// midpoint, for one random point would compare luck. Inside a step channels mix freely; blocks are respected
/// when hardening. Cost of a step: O(n·d) products and an O(n³) factorisation a group, in double.
MatchResult sinkhorn_rebasin(const model::ModelGraph& graph, const symmetry::Symmetries& symmetries,
                             const model::Parameters& a, const model::Parameters& b,
                             std::shared_ptr<const data::SampleSet> samples, core::Random& random,
                             const SinkhornOptions& options = {});

struct StraightThroughOptions {
    std::int64_t epochs = 5;  ///< over the samples
    std::int64_t batch_size = 100;
    double lr = 1e-3;  ///< of Adam
};

/// The straight-through estimator (Git Re-Basin, algorithm 2): trains a copy θ̃ of A down the loss at
/// ½A + ½(π(B) + θ̃ − sg(θ̃)), where π matches B to θ̃ by weight matching in every step, started from the step before. Keeps
/// the π whose midpoint has the least loss over all samples, judged every epoch; the one of plain weight matching is the
/// first. No signs. The source judges by the training loss of a step and tells no optimizer; Adam is ours.
MatchResult straight_through(const model::ModelGraph& graph, const symmetry::Symmetries& symmetries,
                             const model::Parameters& a, const model::Parameters& b,
                             std::shared_ptr<const data::SampleSet> samples, core::Random& random,
                             const StraightThroughOptions& options = {});

struct AnnealingOptions {
    std::int64_t steps = 2000;
    double start = 0.1, end = 1e-4;  ///< temperatures, falling exponentially; in units of the loss
};

/// Simulated annealing (Entezari et al., *The Role of Permutation Invariance in Linear Mode Connectivity*, ICLR 2022): the
/// historical baseline. The energy is the loss at the midpoint over the samples (the barrier there, up to a constant of the
/// ends); a move exchanges two channels of one random group inside a block, or two blocks of a bond. Returns the best
/// permutations seen. The source gives no schedule; ours is exponential. Cost of a step: a pass over the samples.
MatchResult simulated_annealing(const model::ModelGraph& graph, const symmetry::Symmetries& symmetries,
                                const model::Parameters& a, const model::Parameters& b,
                                std::shared_ptr<const data::SampleSet> samples, core::Random& random,
                                const AnnealingOptions& options = {});

/// Matching by the weights' products under the covariance of what they read (Ferbach et al., *Proving Linear Mode
/// Connectivity of Neural Networks via Optimal Transport*, AISTATS 2024): from input to output, a group's gain is
/// W_A Σ W_Bᵀ, Σ the second moments of A's activations before the layer and W_B with its inputs already permuted; one
/// assignment a group. Weights on directions that never fire count nothing.
///
/// We never form Σ: both layers are run on A's activations of `samples`, and their outputs multiplied, which is the same
/// and serves convolutions. A bias counts as the weight of an input that is always 1. A group that several layers write
/// (a residual stream) takes the sum of their gains, and is solved again until nothing moves or `max_sweeps`; groups that
/// no linear or convolution writes keep their order.
MatchResult covariance_matching(const model::ModelGraph& graph, const symmetry::Symmetries& symmetries,
                                const model::Parameters& a, const model::Parameters& b,
                                const data::SampleSet& samples, int max_sweeps = 10);

/// `count` elements of the symmetry group from rank 0 to all; `all` counts there only. Collective.
std::vector<symmetry::Element> broadcast_elements(core::Communicator& communicator,
                                                  const symmetry::Symmetries& symmetries, std::size_t count,
                                                  const std::vector<symmetry::Element>& all);

/// ⟨A, B⟩ and ‖A − B‖ over trainable entries, in double.
double inner_product(const model::Parameters& a, const model::Parameters& b);
double distance(const model::Parameters& a, const model::Parameters& b);

/// Aligns one model to another by a matching stage, as pipelines write it: `weight_matching`,
/// `sinkhorn_rebasin(objective=midpoint)`. `restarts` > 1: for methods that have that option and do not give it.
/// UsageError for what is no such stage (valid names: `alignment_methods()`), or needs samples where there are none.
MatchResult align(const std::string& method, const MatchTask& task, std::uint64_t seed, int restarts = 1);
/// UsageError as `align`, without running it.
void require_alignment_method(const std::string& method);
std::vector<std::string> alignment_methods();

}  // namespace thalweg::aggregator
