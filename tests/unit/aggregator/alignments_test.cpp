// Planted cases and properties of the alignments that go beyond weight and activation matching.
#include <gmock/gmock.h>

#include "thalweg/aggregator/matching.hpp"
#include "thalweg/core/error.hpp"
#include "unit/aggregator/fusion_fixture.hpp"

namespace thalweg::testing::alignments_test {
namespace {

using namespace aggregator;

struct Planted {
    model::ModelGraph graph;
    symmetry::Symmetries symmetries;
    model::Parameters a, b;
    symmetry::Permutations back;  ///< what brings b back onto a
    std::shared_ptr<const data::SampleSet> samples;
};

Planted plant(const std::string& architecture, std::uint64_t seed) {
    Planted planted{make_graph(architecture), {}, {}, {}, {}, {}};
    planted.symmetries = symmetry::derive(planted.graph);
    planted.a = random_model(planted.graph, seed);
    core::Random random(seed, "plant");
    const auto permutations = symmetry::random_permutations(planted.symmetries, random);
    planted.b = symmetry::permute(planted.a, planted.symmetries, permutations);
    for (const auto& permutation : permutations) planted.back.push_back(symmetry::inverse(permutation));
    std::int64_t width = 1;
    for (const auto extent : planted.graph.input_shape()) width *= extent;
    planted.samples = random_samples(300, width, 4, seed);
    return planted;
}

MatchTask task_of(const Planted& planted) {
    return {planted.graph, planted.symmetries, planted.a, planted.b, planted.samples};
}

class PlantedPermutation : public ::testing::TestWithParam<std::tuple<std::string, std::string>> {};

TEST_P(PlantedPermutation, IsFound) {
    const auto& [method, architecture] = GetParam();
    for (std::uint64_t seed = 1; seed <= 3; ++seed) {
        const auto planted = plant(architecture, seed);
        const auto match = align(method, task_of(planted), seed);
        const auto moved = moved_model(planted.graph, planted.symmetries, planted.b, match);
        EXPECT_EQ(distance(planted.a, moved), 0) << "seed " << seed;
    }
}

INSTANTIATE_TEST_SUITE_P(
    Methods, PlantedPermutation,
    ::testing::Combine(::testing::Values("weight_matching(kernel=cosine, restarts=10)",
                                         "weight_matching(order=forward, restarts=10)",
                                         "weight_matching(order=backward, bias_weight=3, restarts=10)",
                                         "activation_matching(kernel=cosine)", "covariance_matching",
                                         "sinkhorn_rebasin(steps=300)", "straight_through(epochs=1)"),
                       ::testing::Values("mlp", "cnn", "cnn_batch_norm", "residual_batch_norm")),
    [](const auto& info) {
        std::string name = std::get<0>(info.param) + "_" + std::get<1>(info.param);
        std::replace_if(
            name.begin(), name.end(), [](char c) { return std::isalnum(static_cast<unsigned char>(c)) == 0; },
            '_');
        return name;
    });

TEST(Flips, PermutedAndFlippedTanhNetsAreRecoveredExactly) {
    for (const std::string architecture : {"mlp_tanh", "cnn_tanh"}) {
        const auto graph = make_graph(architecture);
        const auto symmetries = symmetry::derive(graph);
        const symmetry::Flips flips(graph, symmetries);
        ASSERT_TRUE(flips.any());
        for (std::uint64_t seed = 1; seed <= 5; ++seed) {
            const auto a = random_model(graph, seed);
            core::Random random(seed, "plant");
            const auto b = flips.apply(a, symmetries, flips.random(symmetries, random));
            const Planted planted{graph, symmetries, a, b, {}, plant(architecture, seed).samples};
            for (const std::string method : {"weight_matching(restarts=10)", "activation_matching"}) {
                const auto moved = moved_model(graph, symmetries, b, align(method, task_of(planted), seed));
                EXPECT_EQ(distance(a, moved), 0) << method << " on " << architecture;
            }
            const auto without = align("weight_matching(flips=false, restarts=10)", task_of(planted), seed);
            EXPECT_GT(distance(a, moved_model(graph, symmetries, b, without)), 0.1);
        }
    }
}

TEST(Flips, AreLeftOutWhereTheyAreNotExact) {
    for (const std::string architecture : {"mlp", "cnn", "mlp_batch_norm", "attention", "lstm", "grouped"}) {
        const auto graph = make_graph(architecture);
        EXPECT_FALSE(symmetry::Flips(graph, symmetry::derive(graph)).any()) << architecture;
    }
}

TEST(Flips, ComposeAsTheyAct) {
    const auto graph = make_graph("mlp_tanh");
    const auto symmetries = symmetry::derive(graph);
    const symmetry::Flips flips(graph, symmetries);
    core::Random random(1, "compose");
    const auto model = random_model(graph, 1);
    for (int draw = 0; draw < 10; ++draw) {
        const auto first = flips.random(symmetries, random), second = flips.random(symmetries, random);
        const auto step_by_step = flips.apply(flips.apply(model, symmetries, first), symmetries, second);
        EXPECT_TRUE(same_bits(flips.apply(model, symmetries, flips.compose(first, second)), step_by_step));
    }
}

TEST(Flips, MergeManyBringsFlippedClientsTogether) {
    Round round = make_round("mlp_tanh", 4);
    const symmetry::Flips flips(round.graph, round.symmetries);
    core::Random random(1, "clients");
    for (auto& update : round.updates) {
        update.parameters = flips.apply(round.updates[0].parameters, round.symmetries,
                                        flips.random(round.symmetries, random));
    }
    for (const int ranks : {1, 3}) {
        const auto updates = fuse(round, "merge_many+mean", ranks).updates;
        for (const auto& update : updates)
            EXPECT_LT(distance(updates[0].parameters, update.parameters), 1e-6) << ranks << " ranks";
    }
}

TEST(C2m3, BringsPermutedCopiesTogether) {
    for (const std::string architecture : {"mlp", "cnn_batch_norm", "attention"}) {
        Round round = make_round(architecture, 3);
        core::Random random(2, "clients");
        for (auto& update : round.updates) {
            update.parameters = symmetry::permute(round.updates[0].parameters, round.symmetries,
                                                  symmetry::random_permutations(round.symmetries, random));
        }
        const auto updates = fuse(round, "c2m3(restarts=10, max_iterations=50)+mean", 2).updates;
        for (const auto& update : updates)
            EXPECT_EQ(distance(updates[0].parameters, update.parameters), 0) << architecture;
    }
}

TEST(C2m3, RaisesItsObjectiveOverTheIdentity) {
    const Round round = make_round("cnn", 4);
    double before = 0;
    for (std::size_t p = 0; p < 4; ++p) {
        for (std::size_t q = 0; q < p; ++q)
            before += inner_product(round.updates[p].parameters, round.updates[q].parameters) / 16;
    }
    const auto fused = fuse(round, "c2m3+mean");
    double after = 0, reported = 0;
    for (std::size_t p = 0; p < 4; ++p) {
        for (std::size_t q = 0; q < p; ++q)
            after += inner_product(fused.updates[p].parameters, fused.updates[q].parameters) / 16;
    }
    for (const auto& [name, value] : fused.reports[0].notes) {
        if (name == "objective") reported = value;
    }
    EXPECT_GT(after, before);
    EXPECT_NEAR(reported, after, 1e-4 * std::abs(after));
}

TEST(SimulatedAnnealing, NeverEndsWorseThanItBegan) {
    const auto graph = make_graph("mlp");
    const auto symmetries = symmetry::derive(graph);
    const auto a = random_model(graph, 1), b = random_model(graph, 2);
    const auto samples = random_samples(200, 12, 4, 3);
    const auto loss_of = [&](const symmetry::Permutations& permutations) {
        auto middle = a.clone();
        middle.values = (a.values + symmetry::permute(b, symmetries, permutations).values) / 2;
        const at::Tensor x = inputs_of(graph, *samples), logits = logits_of(graph, middle, x);
        at::Tensor y = at::empty({samples->size()}, at::kLong);
        for (std::int64_t i = 0; i < y.numel(); ++i) y[i] = samples->label(i);
        return at::cross_entropy_loss(logits, y).item<double>();
    };
    double last = loss_of(symmetry::identity(symmetries));
    const double start = last;
    for (const int steps : {50, 500}) {
        core::Random random(4, "annealing");
        AnnealingOptions options;
        options.steps = steps;
        const auto match = simulated_annealing(graph, symmetries, a, b, samples, random, options);
        const double now = loss_of(match.permutations);
        EXPECT_LE(now, start + 1e-6);
        last = now;
    }
    EXPECT_LT(last, start) << "500 moves found nothing better";
}

TEST(Align, TakesOptionsAndNamesTheMethodsThereAre) {
    const auto planted = plant("mlp", 1);
    EXPECT_THAT(alignment_methods(),
                ::testing::IsSupersetOf({"weight_matching", "activation_matching", "covariance_matching",
                                         "sinkhorn_rebasin", "straight_through", "simulated_annealing"}));
    EXPECT_THROW(align("mean", task_of(planted), 1), core::UsageError);
    EXPECT_THROW(align("weight_matching(kernel=round)", task_of(planted), 1), core::UsageError);
    EXPECT_THROW(align("activation_matching", task_of(planted), 1, 5), core::UsageError)
        << "restarts are for others";
    MatchTask without = task_of(planted);
    without.samples = nullptr;
    EXPECT_THROW(align("straight_through", without, 1), core::UsageError);
}

}  // namespace
}  // namespace thalweg::testing::alignments_test
