// REPAIR in one pass and in closed form, beside the sequential one.
#include <gmock/gmock.h>

#include <cmath>

#include "thalweg/core/error.hpp"
#include "unit/aggregator/fusion_fixture.hpp"

namespace thalweg::testing::repair_methods_test {
namespace {

using namespace aggregator;

/// Largest relative error of the merged model's deviations against Σ w σ_k, over all repaired layers; on the hold-out.
double deviation_error(const Round& round, const model::Parameters& merged) {
    const auto operations = repaired_operations(round.graph, {});
    const at::Tensor x = inputs_of(round.graph, *round.holdout);
    double worst = 0;
    for (const std::size_t operation : operations) {
        at::Tensor wanted;
        for (const auto& update : round.updates) {
            const at::Tensor own =
                channel_moments(round.graph, update.parameters, x, operation).second.sqrt() /
                static_cast<double>(round.updates.size());
            wanted = wanted.defined() ? wanted + own : own;
        }
        const at::Tensor now = channel_moments(round.graph, merged, x, operation).second.sqrt();
        worst = std::max(worst, ((now / wanted) - 1).abs().max().item<double>());
    }
    return worst;
}

TEST(OnePassRepair, GivesEveryLayerTheEndsDeviations) {
    for (const std::string architecture : {"mlp", "cnn", "mlp_layer_norm"}) {
        Round round = make_round(architecture, 3);
        const double before = deviation_error(round, fuse(round, "mean(weights=uniform)").merged);
        const double one_pass = deviation_error(
            round, fuse(round, "mean(weights=uniform)+repair(method=one_pass, residual=false)", 2).merged);
        const double sequential =
            deviation_error(round, fuse(round, "mean(weights=uniform)+repair(residual=false)", 2).merged);
        EXPECT_LT(sequential, 0.02) << architecture;
        // Chunks' own moments differ a little from all samples'.
        EXPECT_LT(one_pass, 0.1) << architecture;
        EXPECT_GT(before, 3 * one_pass) << architecture;
    }
}

TEST(OnePassRepair, IsTheSequentialOneWhereAllSamplesAreOneChunk) {
    // With one chunk, what later layers see in the pass is exactly what they see after the layers before are folded.
    Round round = make_round("mlp", 3);
    round.holdout = random_samples(400, 12, 4, 7);
    const auto sequential = fuse(round, "mean+repair(residual=false)", 2).merged;
    const auto one_pass = fuse(round, "mean+repair(method=one_pass, residual=false)", 2).merged;
    EXPECT_LT(largest_difference(sequential.values, one_pass.values), 1e-4);
}

TEST(OnePassRepair, RecomputesBatchNorms) {
    Round round = make_round("cnn_batch_norm", 3);
    round.holdout = random_samples(75, 128, 4, 7);  // one chunk
    const auto sequential = fuse(round, "mean+repair", 2),
               one_pass = fuse(round, "mean+repair(method=one_pass)", 2);
    EXPECT_LT(largest_difference(sequential.merged.values, one_pass.merged.values), 1e-3);
}

TEST(ClosedFormRepair, PredictsTheFirstLayerExactly) {
    // The first layer's pre-activations of the merged model are the ends' mean, whatever follows.
    const Round round = make_round("mlp", 3);
    const auto merged = fuse(round, "mean(weights=uniform)+repair(method=closed_form)", 2).merged;
    const at::Tensor x = inputs_of(round.graph, *round.holdout);
    const std::size_t first = round.graph.affine_operations().front();
    at::Tensor wanted, mean;
    for (const auto& update : round.updates) {
        const auto [m, v] = channel_moments(round.graph, update.parameters, x, first);
        wanted = wanted.defined() ? wanted + v.sqrt() / 3 : v.sqrt() / 3;
        mean = mean.defined() ? mean + m / 3 : m / 3;
    }
    const auto [m, v] = channel_moments(round.graph, merged, x, first);
    EXPECT_LT(largest_difference(v.sqrt(), wanted), 1e-4);
    EXPECT_LT(largest_difference(m, mean), 1e-4);
}

TEST(ClosedFormRepair, OfTwoModelsIsTheCorrelationFormula) {
    const Round round = make_round("mlp", 2);
    const at::Tensor x = inputs_of(round.graph, *round.holdout);
    const std::size_t second = round.graph.affine_operations()[1];
    const auto values = [&](std::size_t k) {
        return model::forward(round.graph, model::views(round.updates[k].parameters), x,
                              model::Mode::evaluate, {}, second)
            .to(at::kDouble);
    };
    const at::Tensor a = values(0), b = values(1);
    const at::Tensor sa = a.var(0, false).sqrt(), sb = b.var(0, false).sqrt();
    const at::Tensor rho = ((a - a.mean(0)) * (b - b.mean(0))).mean(0) / (sa * sb);
    const at::Tensor factor = (sa + sb) / 2 / ((sa.square() + sb.square() + 2 * rho * sa * sb) / 4).sqrt();
    const auto plain = fuse(round, "mean(weights=uniform)").merged;
    const auto repaired = fuse(round, "mean(weights=uniform)+repair(method=closed_form)", 2).merged;
    const at::Tensor expected = plain.view("layers.1.weight").to(at::kDouble) * factor.unsqueeze(1);
    const at::Tensor alive = factor.isfinite().unsqueeze(1);
    EXPECT_LT(largest_difference(repaired.view("layers.1.weight") * alive,
                                 at::where(alive, expected, at::zeros_like(expected))),
              1e-4 * expected.abs().max().item<double>());
}

TEST(Repair, RefusesMethodsAndNoiseThatDoNotFit) {
    const auto refusal = [](const std::string& stage) {
        try {
            Pipeline::parse("mean+" + stage);
        } catch (const core::UsageError& error) {
            return std::string(error.what());
        }
        return std::string();
    };
    EXPECT_THAT(refusal("repair(method=closed_form, statistics=clients)"),
                ::testing::HasSubstr("statistics: server"));
    EXPECT_THAT(refusal("repair(noise=0.1)"), ::testing::HasSubstr("clients"));
    EXPECT_EQ(refusal("repair(noise=0.1, statistics=clients)"), "");
}

TEST(Repair, WithNoiseDiffersALittleAndRepeats) {
    const Round round = make_round("mlp", 3);
    const auto plain = fuse(round, "mean+repair(statistics=clients)").merged;
    const auto noisy = fuse(round, "mean+repair(statistics=clients, noise=0.01)", 1).merged;
    EXPECT_TRUE(same_bits(noisy, fuse(round, "mean+repair(statistics=clients, noise=0.01)", 3).merged));
    EXPECT_FALSE(same_bits(noisy, plain));
    const double size = plain.values.norm().item<double>();
    EXPECT_LT((noisy.values - plain.values).norm().item<double>(), 0.1 * size);
}

TEST(Repair, SaysHowManySamplesItsStatisticsAreOf) {
    const Round round = make_round("mlp", 3);
    const auto samples = [&](const std::string& stage) {
        const auto fused = fuse(round, "mean+" + stage, 2);
        for (const auto& [name, value] : fused.reports.back().notes) {
            if (name == "samples") return value;
        }
        return -1.0;
    };
    EXPECT_EQ(samples("repair"), 1100);
    EXPECT_EQ(samples("repair(samples=100)"), 100);
    double all = 0;
    for (const auto& part : round.client_samples) all += static_cast<double>(part->size());
    EXPECT_EQ(samples("repair(statistics=clients)"), all);
}

}  // namespace
}  // namespace thalweg::testing::repair_methods_test
