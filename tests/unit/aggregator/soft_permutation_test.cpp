#include <gtest/gtest.h>

#include "../../../aggregator/alignments/sinkhorn.hpp"
#include "../../../aggregator/alignments/soft_permutation.hpp"
#include "thalweg/aggregator/matching.hpp"
#include "unit/aggregator/fusion_fixture.hpp"

namespace thalweg::testing::soft_permutation_test {
namespace {

using aggregator::SoftPermutations;
using aggregator::SoftPermuter;

at::Tensor random_matrix(std::int64_t rows, std::int64_t columns, core::Random& random) {
    const at::Tensor matrix = at::empty({rows, columns}, at::kDouble);
    for (std::int64_t i = 0; i < matrix.numel(); ++i) matrix.data_ptr<double>()[i] = random.normal();
    return matrix;
}

TEST(SoftPermuter, DoesWhatPermutationsDo) {
    for (const auto& architecture : architectures()) {
        const auto graph = make_graph(architecture);
        const auto symmetries = symmetry::derive(graph);
        const SoftPermuter permuter(symmetries, *graph.layout);
        const auto model = random_model(graph, 1);
        core::Random random(2, "soft");
        for (int draw = 0; draw < 3; ++draw) {
            const auto permutations = symmetry::random_permutations(symmetries, random);
            const at::Tensor soft = permuter.apply(model, aggregator::as_matrices(permutations, at::kFloat));
            EXPECT_TRUE(at::equal(soft, symmetry::permute(model, symmetries, permutations).trainable()))
                << architecture;
        }
    }
}

TEST(SoftPermuter, GradientIsTheDifferenceQuotient) {
    for (const auto& architecture : architectures()) {
        const auto graph = make_graph(architecture);
        const auto symmetries = symmetry::derive(graph);
        const SoftPermuter permuter(symmetries, *graph.layout);
        const auto model = random_model(graph, 1).to_double();
        core::Random random(3, "soft");
        SoftPermutations matrices;
        for (const auto& group : symmetries.groups)
            matrices.push_back(random_matrix(group.size, group.size, random));
        const at::Tensor upstream = random_matrix(1, graph.layout->trainable_size(), random).flatten();
        const auto value = [&] { return upstream.dot(permuter.apply(model, matrices)).item<double>(); };
        const auto gradient = permuter.gradient(model, matrices, upstream);
        for (std::size_t g = 0; g < matrices.size(); ++g) {
            for (int draw = 0; draw < 6; ++draw) {
                const auto at = random.below(matrices[g].numel());
                double& element = matrices[g].data_ptr<double>()[at];
                const double before = element, step = 1e-5;
                element = before + step;
                const double up = value();
                element = before - step;
                const double down = value();
                element = before;
                EXPECT_NEAR(gradient[g].contiguous().data_ptr<double>()[at], (up - down) / (2 * step), 1e-5)
                    << architecture << ", " << symmetries.groups[g].name;
            }
        }
    }
}

TEST(BestPermutations, RespectBlocksAndFindWhatIsPlanted) {
    for (const auto& architecture : architectures()) {
        const auto graph = make_graph(architecture);
        const auto symmetries = symmetry::derive(graph);
        core::Random random(4, "planted");
        const auto planted = symmetry::random_permutations(symmetries, random);
        EXPECT_EQ(aggregator::best_permutations(symmetries, aggregator::as_matrices(planted, at::kDouble)),
                  planted)
            << architecture;
    }
}

TEST(Sinkhorn, HasTheSumsItIsGiven) {
    core::Random random(5, "sinkhorn");
    const at::Tensor scores = random_matrix(6, 6, random);
    const at::Tensor plan = aggregator::sinkhorn(scores, 200);
    EXPECT_LT(largest_difference(plan.sum(0), at::ones({6}, at::kDouble)), 1e-9);
    EXPECT_LT(largest_difference(plan.sum(1), at::ones({6}, at::kDouble)), 1e-12);
    const at::Tensor rows = at::full({4}, 0.25, at::kDouble), columns = at::full({7}, 1.0 / 7, at::kDouble);
    const at::Tensor uneven = aggregator::sinkhorn(random_matrix(4, 7, random), 500, rows, columns);
    EXPECT_LT(largest_difference(uneven.sum(1), rows), 1e-12);
    EXPECT_LT(largest_difference(uneven.sum(0), columns), 1e-9);
}

TEST(Sinkhorn, GradientIsTheDifferenceQuotientAtTheFixedPoint) {
    core::Random random(6, "sinkhorn");
    for (const std::int64_t n : {1, 2, 5, 9}) {
        const at::Tensor scores = random_matrix(n, n, random), upstream = random_matrix(n, n, random);
        const auto value = [&] {
            return (aggregator::sinkhorn(scores, 400) * upstream).sum().item<double>();
        };
        const at::Tensor gradient =
            aggregator::sinkhorn_gradient(aggregator::sinkhorn(scores, 400), upstream).contiguous();
        for (std::int64_t i = 0; i < scores.numel(); ++i) {
            double& element = scores.data_ptr<double>()[i];
            const double before = element, step = 1e-4;
            element = before + step;
            const double up = value();
            element = before - step;
            const double down = value();
            element = before;
            EXPECT_NEAR(gradient.data_ptr<double>()[i], (up - down) / (2 * step), 1e-6) << n;
        }
    }
}

}  // namespace
}  // namespace thalweg::testing::soft_permutation_test
