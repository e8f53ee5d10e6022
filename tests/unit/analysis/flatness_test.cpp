#include "thalweg/analysis/flatness.hpp"

#include <gtest/gtest.h>
#include <torch/types.h>

#include <cmath>
#include <limits>

#include "models.hpp"
#include "thalweg/core/error.hpp"
#include "unit/support/memory_samples.hpp"
#include "unit/support/thread_communicator.hpp"

namespace thalweg::analysis::flatness_test {
namespace {

using thalweg::testing::linear_model;
using thalweg::testing::MemorySamples;
using thalweg::testing::mlp;
using thalweg::testing::random_parameters;
using thalweg::testing::random_samples;
using thalweg::testing::run_ranks;

TEST(LocalEnergy, NothingWithoutNoiseAndTheSameOnAnyNumberOfRanks) {
    const auto graph = mlp(6, {8, 7}, 3, true);
    const auto parameters = random_parameters(graph, 1);
    const auto samples = random_samples(600, 6, 3);
    LocalEnergy first;
    for (const int ranks : {1, 3}) {
        run_ranks(ranks, [&](core::Communicator& communicator) {
            const auto found = local_energy(graph, parameters, *samples, {0, 0.1, 0.5}, 4, 9, communicator);
            if (communicator.rank() != 0) return;
            EXPECT_EQ(found.points[0].energy, 0);
            EXPECT_EQ(found.points[0].loss_rise, 0);
            EXPECT_EQ(found.points[0].standard_error, 0);
            for (std::size_t i = 0; i < 3; ++i) {
                ASSERT_EQ(found.points[i].errors.size(), 4u);
                if (ranks > 1) {
                    EXPECT_EQ(found.points[i].errors, first.points[i].errors);
                }
            }
            first = found;
        });
    }
}

TEST(LocalEnergy, OfOneWeightIsTheChanceThatItsSignTurns) {
    // Logits (θx, 0) of x > 0: right as long as 1 + σz > 0.
    const auto graph = linear_model(1, 2);
    const model::Parameters parameters(graph.layout);
    thalweg::testing::set(parameters, "layers.0.weight", {2, 0});
    const MemorySamples samples(1, {1}, {0});
    core::SelfCommunicator alone;
    const auto found = local_energy(graph, parameters, samples, {0.2, 1, 2}, 4000, 1, alone);
    const auto chance = [](double sigma) { return 0.5 * std::erfc(1 / sigma / std::sqrt(2.0)); };
    for (const auto& point : found.points) {
        EXPECT_NEAR(point.energy, chance(point.sigma), 4 * point.standard_error + 1e-5);
    }
    EXPECT_NEAR(found.points[1].standard_error, std::sqrt(0.1587 * 0.8413 / 4000), 1e-3);
}

TEST(LocalEnergy, SaysWhatIsWrong) {
    const auto graph = linear_model(3, 2);
    const auto parameters = random_parameters(graph, 1);
    const auto samples = random_samples(10, 3, 2);
    core::SelfCommunicator alone;
    const auto energy = [&](const std::vector<double>& sigmas, std::int64_t repeats) {
        return local_energy(graph, parameters, *samples, sigmas, repeats, 1, alone);
    };
    EXPECT_THROW(energy({}, 1), core::UsageError);
    EXPECT_THROW(energy({-0.1}, 1), core::UsageError);
    EXPECT_THROW(energy({std::numeric_limits<double>::quiet_NaN()}, 1), core::UsageError);
    EXPECT_THROW(energy({0.1}, 0), core::UsageError);
    EXPECT_TRUE(std::isnan(energy({0.1}, 1).points[0].standard_error));
}

}  // namespace
}  // namespace thalweg::analysis::flatness_test
