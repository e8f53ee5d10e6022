#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "fusion_fixture.hpp"
#include "thalweg/aggregator/matching.hpp"
#include "thalweg/core/error.hpp"

namespace thalweg::aggregator::weight_matching_test {
namespace {

using symmetry::Permutation;
using symmetry::Permutations;
using testing::make_graph;
using testing::random_model;

Permutations inverses(const Permutations& permutations) {
    Permutations result;
    for (const auto& permutation : permutations) result.push_back(symmetry::inverse(permutation));
    return result;
}

TEST(WeightMatching, RecoversAPlantedPermutation) {
    for (const std::string& name : testing::architectures()) {
        for (std::uint64_t seed = 1; seed <= 4; ++seed) {
            const auto graph = make_graph(name);
            const auto symmetries = symmetry::derive(graph);
            const auto a = random_model(graph, seed);
            core::Random random(seed, "planted");
            const auto planted = symmetry::random_permutations(symmetries, random);
            const auto b = symmetry::permute(a, symmetries, planted);
            const auto match = weight_matching(graph, symmetries, a, b, random, {.restarts = 10});
            EXPECT_EQ(match.permutations, inverses(planted)) << name;
            EXPECT_TRUE(testing::same_bits(symmetry::permute(b, symmetries, match.permutations), a)) << name;
            EXPECT_NEAR(match.objective, inner_product(a, a), 1e-9 * match.objective) << name;
        }
    }
}

TEST(WeightMatching, RecoversAPlantedPermutationOfAWideModelAtOnce) {
    const auto graph = model::build_model(
        core::resolve_plugin("model", "kind", core::parse_yaml("{kind: mlp, hidden: [96, 64, 96]}", "test"),
                             "model"),
        {40}, 10);
    const auto symmetries = symmetry::derive(graph);
    const auto a = random_model(graph, 1);
    core::Random random(1, "planted");
    const auto planted = symmetry::random_permutations(symmetries, random);
    // a little noise on top, as of two trainings that agree but for details
    auto b = symmetry::permute(a, symmetries, planted);
    for (std::int64_t i = 0; i < b.layout->trainable_size(); ++i)
        b.data()[i] += static_cast<float>(random.normal(0, 0.01));
    const auto match = weight_matching(graph, symmetries, a, b, random);
    EXPECT_EQ(match.permutations, inverses(planted));
    EXPECT_LT(distance(a, symmetry::permute(b, symmetries, match.permutations)), 0.1 * distance(a, b));
}

TEST(WeightMatching, OfAModelWithItselfIsTheIdentity) {
    for (const std::string& name : testing::architectures()) {
        const auto graph = make_graph(name);
        const auto symmetries = symmetry::derive(graph);
        const auto a = random_model(graph, 3);
        core::Random random(1, "self");
        const auto match = weight_matching(graph, symmetries, a, a, random);
        EXPECT_EQ(match.permutations, symmetry::identity(symmetries)) << name;
        EXPECT_EQ(match.sweeps, 1) << name;
    }
}

TEST(WeightMatching, NeverLowersTheObjectiveAndReportsIt) {
    for (const std::string& name : testing::architectures()) {
        const auto graph = make_graph(name);
        const auto symmetries = symmetry::derive(graph);
        for (std::uint64_t seed = 0; seed < 10; ++seed) {
            const auto a = random_model(graph, 2 * seed), b = random_model(graph, 2 * seed + 1);
            double last = inner_product(a, b);
            for (int sweeps = 1; sweeps <= 6; ++sweeps) {
                core::Random random(seed, "sweeps");
                const auto match = weight_matching(graph, symmetries, a, b, random, {.max_sweeps = sweeps});
                EXPECT_GE(match.objective, last) << name;
                EXPECT_LE(match.sweeps, sweeps);
                EXPECT_EQ(match.objective, inner_product(a, moved_model(graph, symmetries, b, match)));
                last = match.objective;
            }
        }
    }
}

TEST(WeightMatching, IsTheSameInFloatAndDouble) {
    const auto graph = make_graph("cnn");
    const auto symmetries = symmetry::derive(graph);
    const auto a = random_model(graph, 5), b = random_model(graph, 6);
    core::Random first(1, "precision"), second(1, "precision");
    const auto narrow = weight_matching(graph, symmetries, a, b, first);
    const auto wide = weight_matching(graph, symmetries, a.to_double(), b.to_double(), second);
    EXPECT_EQ(narrow.permutations, wide.permutations);
    EXPECT_NEAR(narrow.objective, wide.objective, 1e-9 * std::abs(wide.objective));
}

TEST(WeightMatching, MoreRestartsAreNeverWorse) {
    const auto graph = make_graph("mlp");
    const auto symmetries = symmetry::derive(graph);
    const auto a = random_model(graph, 7), b = random_model(graph, 8);
    double last = -1e300;
    bool improved = false;
    for (const int restarts : {1, 2, 4, 8, 16}) {
        core::Random random(1, "restarts");
        const double objective =
            weight_matching(graph, symmetries, a, b, random, {.restarts = restarts}).objective;
        EXPECT_GE(objective, last);
        improved = improved || (restarts > 1 && objective > last);
        last = objective;
    }
    EXPECT_TRUE(improved);
}

/// Two hidden layers of four units: 24² = 576 permutations in all.
model::ModelGraph tiny() {
    model::GraphBuilder builder({3});
    int value = builder.activation(builder.linear("layers.0", 0, 4), model::ActivationKind::relu);
    value = builder.activation(builder.linear("layers.1", value, 4), model::ActivationKind::relu);
    builder.linear("layers.2", value, 2);
    return std::move(builder).build(core::Value::map({{"kind", core::Value::of("test")}}));
}

template <class Use>
void for_all_permutations(std::int64_t n, Use&& use) {
    Permutation permutation(static_cast<std::size_t>(n));
    std::iota(permutation.begin(), permutation.end(), 0);
    do {
        use(permutation);
    } while (std::next_permutation(permutation.begin(), permutation.end()));
}

TEST(WeightMatching, AgainstAllPermutationsOfATinyModel) {
    const auto graph = tiny();
    const auto symmetries = symmetry::derive(graph);
    int optimal = 0;
    for (std::uint64_t seed = 0; seed < 20; ++seed) {
        const auto a = random_model(graph, 100 + seed), b = random_model(graph, 200 + seed);
        const auto objective = [&](const Permutations& permutations) {
            return inner_product(a, symmetry::permute(b, symmetries, permutations));
        };
        double best = -1e300;
        for_all_permutations(4, [&](const Permutation& first) {
            for_all_permutations(4, [&](const Permutation& second) {
                best = std::max(best, objective({first, second}));
            });
        });
        core::Random random(seed, "tiny");
        const auto match = weight_matching(graph, symmetries, a, b, random);
        const double tolerance = 1e-9 * std::abs(best);
        EXPECT_LE(match.objective, best + tolerance);
        // A fixed point: no permutation of one group alone is better.
        for_all_permutations(4, [&](const Permutation& other) {
            EXPECT_LE(objective({other, match.permutations[1]}), match.objective + tolerance);
            EXPECT_LE(objective({match.permutations[0], other}), match.objective + tolerance);
        });
        const auto thorough = weight_matching(graph, symmetries, a, b, random, {.restarts = 40});
        EXPECT_NEAR(thorough.objective, best, tolerance);
        optimal += match.objective > best - tolerance ? 1 : 0;
    }
    EXPECT_GE(optimal, 8);  // a single descent often finds it
}

/// If B is permuted first, the result undoes that and is otherwise the same: π' = compose(ρ⁻¹, π).
TEST(WeightMatching, MovesWithThePermutationOfItsInputs) {
    const auto graph = tiny();
    const auto symmetries = symmetry::derive(graph);
    const auto a = random_model(graph, 11), b = random_model(graph, 12);
    core::Random random(1, "equivariance");
    const auto rho = symmetry::random_permutations(symmetries, random);
    const auto plain = weight_matching(graph, symmetries, a, b, random, {.restarts = 40});
    const auto moved_b = weight_matching(graph, symmetries, a, symmetry::permute(b, symmetries, rho), random,
                                         {.restarts = 40});
    EXPECT_EQ(moved_b.permutations, symmetry::compose(inverses(rho), plain.permutations));
    const auto moved_a = weight_matching(graph, symmetries, symmetry::permute(a, symmetries, rho), b, random,
                                         {.restarts = 40});
    EXPECT_EQ(moved_a.permutations, symmetry::compose(plain.permutations, rho));
}

TEST(WeightMatching, BuffersDoNotCount) {
    const auto graph = make_graph("mlp_batch_norm");
    const auto symmetries = symmetry::derive(graph);
    const auto a = random_model(graph, 1), b = random_model(graph, 2);
    auto other = b.clone();
    other.values.slice(0, b.layout->trainable_size()).fill_(1e6);
    core::Random first(1, "buffers"), second(1, "buffers");
    EXPECT_EQ(weight_matching(graph, symmetries, a, b, first).permutations,
              weight_matching(graph, symmetries, a, other, second).permutations);
}

TEST(WeightMatching, RefusesANonFiniteModelByName) {
    const auto graph = make_graph("mlp");
    const auto symmetries = symmetry::derive(graph);
    const auto a = random_model(graph, 1);
    auto b = random_model(graph, 2);
    b.view("layers.1.bias")[2] = std::nanf("");
    core::Random random(1, "nan");
    try {
        weight_matching(graph, symmetries, a, b, random);
        FAIL() << "no error";
    } catch (const core::RunError& error) {
        EXPECT_NE(std::string(error.what()).find("layers.1"), std::string::npos) << error.what();
    }
}

/// Graphs whose groups are not all free: blocks, bonds, slabs, groups on both axes of a weight.
model::ModelGraph structured(const std::string& which) {
    using model::ActivationKind;
    if (which == "lstm") {
        model::GraphBuilder b({6});
        const int x = b.lstm("lstm", b.embedding("embedding", 0, 9, 5), 7);
        b.linear("fc", b.reshape(b.slice(x, 1, 5, 6), {7}), 4);
        return std::move(b).build(core::Value::map());
    }
    if (which == "attention") {
        model::GraphBuilder b({5, 4});
        const int x = b.linear("in", 0, 12);
        const int h = b.layer_norm("ln", x);
        const int y = b.attention(b.linear("q", h, 12), b.linear("k", h, 12), b.linear("v", h, 12), 3, false);
        b.linear("fc", b.mean(b.add(x, b.linear("o", y, 12)), {1}), 4);
        return std::move(b).build(core::Value::map());
    }
    model::GraphBuilder b({3, 8, 8});
    int x = b.activation(b.conv2d("conv0", 0, 8, {3, 3}), ActivationKind::relu);
    x = b.activation(b.conv2d("conv1", x, 12, {3, 3}, {1, 1}, {0, 0}, true, 4), ActivationKind::relu);
    x = b.activation(b.group_norm("norm", b.conv2d("conv2", x, 6, {1, 1}), 2), ActivationKind::relu);
    b.linear("fc", b.flatten(x), 4);
    return std::move(b).build(core::Value::map());
}

TEST(WeightMatching, RecoversPlantedElementsOfStructuredGroups) {
    for (const std::string which : {"lstm", "attention", "grouped"}) {
        const auto graph = structured(which);
        const auto symmetries = symmetry::derive(graph);
        for (int seed = 1; seed <= 3; ++seed) {
            core::Random random(static_cast<std::uint64_t>(seed), "planted");
            const auto a = symmetry::random_parameters(graph, random);
            const auto b =
                symmetry::permute(a, symmetries, symmetry::random_permutations(symmetries, random));
            WeightMatchingOptions options;
            options.restarts = 20;
            const auto match = weight_matching(graph, symmetries, a, b, random, options);
            EXPECT_EQ(distance(a, symmetry::permute(b, symmetries, match.permutations)), 0.0)
                << which << " seed " << seed << ", distance before " << distance(a, b);
        }
    }
}

TEST(WeightMatching, EveryStepOfStructuredGroupsRaisesTheObjective) {
    for (const std::string which : {"lstm", "attention", "grouped"}) {
        const auto graph = structured(which);
        const auto symmetries = symmetry::derive(graph);
        core::Random random(5, "structured");
        const auto a = symmetry::random_parameters(graph, random),
                   b = symmetry::random_parameters(graph, random);
        double before = inner_product(a, b);
        for (int sweeps = 1; sweeps <= 6; ++sweeps) {
            WeightMatchingOptions options;
            options.max_sweeps = sweeps;
            core::Random order(1, "order");
            const auto match = weight_matching(graph, symmetries, a, b, order, options);
            EXPECT_GE(match.objective, before - 1e-12) << which << " after " << sweeps;
            for (std::size_t g = 0; g < match.permutations.size(); ++g)
                EXPECT_TRUE(symmetry::respects_blocks(symmetries.groups[g], match.permutations[g])) << which;
            before = match.objective;
        }
    }
}

TEST(WeightMatching, ProductAndDistanceAreInDouble) {
    const auto graph = make_graph("mlp");
    const auto a = random_model(graph, 1), b = random_model(graph, 2);
    double product = 0, squares = 0;
    for (std::int64_t i = 0; i < a.layout->trainable_size(); ++i) {
        const double x = a.data()[i], y = b.data()[i];
        product += x * y;
        squares += (x - y) * (x - y);
    }
    EXPECT_NEAR(inner_product(a, b), product, 1e-12 * a.layout->trainable_size());
    EXPECT_NEAR(distance(a, b), std::sqrt(squares), 1e-12);
}

// align()

TEST(Align, KnowsItsMethodsAndSaysSo) {
    EXPECT_EQ(alignment_methods(),
              (std::vector<std::string>{"activation_matching", "covariance_matching", "simulated_annealing",
                                        "sinkhorn_rebasin", "straight_through", "weight_matching"}));
    const auto graph = make_graph("mlp");
    const auto symmetries = symmetry::derive(graph);
    const auto a = random_model(graph, 1);
    const MatchTask task{graph, symmetries, a, a, nullptr};
    try {
        align("weigth_matching", task, 0);
        FAIL() << "no error";
    } catch (const core::UsageError& error) {
        EXPECT_NE(std::string(error.what()).find("did you mean 'weight_matching'"), std::string::npos)
            << error.what();
    }
    EXPECT_THROW(align("activation_matching", task, 0), core::UsageError);
}

TEST(Align, DependsOnTheSeedOnly) {
    const auto graph = make_graph("mlp");
    const auto symmetries = symmetry::derive(graph);
    const auto a = random_model(graph, 1), b = random_model(graph, 2);
    const MatchTask task{graph, symmetries, a, b, nullptr};
    const auto first = align("weight_matching", task, 7, 3);
    const auto second = align("weight_matching", task, 7, 3);
    EXPECT_EQ(first.permutations, second.permutations);
    EXPECT_EQ(first.objective, second.objective);
    EXPECT_EQ(first.sweeps, second.sweeps);
}

TEST(WeightMatching, RefusesGainsThatTheMachineCannotHold) {
    const auto graph = make_graph("wide");
    const auto symmetries = symmetry::derive(graph);
    const model::Parameters model(graph.layout);
    core::Random random(1, "wide");
    EXPECT_THAT(
        [&] { weight_matching(graph, symmetries, model, model, random); },
        ::testing::ThrowsMessage<core::RunError>(::testing::HasSubstr("There is not enough memory for the")));
}

}  // namespace
}  // namespace thalweg::aggregator::weight_matching_test
