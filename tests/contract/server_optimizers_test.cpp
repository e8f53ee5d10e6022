#include <gtest/gtest.h>

#include "thalweg/aggregator/server_optimizer.hpp"
#include "thalweg/core/schema.hpp"
#include "unit/aggregator/fusion_fixture.hpp"

/// What every registered server optimizer must do with its default options.
namespace thalweg::testing::server_optimizers_test {
namespace {

using aggregator::ServerOptimizer;

class ServerOptimizerContract : public ::testing::TestWithParam<std::string> {
  protected:
    static std::unique_ptr<ServerOptimizer> make() {
        const auto options =
            core::resolve_plugin("server_optimizer", "kind", core::Value::of(GetParam()), "optimizer");
        return core::Registry<std::unique_ptr<ServerOptimizer>>::make(options);
    }
    model::ModelGraph graph_ = make_graph("mlp_batch_norm");
    model::Parameters model(std::uint64_t seed) const { return random_model(graph_, seed); }
};

TEST_P(ServerOptimizerContract, TakesTheFusedModelWhenThereIsNoOther) {
    EXPECT_TRUE(same_bits(make()->step({}, model(1)), model(1)));
}

TEST_P(ServerOptimizerContract, StaysWhereNothingMoves) {
    const auto optimizer = make();
    const auto next = optimizer->step(model(1), model(1));
    EXPECT_LT(largest_difference(next.values, model(1).values), 1e-6);
}

TEST_P(ServerOptimizerContract, RepeatsItself) {
    const auto one = make(), other = make();
    auto global = model(1);
    for (std::uint64_t round = 2; round < 5; ++round) {
        const auto next = one->step(global, model(round));
        EXPECT_TRUE(same_bits(next, other->step(global, model(round))));
        global = next;
    }
}

TEST_P(ServerOptimizerContract, DoesNotWriteIntoTheModelsItIsGiven) {
    const auto previous = model(1), fused = model(2);
    const auto optimizer = make();
    optimizer->step(previous, fused);
    EXPECT_TRUE(same_bits(previous, model(1)));
    EXPECT_TRUE(same_bits(fused, model(2)));
}

std::vector<std::string> names() {
    std::vector<std::string> result;
    for (const auto& plugin : core::plugins_of("server_optimizer")) result.push_back(plugin.name);
    return result;
}

INSTANTIATE_TEST_SUITE_P(Registered, ServerOptimizerContract, ::testing::ValuesIn(names()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace thalweg::testing::server_optimizers_test
