#include "thalweg/aggregator/server_optimizer.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "thalweg/core/error.hpp"
#include "unit/aggregator/fusion_fixture.hpp"

namespace thalweg::testing::server_optimizers_test {
namespace {

std::unique_ptr<aggregator::ServerOptimizer> make(const std::string& yaml) {
    return core::Registry<std::unique_ptr<aggregator::ServerOptimizer>>::make(
        core::resolve_plugin("server_optimizer", "kind", core::parse_yaml(yaml, "test"), "server.optimizer"));
}

/// One coordinate through the rounds, by the formulas of Hsu et al. and Reddi et al.
struct Scalar {
    std::string kind;
    double m = 0, v = 1e-6;
    double step(double x, double fused) {
        const double delta = fused - x, square = delta * delta;
        if (kind == "fedavgm") {
            m = 0.9 * m + delta;
            return x + 0.5 * m;
        }
        m = 0.8 * m + 0.2 * delta;
        if (kind == "fedadagrad") v += square;
        if (kind == "fedadam") v = 0.95 * v + 0.05 * square;
        if (kind == "fedyogi") v -= 0.05 * square * (v > square ? 1 : v < square ? -1 : 0);
        return x + 0.1 * m / (std::sqrt(v) + 1e-3);
    }
};

const std::vector<std::pair<std::string, std::string>> optimizers{
    {"fedavgm", "{kind: fedavgm, lr: 0.5, momentum: 0.9}"},
    {"fedadagrad", "{kind: fedadagrad, lr: 0.1, beta1: 0.8, tau: 0.001}"},
    {"fedadam", "{kind: fedadam, lr: 0.1, beta1: 0.8, beta2: 0.95, tau: 0.001}"},
    {"fedyogi", "{kind: fedyogi, lr: 0.1, beta1: 0.8, beta2: 0.95, tau: 0.001}"}};

TEST(ServerOptimizers, FollowTheirFormulas) {
    const auto graph = make_graph("cnn_batch_norm");
    const std::int64_t n = graph.layout->trainable_size();
    for (const auto& [kind, yaml] : optimizers) {
        const auto optimizer = make(yaml);
        auto global = random_model(graph, 1);
        std::vector<Scalar> expected(3, Scalar{kind});
        std::vector<double> x;
        for (std::size_t i = 0; i < 3; ++i)
            x.push_back(global.values[static_cast<std::int64_t>(i) * 7].item<double>());
        for (std::uint64_t round = 2; round < 7; ++round) {
            const auto fused = random_model(graph, round);
            global = optimizer->step(global, fused);
            for (std::size_t i = 0; i < 3; ++i) {
                const auto at = static_cast<std::int64_t>(i) * 7;
                x[i] = expected[i].step(x[i], fused.values[at].item<double>());
                EXPECT_NEAR(global.values[at].item<double>(), x[i], 1e-5) << kind << ", round " << round;
                x[i] = global.values[at].item<double>();
            }
            EXPECT_TRUE(at::equal(global.values.slice(0, n, graph.layout->size()),
                                  fused.values.slice(0, n, graph.layout->size())))
                << "running statistics are the fused model's";
        }
    }
}

TEST(ServerOptimizers, TakeTheFusedModelWhereThereIsNoGlobalOne) {
    const auto graph = make_graph("mlp");
    for (const auto& [kind, yaml] : optimizers)
        EXPECT_TRUE(same_bits(make(yaml)->step({}, random_model(graph, 1)), random_model(graph, 1))) << kind;
}

TEST(ServerOptimizers, GoOnToTheBitFromTheirMemory) {
    const auto graph = make_graph("mlp");
    for (const auto& [kind, yaml] : optimizers) {
        const auto whole = make(yaml), first = make(yaml), second = make(yaml);
        auto a = random_model(graph, 1), b = a;
        for (std::uint64_t round = 2; round < 5; ++round) {
            a = whole->step(a, random_model(graph, round));
            b = first->step(b, random_model(graph, round));
        }
        EXPECT_TRUE(first->keeps_memory());
        second->remember(first->memory());
        EXPECT_TRUE(
            same_bits(whole->step(a, random_model(graph, 9)), second->step(b, random_model(graph, 9))))
            << kind;
    }
}

TEST(ServerOptimizers, RefuseAnothersMemory) {
    const auto graph = make_graph("mlp");
    const auto adam = make("fedadam"), momentum = make("fedavgm"), none = make("none");
    adam->step(random_model(graph, 1), random_model(graph, 2));
    EXPECT_THROW(momentum->remember(adam->memory()), core::RunError);
    EXPECT_THROW(none->remember(adam->memory()), core::RunError);
    momentum->remember({});
    const auto other = make_graph("cnn");
    const auto narrow = make("fedadam");
    narrow->remember(adam->memory());
    EXPECT_THROW(narrow->step(random_model(other, 1), random_model(other, 2)), core::RunError);
}

}  // namespace
}  // namespace thalweg::testing::server_optimizers_test
