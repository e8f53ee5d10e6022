#include <c10/util/accumulate.h>
#include <gmock/gmock.h>

#include <set>

#include "thalweg/core/error.hpp"
#include "unit/aggregator/fusion_fixture.hpp"

namespace thalweg::testing::statistics_test {
namespace {

using aggregator::ChannelMoments;
using ::testing::HasSubstr;

void expect_near(const std::vector<double>& got, const at::Tensor& wanted, double tolerance) {
    ASSERT_EQ(static_cast<std::int64_t>(got.size()), wanted.numel());
    EXPECT_LT(largest_difference(at::tensor(got, at::kDouble), wanted), tolerance);
}

TEST(ChannelMoments, AreMeanAndBiasedVarianceOverAllButTheChannelAxis) {
    core::Random random(3, "moments");
    for (const auto& shape : {std::vector<std::int64_t>{6, 5}, std::vector<std::int64_t>{6, 5, 3, 4}}) {
        at::Tensor x = at::empty(shape);
        for (auto& value : std::span(x.data_ptr<float>(), static_cast<std::size_t>(x.numel()))) {
            value = static_cast<float>(random.normal(3.0, 2.0));
        }
        ChannelMoments whole, parts;
        whole.add(x);
        parts.add(x.narrow(0, 0, 4));
        parts.add(x.narrow(0, 4, 2).to(at::kDouble));
        const at::Tensor flat = x.to(at::kDouble).transpose(0, 1).flatten(1);
        EXPECT_EQ(whole.count, static_cast<double>(flat.size(1)));
        for (const auto& moments : {whole, parts}) {
            expect_near(moments.mean(), flat.mean(1), 1e-12);
            expect_near(moments.variance(), flat.var(1, false), 1e-12);
        }
    }
    ChannelMoments constant;
    constant.add(at::full({7, 2}, 0.1));
    for (const double v : constant.variance()) EXPECT_GE(v, 0.0);
}

TEST(ForEachBatch, CoversTheSetInFixedBatchesWhateverTheStride) {
    const auto samples = random_samples(1234, 6, 4);
    const at::Tensor all = inputs_of(make_graph("mlp"), *random_samples(3, 12, 4));
    for (const std::int64_t stride : {1, 2, 3}) {
        std::set<std::int64_t> seen;
        for (std::int64_t first = 0; first < stride; ++first) {
            aggregator::for_each_batch(
                *samples, {2, 3},
                [&](std::int64_t b, const at::Tensor& x, const at::Tensor& y) {
                    EXPECT_TRUE(seen.insert(b).second);
                    EXPECT_EQ(x.sizes(), (std::vector<std::int64_t>{b < 2 ? 500 : 234, 2, 3}));
                    std::vector<float> row(6);
                    std::int64_t label = -1;
                    const std::int64_t index = b * 500 + 17;
                    samples->gather({&index, 1}, row.data(), &label);
                    EXPECT_TRUE(at::equal(x[17].flatten(), at::tensor(row)));
                    EXPECT_EQ(y[17].item<std::int64_t>(), label);
                },
                500, first, stride);
        }
        EXPECT_EQ(seen, (std::set<std::int64_t>{0, 1, 2}));
    }
    EXPECT_THROW(aggregator::for_each_batch(
                     *samples, {7}, [](auto, const auto&, const auto&) {}, 500),
                 core::RunError);
}

TEST(ServerStatistics, AreThePlainMomentsOnAnyNumberOfRanks) {
    EXPECT_EQ(model::samples_at_once(make_graph("cnn_large")), 32);  // three chunks
    for (const std::string architecture : {"mlp_batch_norm", "cnn", "cnn_large"}) {
        const Round round = make_round(architecture, 2);
        const at::Tensor x = inputs_of(round.graph, *round.holdout);
        for (const std::size_t operation : round.graph.affine_operations()) {
            const auto [mean, variance] = channel_moments(round.graph, round.global, x, operation);
            const auto output = static_cast<std::size_t>(round.graph.operations[operation].output);
            const at::IntArrayRef shape = round.graph.shapes[output];
            const auto values = static_cast<double>(x.size(0) * c10::multiply_integers(shape.slice(1)));
            std::vector<double> sums;
            for (const int ranks : {1, 2, 3, 5}) {
                on_ranks(
                    round, ranks, [&](aggregator::FusionState&, const aggregator::FusionContext& context) {
                        const auto moments =
                            context.server->of_merged(round.global, operation, context.members, {});
                        const auto mine = context.server->of_update({0, 1, round.global, {}}, {operation});
                        EXPECT_EQ(moments.sum, mine.front().sum) << "of_merged and of_update differ in bits";
                        if (context.communicator.rank() > 0) return;
                        EXPECT_EQ(moments.count, values);
                        expect_near(moments.mean(), mean, 1e-6);
                        expect_near(moments.variance(), variance, 1e-6);
                        if (sums.empty()) sums = moments.sum_of_squares;
                        EXPECT_EQ(sums, moments.sum_of_squares) << ranks;
                    });
            }
        }
    }
}

TEST(ClientStatistics, CombineTheClientsMomentsByWeight) {
    const Round round = make_round("cnn_batch_norm", 4);
    const std::size_t operation = round.graph.affine_operations()[1];
    const std::vector<double> weights{0.1, 0.2, 0.3, 0.4};
    at::Tensor mean = at::zeros({6}, at::kDouble), square = at::zeros({6}, at::kDouble);
    double positions = 0;
    for (std::size_t k = 0; k < 4; ++k) {
        const at::Tensor x = inputs_of(round.graph, *round.client_samples[k]);
        const auto [m, v] = channel_moments(round.graph, round.global, x, operation);
        mean += weights[k] * m;
        square += weights[k] * (v + m * m);
        positions += static_cast<double>(x.size(0) * 4);  // 2×2 positions after pooling and a 3×3 kernel
    }
    std::vector<double> sums;
    for (const int ranks : {1, 2, 3, 5}) {
        on_ranks(round, ranks, [&](aggregator::FusionState&, const aggregator::FusionContext& context) {
            const auto moments =
                context.clients->of_merged(round.global, operation, context.members, weights);
            if (context.communicator.rank() > 0) return;
            EXPECT_EQ(moments.count, positions);
            expect_near(moments.mean(), mean, 1e-6);
            expect_near(moments.variance(), square - mean * mean, 1e-6);
            if (sums.empty()) sums = moments.sum;
            EXPECT_EQ(sums, moments.sum) << ranks;
        });
    }
}

TEST(Statistics, CanLookAtTheFirstSamplesOnly) {
    const Round round = make_round("mlp", 2);
    const std::size_t operation = round.graph.affine_operations()[0];
    on_ranks(round, 1, [&](aggregator::FusionState& state, const aggregator::FusionContext& context) {
        const aggregator::Update& update = state.updates[1];
        const at::Tensor held = inputs_of(round.graph, *round.holdout).narrow(0, 0, 20);
        const at::Tensor own = inputs_of(round.graph, *round.client_samples[1]).narrow(0, 0, 20);
        for (const auto& [source, x] : {std::pair{context.server, held}, std::pair{context.clients, own}}) {
            const auto few = source->limited(20);
            const auto moments = few->of_update(update, {operation}).front();
            EXPECT_EQ(few->name(), source->name());
            EXPECT_EQ(moments.count, 20);
            expect_near(moments.mean(), channel_moments(round.graph, update.parameters, x, operation).first,
                        1e-6);
            EXPECT_EQ(source->limited(0)->of_update(update, {operation}).front().sum,
                      source->of_update(update, {operation}).front().sum);
        }
    });
}

TEST(Statistics, SayWhenThereAreNoSamples) {
    const auto graph = make_graph("mlp");
    core::SelfCommunicator communicator;
    EXPECT_THROW(aggregator::server_statistics(graph, nullptr, communicator), core::UsageError);
    const auto clients = aggregator::client_statistics(
        graph, [](std::int64_t) { return std::shared_ptr<const data::SampleSet>(); }, communicator, 0);
    try {
        clients->of_update({7, 1, random_model(graph, 1), {}}, {0});
        FAIL() << "no error";
    } catch (const core::RunError& error) {
        EXPECT_THAT(error.what(), HasSubstr("client 7"));
    }
}

}  // namespace
}  // namespace thalweg::testing::statistics_test
