#include "thalweg/analysis/surface.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <cmath>

#include "models.hpp"
#include "thalweg/core/error.hpp"
#include "unit/support/memory_samples.hpp"
#include "unit/support/thread_communicator.hpp"

namespace thalweg::analysis::surface_test {
namespace {

using ::testing::HasSubstr;
using thalweg::testing::mlp;
using thalweg::testing::random_parameters;
using thalweg::testing::random_samples;
using thalweg::testing::run_ranks;

struct ThreeModels {
    model::ModelGraph graph = mlp(6, {8}, 3, true);
    model::Parameters a = random_parameters(graph, 1), b = random_parameters(graph, 2),
                      c = random_parameters(graph, 3);
    std::shared_ptr<data::SampleSet> samples = random_samples(600, 6, 3);
};

double distance(const model::Parameters& one, const model::Parameters& other) {
    return (one.trainable().to(at::kDouble) - other.trainable().to(at::kDouble)).norm().item<double>();
}

TEST(PlaneThrough, HasTheModelsAtTheirCoordinates) {
    const ThreeModels models;
    const auto plane = plane_through(models.a, models.b, models.c);
    ASSERT_EQ(plane.marks.size(), 3u);
    for (std::size_t i = 0; i < 3; ++i) {
        const auto point = plane.at(plane.marks[i].x, plane.marks[i].y);
        EXPECT_TRUE(at::allclose(point.values, plane.models[i].values, 1e-5, 1e-6)) << i;
    }
    // Coordinates are lengths.
    const auto apart = [&](std::size_t i, std::size_t j) {
        return std::hypot(plane.marks[i].x - plane.marks[j].x, plane.marks[i].y - plane.marks[j].y);
    };
    EXPECT_NEAR(apart(0, 1), distance(models.a, models.b), 1e-9);
    EXPECT_NEAR(apart(0, 2), distance(models.a, models.c), 1e-9);
    EXPECT_NEAR(apart(1, 2), distance(models.b, models.c), 1e-9);
    EXPECT_EQ(plane.marks[1].y, 0);
    EXPECT_GT(plane.marks[2].y, 0);
    // Far outside the triangle a running variance would be negative.
    const auto far = plane.at(-5 * plane.marks[1].x, -5 * plane.marks[2].y);
    EXPECT_GE(far.view("norms.0.running_var").min().item<double>(), 0);
}

TEST(PlaneThrough, RefusesALine) {
    const ThreeModels models;
    const auto message = [&](const model::Parameters& b, const model::Parameters& c) -> std::string {
        try {
            plane_through(models.a, b, c);
        } catch (const core::RunError& error) {
            return error.what();
        }
        return "no error";
    };
    EXPECT_THAT(message(models.b, models.b), HasSubstr("on one line"));
    EXPECT_THAT(message(models.a, models.b), HasSubstr("on one line"));
    EXPECT_THAT(message(models.b, models.a), HasSubstr("on one line"));
    EXPECT_THAT(message(models.b, interpolate(models.a, models.b, 0.3)), HasSubstr("on one line"));
    EXPECT_THAT(message(models.b, random_parameters(mlp(6, {9}, 3, true), 1)), HasSubstr("one architecture"));
}

TEST(RandomPlane, IsFilterNormalised) {
    const ThreeModels models;
    const auto plane = random_plane(models.graph, models.a, 1);
    const auto weight = models.a.view("layers.0.weight");
    for (const auto* axis : {&plane.first, &plane.second}) {
        const auto& entry = models.graph.layout->entries()[*models.graph.layout->find("layers.0.weight")];
        const auto piece = axis->narrow(0, entry.offset, entry.size).view(entry.shape);
        for (std::int64_t row = 0; row < 8; ++row) {
            EXPECT_NEAR(piece[row].norm().item<double>(), weight[row].to(at::kDouble).norm().item<double>(),
                        1e-9);
        }
    }
    EXPECT_FALSE(at::equal(plane.first, plane.second));
    EXPECT_TRUE(at::equal(plane.at(0, 0).values, models.a.values));
}

TEST(Surface, IsTheEvaluationOfThePlanesPoints) {
    const ThreeModels models;
    const auto plane = plane_through(models.a, models.b, models.c);
    core::SelfCommunicator alone;
    const auto grid = surface(models.graph, plane, *models.samples, {.columns = 5, .rows = 4, .margin = 0.5},
                              nullptr, alone);
    ASSERT_EQ(grid.x.size(), 5u);
    ASSERT_EQ(grid.y.size(), 4u);
    ASSERT_EQ(grid.loss.size(), 4u);
    const double left = std::min(0.0, plane.marks[2].x), right = std::max(plane.marks[1].x, plane.marks[2].x);
    EXPECT_NEAR(grid.x.front(), left - 0.5 * (right - left), 1e-9);
    EXPECT_NEAR(grid.y.back(), 1.5 * plane.marks[2].y, 1e-9);
    for (std::size_t r = 0; r < 4; ++r) {
        for (std::size_t c = 0; c < 5; ++c) {
            const auto here = evaluate_alone(models.graph, plane.at(grid.x[c], grid.y[r]), *models.samples);
            EXPECT_EQ(grid.accuracy[r][c], here.accuracy);
            if (!std::isnan(here.loss)) {
                EXPECT_EQ(grid.loss[r][c], here.loss);
            }
        }
    }
    for (std::size_t i = 0; i < 3; ++i) {
        const auto own = evaluate_alone(models.graph, plane.models[i], *models.samples);
        EXPECT_EQ(grid.marks[i].evaluation.loss, own.loss);
        const auto there =
            evaluate_alone(models.graph, plane.at(grid.marks[i].x, grid.marks[i].y), *models.samples);
        EXPECT_NEAR(there.loss, own.loss, 1e-4);
    }
}

TEST(Surface, TheSameBitsOnAnyNumberOfRanksWithFreshNormsToo) {
    const ThreeModels models;
    const auto calibration = random_samples(300, 6, 3, 2);
    core::SelfCommunicator alone;
    std::vector<double> losses;
    for (const bool fresh : {false, true}) {
        const SurfaceOptions options{.columns = 4, .rows = 3, .reset_batch_norm = fresh};
        const auto plane = random_plane(models.graph, models.a, 1);
        const auto expected = surface(models.graph, plane, *models.samples, options, calibration, alone);
        EXPECT_EQ(expected.x.front(), -1);
        EXPECT_EQ(expected.y.back(), 1);
        run_ranks(3, [&](core::Communicator& communicator) {
            const auto mine =
                surface(models.graph, plane, *models.samples, options, calibration, communicator);
            EXPECT_EQ(mine.loss, expected.loss);
            EXPECT_EQ(mine.accuracy, expected.accuracy);
            EXPECT_EQ(mine.marks.front().evaluation.loss, expected.marks.front().evaluation.loss);
        });
        losses.push_back(expected.loss[0][0]);
    }
    EXPECT_NE(losses[0], losses[1]);
}

TEST(Surface, RefusesWhatMakesNoGrid) {
    const ThreeModels models;
    const auto plane = random_plane(models.graph, models.a, 1);
    core::SelfCommunicator alone;
    const auto call = [&](const SurfaceOptions& options) {
        surface(models.graph, plane, *models.samples, options, nullptr, alone);
    };
    EXPECT_THROW(call({.columns = 1}), core::UsageError);
    EXPECT_THROW(call({.rows = 0}), core::UsageError);
    EXPECT_THROW(call({.range = 0}), core::UsageError);
    EXPECT_THROW(call({.margin = -1}), core::UsageError);
    EXPECT_THROW(call({.reset_batch_norm = true}), core::UsageError);
}

}  // namespace
}  // namespace thalweg::analysis::surface_test
