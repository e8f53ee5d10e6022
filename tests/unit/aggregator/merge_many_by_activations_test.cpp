#include <gtest/gtest.h>
#include <torch/types.h>

#include <mutex>

#include "fusion_fixture.hpp"
#include "thalweg/aggregator/matching.hpp"

namespace thalweg::aggregator::merge_many_by_activations_test {
namespace {

/// Every rank's elements, which must be the same.
std::vector<symmetry::Element> elements_on(int ranks, const model::ModelGraph& graph,
                                           const symmetry::Symmetries& symmetries,
                                           const std::vector<model::Parameters>& models,
                                           const std::vector<double>& weights, const data::SampleSet& samples,
                                           const ActivationMatchingOptions& options = {}) {
    std::vector<symmetry::Element> result;
    std::mutex mutex;
    testing::run_ranks(ranks, [&](core::Communicator& communicator) {
        at::set_num_threads(1);
        auto elements = merge_many_by_activations(graph, symmetries, models, weights, samples, communicator,
                                                  100, options);
        const std::lock_guard lock(mutex);
        if (result.empty()) result = elements;
        for (std::size_t k = 0; k < elements.size(); ++k) {
            EXPECT_EQ(elements[k].permutations, result[k].permutations);
            EXPECT_EQ(elements[k].signs, result[k].signs);
        }
    });
    return result;
}

std::shared_ptr<const data::SampleSet> samples_for(const model::ModelGraph& graph) {
    return testing::random_samples(400, c10::multiply_integers(graph.input_shape()), 4, 17);
}

TEST(MergeManyByActivations, CopiesOfOneModelComeBackToACommonFrameOnAnyNumberOfRanks) {
    for (const std::string name :
         {"mlp", "cnn_batch_norm", "residual_batch_norm", "attention", "mlp_tanh", "cnn_tanh"}) {
        const auto graph = testing::make_graph(name);
        const auto symmetries = symmetry::derive(graph);
        const symmetry::Flips flips(graph, symmetries);
        EXPECT_EQ(flips.any(), name.ends_with("tanh"));
        const auto original = testing::random_model(graph, 1);
        core::Random random(1, "copies");
        std::vector<model::Parameters> copies;
        for (int k = 0; k < 3; ++k)
            copies.push_back(flips.apply(original, symmetries, flips.random(symmetries, random)));
        EXPECT_GT(distance(copies[0], copies[1]), 0.1) << name;
        const std::vector<double> weights{0.2, 0.5, 0.3};
        const auto samples = samples_for(graph);
        const auto alone = elements_on(1, graph, symmetries, copies, weights, *samples);
        ASSERT_EQ(alone.size(), 3U);
        const auto first = flips.apply(copies[0], symmetries, alone[0]);
        for (std::size_t k = 1; k < 3; ++k) {
            EXPECT_TRUE(testing::same_bits(flips.apply(copies[k], symmetries, alone[k]), first))
                << name << ", copy " << k;
        }
        for (const int ranks : {2, 3}) {
            const auto together = elements_on(ranks, graph, symmetries, copies, weights, *samples);
            for (std::size_t k = 0; k < 3; ++k) {
                EXPECT_EQ(together[k].permutations, alone[k].permutations) << name << " on " << ranks;
                EXPECT_EQ(together[k].signs, alone[k].signs) << name << " on " << ranks;
            }
        }
    }
}

TEST(MergeManyByActivations, WithoutFlipsNoSignIsTurned) {
    const auto graph = testing::make_graph("mlp_tanh");
    const auto symmetries = symmetry::derive(graph);
    const std::vector<model::Parameters> models{
        testing::random_model(graph, 1), testing::random_model(graph, 2), testing::random_model(graph, 3)};
    const std::vector<double> weights{0.2, 0.5, 0.3};
    const auto turned = [&](bool flips) {
        bool any = false;
        for (const auto& element :
             elements_on(1, graph, symmetries, models, weights, *samples_for(graph), {.flips = flips})) {
            for (const auto& signs : element.signs)
                any = any || std::find(signs.begin(), signs.end(), -1.0) != signs.end();
        }
        return any;
    };
    EXPECT_TRUE(turned(true));
    EXPECT_FALSE(turned(false));
}

/// With all the weight on two models it is a matching of those two.
TEST(MergeManyByActivations, OfTwoModelsIsActivationMatching) {
    for (const std::string name : {"mlp", "cnn_batch_norm"}) {
        const auto graph = testing::make_graph(name);
        const auto symmetries = symmetry::derive(graph);
        const auto a = testing::random_model(graph, 1), b = testing::random_model(graph, 2);
        const auto samples = samples_for(graph);
        const auto elements = elements_on(2, graph, symmetries, {a, b}, {0.5, 0.5}, *samples);
        const auto match = activation_matching(graph, symmetries, a, b, *samples);
        // Both may have moved; what counts is how they lie to each other.
        for (std::size_t g = 0; g < symmetries.groups.size(); ++g) {
            const auto relative = symmetry::compose(elements[1].permutations[g],
                                                    symmetry::inverse(elements[0].permutations[g]));
            EXPECT_EQ(relative, match.permutations[g]) << name << ' ' << symmetries.groups[g].name;
        }
    }
}

}  // namespace
}  // namespace thalweg::aggregator::merge_many_by_activations_test
