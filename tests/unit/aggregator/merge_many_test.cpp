#include <gtest/gtest.h>
#include <torch/types.h>

#include "fusion_fixture.hpp"
#include "thalweg/aggregator/matching.hpp"

namespace thalweg::aggregator::merge_many_test {
namespace {

using testing::make_graph;
using testing::random_model;

model::ModelGraph wide_mlp() {
    return model::build_model(
        core::resolve_plugin("model", "kind", core::parse_yaml("{kind: mlp, hidden: [48, 40]}", "test"),
                             "model"),
        {30}, 10);
}

std::vector<model::Parameters> moved(const model::ModelGraph& graph,
                                     const std::vector<model::Parameters>& models,
                                     const symmetry::Symmetries& symmetries,
                                     const std::vector<symmetry::Element>& elements) {
    const symmetry::Flips flips(graph, symmetries);
    std::vector<model::Parameters> result;
    for (std::size_t k = 0; k < models.size(); ++k) {
        result.push_back(flips.apply(models[k], symmetries, elements[k]));
    }
    return result;
}

/// Σ over pairs w_i w_j ⟨θ_i, θ_j⟩: what every step of merge-many raises.
double agreement(const std::vector<model::Parameters>& models, const std::vector<double>& weights) {
    double sum = 0;
    for (std::size_t i = 0; i < models.size(); ++i) {
        for (std::size_t j = 0; j < i; ++j)
            sum += weights[i] * weights[j] * inner_product(models[i], models[j]);
    }
    return sum;
}

TEST(MergeMany, CopiesOfOneModelComeBackToACommonFrame) {
    const auto graph = wide_mlp();
    const auto symmetries = symmetry::derive(graph);
    for (std::uint64_t seed = 1; seed <= 3; ++seed) {
        const auto original = random_model(graph, seed);
        core::Random random(seed, "copies");
        std::vector<model::Parameters> copies;
        for (int k = 0; k < 5; ++k) {
            copies.push_back(
                symmetry::permute(original, symmetries, symmetry::random_permutations(symmetries, random)));
        }
        const auto elements = merge_many(graph, symmetries, copies, {0.1, 0.3, 0.2, 0.15, 0.25}, random);
        const auto together = moved(graph, copies, symmetries, elements);
        for (const auto& model : together) EXPECT_TRUE(testing::same_bits(model, together[0]));
    }
}

TEST(MergeMany, RaisesTheAgreementAndEndsWhereNoModelMoves) {
    for (const std::string& name : testing::architectures()) {
        const auto graph = make_graph(name);
        const auto symmetries = symmetry::derive(graph);
        std::vector<model::Parameters> models;
        for (std::uint64_t k = 0; k < 4; ++k) models.push_back(random_model(graph, 10 + k));
        const std::vector<double> weights{0.4, 0.3, 0.2, 0.1};
        core::Random random(1, "agreement");
        const auto elements = merge_many(graph, symmetries, models, weights, random);
        const auto together = moved(graph, models, symmetries, elements);
        EXPECT_GT(agreement(together, weights), agreement(models, weights)) << name;
        for (std::size_t k = 0; k < models.size(); ++k) {
            at::Tensor others = at::zeros({graph.layout->size()}, at::kDouble);
            for (std::size_t j = 0; j < models.size(); ++j) {
                if (j != k) others.add_(together[j].values, weights[j]);
            }
            model::Parameters mean = together[k].clone();
            mean.values.copy_(others / (1 - weights[k]));
            const auto match = weight_matching(graph, symmetries, mean, together[k], random);
            EXPECT_EQ(match.permutations, symmetry::identity(symmetries)) << name << ", model " << k;
        }
    }
}

TEST(MergeMany, OneModelStaysAsItIs) {
    const auto graph = make_graph("mlp");
    const auto symmetries = symmetry::derive(graph);
    core::Random random(1, "one");
    EXPECT_TRUE(merge_many(graph, symmetries, {}, {}, random).empty());
    EXPECT_EQ(merge_many(graph, symmetries, {random_model(graph, 1)}, {1.0}, random).front().permutations,
              symmetry::identity(symmetries));
}

TEST(MergeMany, AModelThatIsAllTheWeightStaysAsItIs) {
    const auto graph = make_graph("mlp");
    const auto symmetries = symmetry::derive(graph);
    core::Random random(1, "weight");
    const auto a = random_model(graph, 1), b = random_model(graph, 2);
    const auto elements = merge_many(graph, symmetries, {a, b}, {1.0, 0.0}, random);
    EXPECT_EQ(elements[0].permutations, symmetry::identity(symmetries));
    const auto together = moved(graph, {a, b}, symmetries, elements);
    EXPECT_GT(inner_product(a, together[1]), inner_product(a, b));
}

}  // namespace
}  // namespace thalweg::aggregator::merge_many_test
