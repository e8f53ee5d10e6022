#include "../../../aggregator/alignments/kept_gains.hpp"

#include <gtest/gtest.h>
#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <tuple>
#include <utility>

#include "fusion_fixture.hpp"
#include "thalweg/aggregator/matching.hpp"

namespace thalweg::aggregator::kept_gains_test {
namespace {

using symmetry::AxisUse;
using symmetry::Permutation;
using symmetry::Permutations;

/// The entries of a model that one channel has on one tensor, in a row, in double.
at::Tensor channel_of(const model::Parameters& model, const AxisUse& use, std::int64_t channel) {
    std::vector<at::Tensor> places;
    for (std::int64_t k = 0; k < use.each; ++k) {
        const auto place = use.places[static_cast<std::size_t>(channel * use.each + k)];
        places.push_back(model.view(use.entry).select(use.axis, place).flatten());
    }
    return at::cat(places).to(at::kDouble);
}

/// The slow and obvious gains: B moved as a whole, but for the group itself, and channels multiplied pair by pair.
at::Tensor plain_gains(const symmetry::Symmetries& symmetries, const model::Parameters& a,
                       const model::Parameters& b, std::size_t group, const std::vector<AxisUse>& uses,
                       Permutations permutations, bool cosine) {
    permutations[group] = symmetry::identity(symmetries)[group];
    const auto moved = symmetry::permute(b, symmetries, permutations);
    const std::int64_t size = symmetries.groups[group].size;
    std::vector<at::Tensor> of_a, of_b;
    for (std::int64_t c = 0; c < size; ++c) {
        std::vector<at::Tensor> parts_a, parts_b;
        for (const AxisUse& use : uses) {
            parts_a.push_back(channel_of(a, use, c));
            parts_b.push_back(channel_of(moved, use, c));
        }
        of_a.push_back(at::cat(parts_a));
        of_b.push_back(at::cat(parts_b));
    }
    const at::Tensor gains = at::zeros({size, size}, at::kDouble);
    for (std::int64_t i = 0; i < size; ++i) {
        for (std::int64_t j = 0; j < size; ++j) {
            const at::Tensor x = of_a[static_cast<std::size_t>(i)], y = of_b[static_cast<std::size_t>(j)];
            const at::Tensor product = x.dot(y);
            gains[i][j] = cosine ? product / (x.norm() * y.norm()) : product;
        }
    }
    return gains;
}

std::vector<AxisUse> trainable_uses(const model::ModelGraph& graph, const symmetry::Group& group) {
    std::vector<AxisUse> uses;
    for (const AxisUse& use : group.uses) {
        if (graph.layout->entries()[use.entry].trainable) uses.push_back(use);
    }
    return uses;
}

/// Σ sign · gain of the matched, minus what it was before.
double plain_improvement(const at::Tensor& gains, const Permutation& from, const Permutation& to,
                         const std::vector<double>& signs) {
    double sum = 0;
    for (std::size_t i = 0; i < to.size(); ++i) {
        const auto row = gains[static_cast<std::int64_t>(i)];
        sum += signs[i] * row[to[i]].item<double>() - row[from[i]].item<double>();
    }
    return sum;
}

/// Now and then nothing, a pair of channels, or all channels of a group change places.
void disturb(Permutations& permutations, const symmetry::Symmetries& symmetries, core::Random& random) {
    const auto group = static_cast<std::size_t>(random.below(static_cast<std::int64_t>(permutations.size())));
    auto& permutation = permutations[group];
    const auto size = static_cast<std::int64_t>(permutation.size());
    const auto how = random.below(4);
    if (how == 0) return;
    if (how == 1) {
        permutation = symmetry::random_permutations(symmetries, random)[group];
    } else {
        std::swap(permutation[static_cast<std::size_t>(random.below(size))],
                  permutation[static_cast<std::size_t>(random.below(size))]);
    }
}

class KeptGainsAre : public ::testing::TestWithParam<std::tuple<std::string, bool, bool>> {
  protected:
    void SetUp() override {
        const auto& [architecture, cosine, in_double] = GetParam();
        graph_ = testing::make_graph(architecture);
        symmetries_ = symmetry::derive(graph_);
        for (std::uint64_t seed = 1; seed <= 3; ++seed) {
            const auto model = testing::random_model(graph_, seed);
            models_.push_back(in_double ? model.to_double() : model);
        }
        permutations_ = symmetry::identity(symmetries_);
        for (std::size_t g = 0; g < symmetries_.groups.size(); ++g) {
            const auto uses = trainable_uses(graph_, symmetries_.groups[g]);
            if (KeptGains::can_keep(symmetries_, g, uses)) groups_.push_back(g);
        }
    }
    bool cosine() const { return std::get<1>(GetParam()); }
    KeptGains keep(std::size_t group) const {
        return {symmetries_, models_[0], group, trainable_uses(graph_, symmetries_.groups[group]), cosine()};
    }
    at::Tensor plain(std::size_t group, const model::Parameters& b) const {
        return plain_gains(symmetries_, models_[0], b, group,
                           trainable_uses(graph_, symmetries_.groups[group]), permutations_, cosine());
    }
    /// What rounding may make of numbers as large as `scale`.
    double tolerance() const { return std::get<2>(GetParam()) ? 1e-12 : 1e-4; }

    model::ModelGraph graph_;
    symmetry::Symmetries symmetries_;
    std::vector<model::Parameters> models_;  ///< A, B, and another B
    Permutations permutations_;
    std::vector<std::size_t> groups_;  ///< whose gains can be kept
};

TEST_P(KeptGainsAre, ThoseComputedAfresh) {
    ASSERT_GE(groups_.size(), 2U);
    const model::Parameters& b = models_[1];
    for (const std::size_t group : groups_) {
        core::Random random(group, "changes");
        KeptGains kept = keep(group);
        double most_changed = 0;
        at::Tensor last;
        for (int visit = 0; visit < 12; ++visit) {
            for (int change = 0; change < 2; ++change) disturb(permutations_, symmetries_, random);
            const at::Tensor expected = plain(group, b);
            const double scale = expected.abs().max().item<double>();
            EXPECT_LT(testing::largest_difference(kept.at(b, permutations_, nullptr), expected),
                      tolerance() * scale)
                << symmetries_.groups[group].name << ", visit " << visit;
            if (last.defined())
                most_changed = std::max(most_changed, testing::largest_difference(last, expected) / scale);
            last = expected;
        }
        EXPECT_GT(most_changed, 0.1) << "nothing happened to " << symmetries_.groups[group].name;
    }
}

TEST_P(KeptGainsAre, ForgottenWithTheModel) {
    for (const std::size_t group : groups_) {
        KeptGains kept = keep(group);
        kept.at(models_[1], permutations_, nullptr);
        kept.forget();
        const at::Tensor expected = plain(group, models_[2]);
        EXPECT_LT(testing::largest_difference(kept.at(models_[2], permutations_, nullptr), expected),
                  tolerance() * expected.abs().max().item<double>());
    }
}

TEST_P(KeptGainsAre, RightAboutImprovements) {
    const model::Parameters& a = models_[0];
    const model::Parameters& b = models_[1];
    const double scale = cosine() ? 1 : std::sqrt(inner_product(a, a) * inner_product(b, b));
    for (const std::size_t group : groups_) {
        core::Random random(group, "improvements");
        KeptGains kept = keep(group);
        for (int visit = 0; visit < 6; ++visit) {
            for (int change = 0; change < 2; ++change) disturb(permutations_, symmetries_, random);
            kept.at(b, permutations_, nullptr);
            Permutations after = permutations_;
            after[group] = symmetry::random_permutations(symmetries_, random)[group];
            const at::Tensor gains = plain(group, b);
            std::vector<double> signs(after[group].size(), 1.0);
            // In double whatever the models' type.
            const double gained = kept.improvement(b, ChannelMoves(permutations_[group], after[group], {}));
            EXPECT_NEAR(gained, plain_improvement(gains, permutations_[group], after[group], signs),
                        1e-12 * scale);
            if (!cosine()) {
                const auto objective = [&](const Permutations& permutations) {
                    return inner_product(a, symmetry::permute(b, symmetries_, permutations));
                };
                EXPECT_NEAR(gained, objective(after) - objective(permutations_), 1e-12 * scale);
            }
            for (double& sign : signs) sign = random.below(2) == 0 ? -1.0 : 1.0;
            EXPECT_NEAR(kept.improvement(b, ChannelMoves(permutations_[group], after[group], signs)),
                        plain_improvement(gains, permutations_[group], after[group], signs), 1e-12 * scale);
            EXPECT_EQ(kept.improvement(b, ChannelMoves(after[group], after[group], {})), 0);
        }
    }
}

// cnn_batch_norm: a linear reads its flattened convolution, so that a channel has several places there.
INSTANTIATE_TEST_SUITE_P(Kernels, KeptGainsAre,
                         ::testing::Combine(::testing::Values("mlp", "cnn_batch_norm"), ::testing::Bool(),
                                            ::testing::Bool()),
                         [](const auto& info) {
                             return std::get<0>(info.param) +
                                    (std::get<1>(info.param) ? "_cosine" : "_inner") +
                                    (std::get<2>(info.param) ? "_double" : "_float");
                         });

TEST(KeptGains, AreNotForWhatLiesInBlocks) {
    for (const std::string architecture : {"attention", "grouped"}) {
        const auto graph = testing::make_graph(architecture);
        const auto symmetries = symmetry::derive(graph);
        int blocks = 0;
        for (std::size_t g = 0; g < symmetries.groups.size(); ++g) {
            if (symmetries.groups[g].blocks == 1) continue;
            ++blocks;
            EXPECT_FALSE(KeptGains::can_keep(symmetries, g, trainable_uses(graph, symmetries.groups[g])));
        }
        EXPECT_GT(blocks, 0) << architecture;
    }
}

}  // namespace
}  // namespace thalweg::aggregator::kept_gains_test
