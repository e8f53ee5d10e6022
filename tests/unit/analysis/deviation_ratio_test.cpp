#include <gtest/gtest.h>
#include <torch/types.h>

#include <cmath>

#include "models.hpp"
#include "thalweg/analysis/measures.hpp"
#include "unit/clients/helpers.hpp"
#include "unit/support/thread_communicator.hpp"

namespace thalweg::analysis::deviation_ratio_test {
namespace {

using thalweg::testing::run_ranks;

model::ModelGraph small_cnn() {
    model::GraphBuilder builder({1, 6, 6});
    int value = builder.conv2d("conv.0", model::GraphBuilder::input, 6, {3, 3});
    value = builder.activation(value, model::ActivationKind::relu);
    value = builder.conv2d("conv.1", value, 8, {3, 3});
    value = builder.activation(value, model::ActivationKind::relu);
    value = builder.linear("fc", builder.flatten(value), 10);
    value = builder.activation(value, model::ActivationKind::relu);
    builder.linear("head", value, 3);
    return std::move(builder).build(core::Value::map());
}

struct Measured {
    std::vector<DeviationRatio> plain, repaired;
    double plain_variance = 0;  ///< ratio of the last layer
};

/// Two trained models, merged by `weights`, before and after REPAIR.
Measured measure(const model::ModelGraph& graph, const std::shared_ptr<const data::SampleSet>& samples,
                 const std::vector<double>& weights, core::Communicator& communicator) {
    aggregator::FusionState ends;
    const symmetry::Symmetries none;
    const int last = communicator.size() - 1;
    const aggregator::FusionContext context{.graph = graph,
                                            .symmetries = none,
                                            .communicator = communicator,
                                            .members = {{0, 1, 0}, {1, 1, last}},
                                            .holdout = nullptr};
    std::vector<model::Parameters> models;
    for (std::int64_t client = 0; client < 2; ++client) {
        models.push_back(clients::test::initial(graph, 10 + static_cast<std::uint64_t>(client)));
        clients::LocalTrainer trainer(
            graph, clients::test::plan("{algorithm: {kind: adam, lr: 0.01}, steps: 150, batch_size: 20}"), 3);
        trainer.train(models.back(), *samples, client, 1);
        if (context.members[static_cast<std::size_t>(client)].owner == communicator.rank())
            ends.updates.push_back({client, 1, models.back(), {}});
    }
    const auto source = aggregator::server_statistics(graph, samples, communicator);
    const auto moments = aggregator::end_moments(ends, context, *source, variance_ratio_operations(graph));
    model::Parameters merged = interpolate(models[0], models[1], weights[1]);
    Measured found;
    found.plain = deviation_ratio(merged, moments, context, *source, weights);
    found.plain_variance = variance_ratio(merged, moments, context, *source, weights).back().ratio;
    aggregator::repair(merged, ends, context, *source, weights, {});
    found.repaired = deviation_ratio(merged, moments, context, *source, weights);
    return found;
}

void expect_one_after_repair(const model::ModelGraph& graph, std::int64_t width, std::size_t layers) {
    const auto samples =
        std::make_shared<data::FloatSamples>(clients::test::samples(700, width, graph.classes()));
    for (const auto& weights : {std::vector<double>{0.5, 0.5}, std::vector<double>{0.8, 0.2}}) {
        std::vector<double> first;
        for (const int ranks : {1, 3}) {
            std::vector<double> numbers;
            run_ranks(ranks, [&](core::Communicator& communicator) {
                const auto found = measure(graph, samples, weights, communicator);
                if (communicator.rank() != 0) return;
                ASSERT_EQ(found.repaired.size(), layers);
                EXPECT_LT(found.plain.back().mean, 0.9) << "there was nothing to repair";
                EXPECT_LT(found.plain_variance, 0.9);
                for (const auto& layer : found.repaired) {
                    EXPECT_GE(layer.min, 0.98) << layer.layer;
                    EXPECT_LE(layer.max, 1.02) << layer.layer;
                    EXPECT_NEAR(layer.mean, 1, 0.02) << layer.layer;
                    for (const double channel : layer.channels) {
                        EXPECT_NEAR(channel, 1, 0.02) << layer.layer;
                        numbers.push_back(channel);
                    }
                }
            });
            if (first.empty()) first = numbers;
            EXPECT_EQ(numbers, first);
        }
    }
}

TEST(DeviationRatio, IsOneInEveryChannelOfATrainedMlpAfterRepair) {
    expect_one_after_repair(thalweg::testing::mlp(12, {16, 14, 12}, 3), 12, 3);
}

TEST(DeviationRatio, IsOneInEveryChannelOfATrainedCnnAfterRepair) {
    expect_one_after_repair(small_cnn(), 36, 3);
}

TEST(DeviationRatio, LeavesOutWhatIsConstantInAllEnds) {
    const auto graph = thalweg::testing::mlp(4, {3}, 2);
    const auto a = thalweg::testing::random_parameters(graph, 1);
    a.view("layers.0.weight").select(0, 1).zero_();
    core::SelfCommunicator alone;
    const symmetry::Symmetries none;
    const aggregator::FusionContext context{.graph = graph,
                                            .symmetries = none,
                                            .communicator = alone,
                                            .members = {{0, 1, 0}},
                                            .holdout = nullptr};
    aggregator::FusionState ends;
    ends.updates.push_back({0, 1, a, {}});
    const auto samples = std::make_shared<data::FloatSamples>(clients::test::samples(50, 4, 2));
    const auto source = aggregator::server_statistics(graph, samples, alone);
    const auto moments = aggregator::end_moments(ends, context, *source, {0});
    auto twice = a.clone();
    twice.values.mul_(2);
    const auto found = deviation_ratio(twice, moments, context, *source, {1.0});
    ASSERT_EQ(found.size(), 1u);
    EXPECT_TRUE(std::isnan(found[0].channels[1]));
    EXPECT_NEAR(found[0].channels[0], 2, 1e-6);
    EXPECT_NEAR(found[0].mean, 2, 1e-6);
    EXPECT_NEAR(found[0].min, 2, 1e-6);
    EXPECT_NEAR(found[0].max, 2, 1e-6);
}

}  // namespace
}  // namespace thalweg::analysis::deviation_ratio_test
