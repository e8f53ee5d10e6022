// Reductions that look at data: Fisher-weighted mean, RegMean.
#include <gtest/gtest.h>

#include "thalweg/model/interpreter.hpp"
#include "unit/aggregator/fusion_fixture.hpp"

namespace thalweg::testing::informed_reductions_test {
namespace {

/// The empirical Fisher diagonal, a sample at a time, the plain way.
at::Tensor slow_fisher(const model::ModelGraph& graph, const model::Parameters& given,
                       const data::SampleSet& samples, std::int64_t count) {
    auto parameters = given.clone();
    const at::Tensor gradient = at::zeros({graph.layout->trainable_size()});
    const auto views = model::leaf_views(parameters, gradient);
    const at::Tensor x = inputs_of(graph, samples);
    at::Tensor sum = at::zeros({gradient.numel()}, at::kDouble);
    for (std::int64_t i = 0; i < count; ++i) {
        const at::AutoGradMode recording(true);
        gradient.zero_();
        const at::Tensor logits = model::forward(graph, views, x.narrow(0, i, 1), model::Mode::evaluate);
        at::cross_entropy_loss(logits, at::full({1}, samples.label(i), at::kLong)).backward();
        sum += gradient.to(at::kDouble).square();
    }
    return sum / static_cast<double>(count);
}

TEST(FisherMean, IsThePapersDefinition) {
    for (const std::string architecture : {"mlp", "cnn_batch_norm"}) {
        const Round round = make_round(architecture, 3);
        const std::int64_t n = round.graph.layout->trainable_size();
        at::Tensor sum = at::zeros({n}, at::kDouble), total = at::zeros({n}, at::kDouble);
        for (std::size_t k = 0; k < 3; ++k) {
            const auto& model = round.updates[k].parameters;
            const at::Tensor f =
                slow_fisher(round.graph, model, *round.client_samples[k], 20).clamp_min(1e-6);
            sum += f * model.trainable();
            total += f;
        }
        for (const int ranks : {1, 2}) {
            const auto merged =
                fuse(round, "fisher_mean(labels=data, samples=20, weights=uniform)", ranks).merged;
            EXPECT_LT(largest_difference(merged.trainable(), sum / total), 1e-5) << architecture;
        }
    }
}

TEST(FisherMean, DrawsLabelsFromTheModelUnlessToldOtherwise) {
    const Round round = make_round("mlp", 2);
    const auto drawn = fuse(round, "fisher_mean(samples=20)").merged;
    EXPECT_TRUE(same_bits(drawn, fuse(round, "fisher_mean(samples=20)", 2).merged));
    EXPECT_FALSE(same_bits(drawn, fuse(round, "fisher_mean(samples=20, labels=data)").merged));
}

/// Of a linear layer [out, in] that reads `rows` of every client: the least-squares solution, by normal equations.
at::Tensor slow_regression(const std::vector<at::Tensor>& rows, const std::vector<at::Tensor>& weights,
                           double shrink) {
    at::Tensor g, product;
    for (std::size_t k = 0; k < rows.size(); ++k) {
        const at::Tensor x = rows[k].to(at::kDouble);
        at::Tensor own = at::mm(x.t(), x);
        own = own * shrink + at::diag(own.diagonal()) * (1 - shrink);
        const at::Tensor pulled = at::mm(own, weights[k].to(at::kDouble).t());
        g = k == 0 ? own : g + own;
        product = k == 0 ? pulled : product + pulled;
    }
    return at::linalg_solve(g, product).t();
}

TEST(RegMean, IsTheRegressionOfEveryLinearLayer) {
    const Round round = make_round("mlp", 3);
    const auto merged = fuse(round, "regmean(samples=0, shrink=0.8)", 2).merged;
    std::vector<at::Tensor> inputs, hidden, first, second;
    for (std::size_t k = 0; k < 3; ++k) {
        const auto& model = round.updates[k].parameters;
        const at::Tensor x = inputs_of(round.graph, *round.client_samples[k]);
        inputs.push_back(x.flatten(1));
        hidden.push_back(model::forward(round.graph, model::views(model), x, model::Mode::evaluate, {}, 1));
        first.push_back(model.view("layers.0.weight"));
        second.push_back(model.view("layers.1.weight"));
    }
    EXPECT_LT(largest_difference(merged.view("layers.0.weight"), slow_regression(inputs, first, 0.8)), 1e-3);
    // Units that never fire leave their weights undetermined: compare what the layer makes of what it reads.
    const at::Tensor expected = slow_regression(hidden, second, 0.8);
    for (const auto& rows : hidden) {
        const at::Tensor ours =
            at::mm(rows.to(at::kDouble), merged.view("layers.1.weight").to(at::kDouble).t());
        const at::Tensor theirs = at::mm(rows.to(at::kDouble), expected.t());
        EXPECT_LT(largest_difference(ours, theirs), 1e-2 * theirs.abs().max().item<double>());
    }
    const auto mean = fuse(round, "mean").merged;
    EXPECT_TRUE(at::equal(merged.view("layers.0.bias"), mean.view("layers.0.bias")));
}

TEST(RegMean, TreatsConvolutionsByTheirPatches) {
    // With one model's weights for all clients nothing changes; with inputs that do not depend on the client, the first
    // layer's regression is the mean of the weights.
    Round round = make_round("cnn", 3);
    for (auto& samples : round.client_samples) samples = round.client_samples.front();
    const auto merged = fuse(round, "regmean(samples=0, shrink=0.9)", 2).merged;
    const auto mean = fuse(round, "mean(weights=uniform)").merged;
    EXPECT_LT(largest_difference(merged.view("conv.0.weight"), mean.view("conv.0.weight")), 1e-4);
}

}  // namespace
}  // namespace thalweg::testing::informed_reductions_test
