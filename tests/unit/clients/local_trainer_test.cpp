#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "helpers.hpp"
#include "thalweg/core/interrupt.hpp"

namespace thalweg::clients::local_trainer_test {
namespace {

using test::graph_of;
using test::initial;
using test::plan;
using test::same_bits;
using test::samples;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// A round of local training written down plainly: autograd, one sample set in memory, SGD by tensors.
struct Reference {
    double loss = 0;
    std::vector<double> losses;
    std::vector<std::int64_t> sizes;
};
Reference train_plainly(const model::ModelGraph& graph, model::Parameters& parameters,
                        const data::SampleSet& set, std::int64_t client, std::int64_t round,
                        std::int64_t batch_size, std::int64_t steps, double lr, double mu, double clip) {
    Reference reference;
    const auto step = autograd_step(graph);
    step->bind(parameters);
    const auto start = parameters.trainable().clone();
    BatchOrder order(42, round, client, set.size(), batch_size);
    for (std::int64_t i = 0; i < steps; ++i) {
        const auto batch = order.next();
        auto shape = graph.input_shape();
        shape.insert(shape.begin(), static_cast<std::int64_t>(batch.size()));
        const auto x = at::empty(shape, at::kFloat);
        const auto y = at::empty({shape.front()}, at::kLong);
        set.gather(batch, x.data_ptr<float>(), y.data_ptr<std::int64_t>());
        reference.losses.push_back(step->compute(x, y));
        reference.sizes.push_back(shape.front());
        auto gradient = step->gradient() + mu * (parameters.trainable() - start);
        const double norm = gradient.to(at::kDouble).norm().item<double>();
        if (norm > clip) gradient = gradient * (clip / norm);
        parameters.trainable().sub_(gradient * lr);
    }
    return reference;
}

TEST(LocalTrainer, DoesWhatAPlainLoopDoes) {
    const auto set = samples(23, 12, 3);
    for (const char* yaml : {"{kind: mlp, hidden: [10]}", "{kind: mlp, hidden: [10], norm: layer}"}) {
        const auto graph = graph_of(yaml, {12}, 3);
        auto ours = initial(graph), expected = initial(graph);
        LocalTrainer trainer(
            graph,
            plan("{algorithm: {kind: sgd, lr: 0.2}, objective: {kind: fedprox, mu: 0.5}, batch_size: "
                 "5, epochs: 3, clip: 0.8}"),
            42);
        EXPECT_EQ(trainer.steps_for(23), 15);
        const auto result = trainer.train(ours, set, 4, 2);
        const auto reference = train_plainly(graph, expected, set, 4, 2, 5, 15, 0.2, 0.5, 0.8);
        EXPECT_LT((ours.values - expected.values).abs().max().item<double>(), 1e-5) << yaml;
        // The loss is that of the last epoch: batches of 5, 5, 5, 5 and 3.
        double sum = 0;
        for (std::size_t i = 10; i < 15; ++i)
            sum += reference.losses[i] * static_cast<double>(reference.sizes[i]);
        EXPECT_NEAR(result.loss, sum / 23, 1e-5) << yaml;
        EXPECT_EQ(result.steps, 15);
        EXPECT_GT(result.seconds, 0.0);
    }
}

TEST(LocalTrainer, StepsGoBeforeEpochs) {
    const auto graph = graph_of("linear", {12}, 3);
    const auto set = samples(23, 12, 3);
    LocalTrainer trainer(graph, plan("{steps: 2, epochs: 9, batch_size: 5, algorithm: {kind: sgd, lr: 0.2}}"),
                         42);
    EXPECT_EQ(trainer.steps_for(1'000'000), 2);
    auto ours = initial(graph), expected = initial(graph);
    const auto result = trainer.train(ours, set, 0, 1);
    const auto reference = train_plainly(graph, expected, set, 0, 1, 5, 2, 0.2, 0, 1e9);
    EXPECT_EQ(result.steps, 2);
    EXPECT_NEAR(result.loss, (reference.losses[0] + reference.losses[1]) / 2, 1e-6);
    EXPECT_LT((ours.values - expected.values).abs().max().item<double>(), 1e-5);
}

TEST(LocalTrainer, AForkChangesTheOrderFromItsStepOn) {
    const auto set = samples(40, 12, 3);
    const auto graph = graph_of("{kind: mlp, hidden: [10]}", {12}, 3);
    const auto train = [&](std::uint64_t seed, const TrainingStudy& wanted) {
        LocalTrainer trainer(
            graph, plan("{algorithm: {kind: sgd, lr: 0.2, momentum: 0.9}, batch_size: 8, epochs: 3}"), seed);
        auto parameters = initial(graph);
        std::vector<at::Tensor> path;
        TrainingStudy study = wanted;
        study.after_step = [&](std::int64_t step) {
            path.push_back(parameters.values.clone());
            EXPECT_EQ(step, static_cast<std::int64_t>(path.size()));
        };
        trainer.train(parameters, set, 0, 1, {}, study);
        return path;
    };
    const auto plain = train(1, {}), forked = train(1, {.fork_at = 6, .order_seed = 2});
    const auto another = train(2, {}), at_once = train(1, {.fork_at = 0, .order_seed = 2});
    ASSERT_EQ(plain.size(), 15u);
    for (std::size_t step = 0; step < plain.size(); ++step) {
        EXPECT_EQ(same_bits(plain[step], forked[step]), step < 6) << step;
        EXPECT_TRUE(same_bits(another[step], at_once[step])) << step;
    }
}

TEST(LocalTrainer, FollowsTheSchedule) {
    const auto graph = graph_of("linear", {12}, 3);
    const auto set = samples(20, 12, 3);
    // The learning rate is all but zero after the first step, so that more steps change nothing.
    const std::string options =
        "algorithm: {kind: sgd, lr: 0.5}, batch_size: 5, "
        "schedule: {kind: step, every: 1, factor: 1.0e-12}";
    auto one = initial(graph), many = initial(graph);
    LocalTrainer(graph, plan("{steps: 1, " + options + "}"), 1).train(one, set, 0, 1);
    LocalTrainer(graph, plan("{steps: 9, " + options + "}"), 1).train(many, set, 0, 1);
    EXPECT_LT((one.values - many.values).abs().max().item<double>(), 1e-9);
}

TEST(LocalTrainer, LearnsSomething) {
    const auto graph = graph_of("{kind: mlp, hidden: [16]}", {12}, 3);
    const auto set = samples(300, 12, 3);
    auto parameters = initial(graph);
    LocalTrainer trainer(graph, plan("{algorithm: {kind: adam, lr: 0.01}, epochs: 20}"), 1);
    EXPECT_LT(trainer.train(parameters, set, 0, 1).loss, 0.35);
}

TEST(LocalTrainer, AClientIsTheSameWhoeverWasTrainedBefore) {
    const auto graph = graph_of("{kind: mlp, hidden: [16], activation: tanh}", {12}, 3);
    const auto set = samples(31, 12, 3), other = samples(50, 12, 3, 77);
    const auto options = plan("{algorithm: {kind: sgd, momentum: 0.9}, objective: fedsign, batch_size: 8}");
    LocalTrainer used(graph, options, 1), fresh(graph, options, 1);
    auto first = initial(graph), between = initial(graph, 8), second = initial(graph);
    used.train(between, other, 1, 1);
    used.train(first, set, 7, 3);
    fresh.train(second, set, 7, 3);
    EXPECT_TRUE(test::same_bits(first.values, second.values));
    auto elsewhere = initial(graph);
    fresh.train(elsewhere, set, 8, 3);  // another client: another order
    EXPECT_FALSE(test::same_bits(first.values, elsewhere.values));
}

TEST(LocalTrainer, ConvolutionsGiveTheSameBitsTwice) {
    const auto graph = graph_of("{kind: cnn, preset: niid_bench}", {1, 28, 28}, 10);
    const auto set = samples(40, 784, 10);
    at::Tensor first;
    for (int run = 0; run < 2; ++run) {
        auto parameters = initial(graph);
        LocalTrainer trainer(graph,
                             plan("{algorithm: {kind: sgd, momentum: 0.9}, batch_size: 16, epochs: 2}"), 3);
        trainer.train(parameters, set, 2, 1);
        if (run == 0) first = parameters.values;
        EXPECT_TRUE(test::same_bits(first, parameters.values));
    }
    EXPECT_FALSE(test::same_bits(first, initial(graph).values));
}

TEST(LocalTrainer, SaysWhereAClientDiverged) {
    const auto graph = graph_of("{kind: mlp, hidden: [10]}", {12}, 3);
    auto set = samples(20, 12, 3);
    auto parameters = initial(graph);
    parameters.values[3] = std::nan("");
    LocalTrainer trainer(graph, plan("{algorithm: {kind: sgd, lr: 5}, batch_size: 5, epochs: 2}"), 1);
    EXPECT_EQ(test::message_of<Diverged>([&] { trainer.train(parameters, set, 17, 3); }),
              "client 17 diverged in round 3 at step 1 of 8: the loss is nan; lower clients.algorithm.lr "
              "(now 5) or set "
              "clients.clip, or set clients.on_failure: continue to go on without it");
    // The trainer is still good for the next client.
    auto healthy = initial(graph);
    EXPECT_NO_THROW(trainer.train(healthy, set, 18, 3));
}

TEST(LocalTrainer, DivergesByItself) {
    const auto graph = graph_of("{kind: mlp, hidden: [10, 10]}", {12}, 3);
    auto parameters = initial(graph);
    LocalTrainer trainer(graph, plan("{algorithm: {kind: sgd, lr: 1.0e+20}, epochs: 50}"), 1);
    const auto set = samples(100, 12, 3);
    EXPECT_THAT(test::message_of<Diverged>([&] { trainer.train(parameters, set, 2, 1); }),
                HasSubstr("client 2 diverged in round 1 at step "));
}

TEST(LocalTrainer, SingleSamplesAreLeftOutUnderBatchNorm) {
    const auto graph = graph_of("{kind: mlp, hidden: [10], norm: batch}", {12}, 3);
    LocalTrainer trainer(graph, plan("{batch_size: 5, epochs: 2}"), 1);
    EXPECT_EQ(trainer.steps_for(11), 4);  // 5, 5 and not 1
    EXPECT_EQ(trainer.steps_for(12), 6);
    auto parameters = initial(graph);
    const auto set = samples(11, 12, 3);
    EXPECT_EQ(trainer.train(parameters, set, 0, 1).steps, 4);
    EXPECT_FALSE(parameters.first_non_finite());
    EXPECT_EQ(parameters.counters[0].item<std::int64_t>(), 4);

    const auto lonely = samples(1, 12, 3);
    EXPECT_THAT(test::message_of<core::RunError>([&] { trainer.train(parameters, lonely, 6, 1); }),
                HasSubstr("client 6 has one sample"));
    EXPECT_THROW(LocalTrainer(graph, plan("{batch_size: 1}"), 1), core::UsageError);
}

TEST(LocalTrainer, ClientsWithOneSampleTrainWithoutBatchNorm) {
    const auto graph = graph_of("{kind: mlp, hidden: [10]}", {12}, 3);
    LocalTrainer trainer(graph, plan("{batch_size: 5, epochs: 3}"), 1);
    auto parameters = initial(graph);
    EXPECT_EQ(trainer.train(parameters, samples(1, 12, 3), 0, 1).steps, 3);
}

TEST(LocalTrainer, AnInterruptEndsItAtOnce) {
    const auto graph = graph_of("linear", {12}, 3);
    auto parameters = initial(graph);
    LocalTrainer trainer(graph, plan("{steps: 1000000}"), 1);
    core::request_interrupt();
    EXPECT_THROW(trainer.train(parameters, samples(20, 12, 3), 0, 1), core::Interrupted);
    core::clear_interrupt();
}

TEST(LocalTrainer, TellsHowFarItIs) {
    const auto graph = graph_of("linear", {12}, 3);
    auto parameters = initial(graph);
    LocalTrainer trainer(graph, plan("{steps: 4}"), 1);
    std::vector<double> seen;
    trainer.train(parameters, samples(20, 12, 3), 0, 1, [&](double fraction) { seen.push_back(fraction); });
    EXPECT_THAT(seen, ElementsAre(1.0));  // the last one always, others every tenth of a second
}

TEST(LocalTrainer, RefusesSamplesOfAnotherWidth) {
    const auto graph = graph_of("linear", {12}, 3);
    auto parameters = initial(graph);
    LocalTrainer trainer(graph, plan("{}"), 1);
    EXPECT_THROW(trainer.train(parameters, samples(20, 11, 3), 0, 1), std::invalid_argument);
}

}  // namespace
}  // namespace thalweg::clients::local_trainer_test
