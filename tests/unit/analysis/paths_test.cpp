#include "thalweg/analysis/paths.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <algorithm>
#include <cmath>

#include "models.hpp"
#include "thalweg/aggregator/spheres.hpp"
#include "thalweg/core/error.hpp"
#include "unit/support/memory_samples.hpp"
#include "unit/support/thread_communicator.hpp"

namespace thalweg::analysis::paths_test {
namespace {

using ::testing::HasSubstr;
using thalweg::testing::linear_model;
using thalweg::testing::MemorySamples;
using thalweg::testing::mlp;
using thalweg::testing::random_parameters;
using thalweg::testing::random_samples;
using thalweg::testing::run_ranks;
using thalweg::testing::set;

at::Tensor wide(const model::Parameters& parameters) {
    return parameters.values.to(at::kDouble);
}

template <class Call>
std::string message(Call&& call) {
    try {
        call();
    } catch (const core::Error& error) {
        return error.what();
    }
    return "no error";
}

TEST(LinePath, IsInterpolationBitForBit) {
    const auto graph = mlp(3, {4}, 2, true);
    const auto a = random_parameters(graph, 1), b = random_parameters(graph, 2);
    const auto path = line_path(a, b);
    for (const double t : {0.0, 0.3, 0.5, 1.0})
        EXPECT_TRUE(at::equal(path->at(t).values, interpolate(a, b, t).values));
    EXPECT_EQ(path->name(), "line");
    EXPECT_THAT(message([&] { line_path(a, random_parameters(mlp(3, {5}, 2, true), 1)); }),
                HasSubstr("different architectures"));
}

TEST(BentPaths, GoThroughTheirPoints) {
    const auto graph = mlp(3, {4}, 2);
    const auto a = random_parameters(graph, 1), c = random_parameters(graph, 3),
               b = random_parameters(graph, 2);
    const auto bezier = bezier_path(a, c, b), polygon = polygon_path(a, c, b);
    for (const auto* path : {bezier.get(), polygon.get()}) {
        EXPECT_TRUE(at::equal(path->at(0).values, a.values));
        EXPECT_TRUE(at::equal(path->at(1).values, b.values));
    }
    EXPECT_TRUE(at::equal(polygon->at(0.5).values, c.values));
    const auto near = [](const model::Parameters& point, const at::Tensor& expected) {
        return at::allclose(wide(point), expected, 1e-6, 1e-7);
    };
    EXPECT_TRUE(near(bezier->at(0.5), 0.25 * wide(a) + 0.5 * wide(c) + 0.25 * wide(b)));
    EXPECT_TRUE(near(bezier->at(0.2), 0.64 * wide(a) + 0.32 * wide(c) + 0.04 * wide(b)));
    EXPECT_TRUE(near(polygon->at(0.25), 0.5 * wide(a) + 0.5 * wide(c)));
    EXPECT_TRUE(near(polygon->at(0.75), 0.5 * wide(c) + 0.5 * wide(b)));
    // A control point in the middle of the line leaves the line.
    EXPECT_TRUE(near(bezier_path(a, interpolate(a, b, 0.5), b)->at(0.3), wide(interpolate(a, b, 0.3))));
    EXPECT_THROW(bezier_path(a, random_parameters(mlp(3, {5}, 2), 1), b), core::RunError);
    EXPECT_THROW(polygon_path(a, c, random_parameters(mlp(3, {5}, 2), 1)), core::RunError);
}

/// Length of every unit's vector; the classifier's last.
std::vector<double> lengths(const aggregator::Spheres& spheres, const model::Parameters& model) {
    std::vector<double> squares(static_cast<std::size_t>(spheres.units()) + 1);
    const auto* unit = spheres.unit_of().data_ptr<std::int64_t>();
    for (std::int64_t i = 0; i < spheres.unit_of().numel(); ++i) {
        const double value = model.data()[i];
        if (unit[i] >= 0) squares[static_cast<std::size_t>(unit[i])] += value * value;
    }
    for (double& square : squares) square = std::sqrt(square);
    return squares;
}

TEST(GeodesicPath, KeepsDecisionsAtItsEndsAndLengthsAlongTheWay) {
    for (const bool batch_norm : {false, true}) {
        const auto graph = mlp(6, {8, 7}, 3, batch_norm);
        const auto a = random_parameters(graph, 1), b = random_parameters(graph, 2);
        const auto samples = random_samples(300, 6, 3);
        const auto path = geodesic_path(graph, a, b);
        EXPECT_EQ(path->folds_norms(), batch_norm);
        for (const auto& [t, model] : {std::pair{0.0, a}, std::pair{1.0, b}}) {
            const auto before = logits(graph, model, *samples), after = logits(graph, path->at(t), *samples);
            EXPECT_TRUE(at::equal(before.argmax(1), after.argmax(1)));
            // One positive factor on all logits.
            const double factor = (after.norm() / before.norm()).item<double>();
            EXPECT_TRUE(at::allclose(after, before * factor, 1e-4, 1e-5 * after.abs().max().item<double>()));
        }
        const aggregator::Spheres spheres(graph);
        for (const double t : {0.0, 0.1, 0.5, 0.77, 1.0}) {
            for (const double length : lengths(spheres, path->at(t))) EXPECT_NEAR(length, 1, 1e-5) << t;
        }
    }
}

TEST(GeodesicPath, OfTwoDirectionsIsTheArcBetweenThem) {
    // One hidden unit that turns from (1, 0) to (0, 1); its bias is 0.
    const auto graph = mlp(2, {1}, 2);
    auto a = random_parameters(graph, 1), b = a.clone();
    set(a, "layers.0.weight", {3, 0});
    set(b, "layers.0.weight", {0, 0.5});
    set(a, "layers.0.bias", {0});
    set(b, "layers.0.bias", {0});
    const auto path = geodesic_path(graph, a, b);
    for (const double t : {0.25, 0.5, 0.8}) {
        const auto weight = path->at(t).view("layers.0.weight").flatten();
        EXPECT_NEAR(weight[0].item<double>(), std::cos(t * M_PI / 2), 1e-6);
        EXPECT_NEAR(weight[1].item<double>(), std::sin(t * M_PI / 2), 1e-6);
    }
    // Opposite directions have no shortest way between them: a line.
    set(b, "layers.0.weight", {-2, 0});
    EXPECT_NEAR(geodesic_path(graph, a, b)->at(0.25).view("layers.0.weight")[0][0].item<double>(), 0.5, 1e-6);
}

TEST(GeodesicPath, NeedsUnitsThatCanBeRescaled) {
    model::GraphBuilder builder({3});
    const int hidden = builder.activation(builder.linear("layers.0", 0, 4), model::ActivationKind::gelu);
    builder.linear("head", hidden, 2);
    const auto graph = std::move(builder).build(core::Value::map());
    const auto a = random_parameters(graph, 1);
    EXPECT_THAT(message([&] { geodesic_path(graph, a, a); }), HasSubstr("positively homogeneous"));
}

TEST(PathCurve, OfALineIsTheLinearCurve) {
    const auto graph = mlp(6, {8}, 3, true);
    const auto a = random_parameters(graph, 1), b = random_parameters(graph, 2);
    const auto samples = random_samples(600, 6, 3), calibration = random_samples(200, 6, 3, 2);
    core::SelfCommunicator alone;
    for (const std::string finish : {"none", "repair"}) {
        const CurveOptions options{.points = 5, .finish = finish};
        const std::vector<Split> splits{{"test", samples.get()}};
        const auto line = linear_curve(graph, a, b, splits, options, calibration, alone);
        const auto path = path_curve(graph, *line_path(a, b), splits, options, calibration, alone);
        EXPECT_EQ(path.splits.front().second.loss, line.splits.front().second.loss);
        EXPECT_EQ(path.variance_ratio, line.variance_ratio);
    }
}

TEST(PathCurve, MeasuresTheModelsOfThePathOnAnyNumberOfRanks) {
    const auto graph = mlp(6, {8}, 3, true);
    const auto a = random_parameters(graph, 1), b = random_parameters(graph, 2);
    const auto samples = random_samples(1200, 6, 3), calibration = random_samples(300, 6, 3, 2);
    const auto bent = bezier_path(a, random_parameters(graph, 3), b);
    const auto arc = geodesic_path(graph, a, b);
    for (const auto* path : {bent.get(), arc.get()}) {
        run_ranks(3, [&](core::Communicator& communicator) {
            const auto curve =
                path_curve(graph, *path, {{"test", samples.get()}}, {.points = 4}, calibration, communicator);
            for (std::size_t p = 0; p < 4; ++p) {
                EXPECT_EQ(curve.splits.front().second.loss[p],
                          evaluate_alone(graph, path->at(curve.lambdas[p]), *samples).loss);
            }
            EXPECT_EQ(curve.variance_ratio.size(), 1u);
        });
    }
    core::SelfCommunicator alone;
    EXPECT_THAT(message([&] {
                    path_curve(graph, *arc, {{"test", samples.get()}},
                               {.points = 3, .finish = "reset_batch_norm"}, calibration, alone);
                }),
                HasSubstr("folds batch norms"));
}

/// Clouds round (±1, ±1); the label says whether the signs agree: exclusive or, which no line tells apart.
std::shared_ptr<MemorySamples> exclusive_or(std::int64_t count) {
    core::Random random(5, "exclusive or");
    std::vector<float> x;
    std::vector<std::int64_t> labels;
    for (std::int64_t i = 0; i < count; ++i) {
        const double first = random.uniform() < 0.5 ? -1 : 1, second = random.uniform() < 0.5 ? -1 : 1;
        x.push_back(static_cast<float>(first + 0.1 * random.normal()));
        x.push_back(static_cast<float>(second + 0.1 * random.normal()));
        labels.push_back(first == second ? 1 : 0);
    }
    return std::make_shared<MemorySamples>(2, std::move(x), std::move(labels));
}

/// Units relu(x + y − 1) and relu(−x − y − 1) see that the signs agree; `spare` units are dead.
model::Parameters agreeing(const model::ModelGraph& graph, bool exchanged) {
    model::Parameters model(graph.layout);
    const at::Tensor weight = model.view("layers.0.weight"), head = model.view("head.weight");
    const std::int64_t first = exchanged ? 1 : 0;
    weight[first].fill_(3);
    weight[1 - first].fill_(-3);
    model.view("layers.0.bias").narrow(0, 0, 2).fill_(-3);
    for (std::int64_t unit = 0; unit < 2; ++unit) {
        head[0][unit].fill_(-2);
        head[1][unit].fill_(2);
    }
    model.view("head.bias").copy_(at::tensor({3.0F, -3.0F}));
    return model;
}

TEST(TrainBend, GoesRoundAPlantedBarrier) {
    const auto graph = mlp(2, {6}, 2);
    const auto a = agreeing(graph, false), b = agreeing(graph, true);
    // Something for the dead units to start from.
    core::Random random(1, "spare units");
    for (const auto& model : {a, b}) {
        for (std::int64_t unit = 2; unit < 6; ++unit) {
            model.view("layers.0.weight")[unit].copy_(
                at::tensor({float(random.normal()), float(random.normal())}));
            model.view("head.weight")[0][unit].fill_(0.01 * random.normal());
        }
    }
    const auto samples = exclusive_or(400);
    core::SelfCommunicator alone;
    const std::vector<Split> splits{{"train", samples.get()}};
    const CurveOptions options{.points = 11};
    const double line =
        linear_curve(graph, a, b, splits, options, nullptr, alone).splits.front().second.loss_barrier;
    EXPECT_GT(line, 0.3);  // in the middle the two units are dead
    for (const std::string kind : {"bezier", "polygon"}) {
        const auto bend =
            train_bend(graph, a, b, kind, *samples, {.epochs = 60, .batch_size = 40, .lr = 0.1}, 1);
        const auto path = kind == "bezier" ? bezier_path(a, bend, b) : polygon_path(a, bend, b);
        const double bent =
            path_curve(graph, *path, splits, options, nullptr, alone).splits.front().second.loss_barrier;
        EXPECT_LT(bent, 0.2 * line) << kind;
        const auto again =
            train_bend(graph, a, b, kind, *samples, {.epochs = 60, .batch_size = 40, .lr = 0.1}, 1);
        EXPECT_TRUE(at::equal(again.values, bend.values));
        EXPECT_FALSE(
            at::equal(train_bend(graph, a, b, kind, *samples, {.epochs = 1, .batch_size = 40}, 1).values,
                      train_bend(graph, a, b, kind, *samples, {.epochs = 1, .batch_size = 40}, 2).values));
    }
}

TEST(TrainBend, LeavesTheEndsAloneAndSaysWhatIsWrong) {
    const auto graph = mlp(2, {4}, 2, true);
    const auto a = random_parameters(graph, 1), b = random_parameters(graph, 2);
    const auto samples = exclusive_or(41);  // batches of 40 and 1, of which a batch norm cannot take the last
    const auto bend = train_bend(graph, a, b, "bezier", *samples, {.epochs = 2, .batch_size = 40}, 1);
    EXPECT_FALSE(bend.first_non_finite().has_value());
    EXPECT_TRUE(at::equal(a.values, random_parameters(graph, 1).values));
    EXPECT_TRUE(at::equal(b.values, random_parameters(graph, 2).values));
    const auto refused = [&](const std::string& kind, const BendOptions& options) {
        return message([&] { train_bend(graph, a, b, kind, *samples, options, 1); });
    };
    EXPECT_THAT(refused("bezir", {}), HasSubstr("bezier"));
    EXPECT_THAT(refused("bezier", {.epochs = 0}), HasSubstr("one epoch"));
    EXPECT_THAT(refused("bezier", {.batch_size = 1}), HasSubstr("at least two samples"));
    EXPECT_THAT(refused("polygon", {.lr = 1e30}), HasSubstr("diverged"));
    EXPECT_THAT(message([&] { train_bend(graph, a, b, "bezier", *random_samples(9, 3, 2), {}, 1); }),
                HasSubstr("of 3 numbers"));
}

TEST(LayerBarriers, AreThoseOfOneLayerAtATime) {
    const auto graph = mlp(6, {8, 7}, 3, true);
    const auto a = random_parameters(graph, 1), b = random_parameters(graph, 2);
    const auto samples = random_samples(700, 6, 3);
    core::SelfCommunicator alone;
    const auto barriers = layer_barriers(graph, a, b, *samples, 5, alone);
    const std::vector<std::string> names{"layers.0", "norms.0", "layers.1", "norms.1", "head"};
    ASSERT_EQ(barriers.size(), names.size());
    const auto at_a = evaluate_alone(graph, a, *samples), at_b = evaluate_alone(graph, b, *samples);
    for (std::size_t layer = 0; layer < names.size(); ++layer) {
        EXPECT_EQ(barriers[layer].layer, names[layer]);
        double loss = 0, error = 0;
        for (const double lambda : {0.25, 0.5, 0.75, 1.0}) {
            auto mixed = a.clone();
            const auto point = interpolate(a, b, lambda);
            for (const auto& entry : graph.layout->entries()) {
                if (entry.name.starts_with(names[layer] + "."))
                    mixed.view(entry.name).copy_(point.view(entry.name));
            }
            const auto here = evaluate_alone(graph, mixed, *samples);
            loss = std::max(loss, here.loss - ((1 - lambda) * at_a.loss + lambda * at_b.loss));
            if (lambda == 0.5) {
                EXPECT_NEAR(barriers[layer].loss_at_middle, here.loss - (at_a.loss + at_b.loss) / 2, 1e-12);
                EXPECT_NEAR(barriers[layer].error_at_middle,
                            (at_a.accuracy + at_b.accuracy) / 2 - here.accuracy, 1e-12);
            }
            error = std::max(error, (1 - here.accuracy) -
                                        ((1 - lambda) * (1 - at_a.accuracy) + lambda * (1 - at_b.accuracy)));
        }
        EXPECT_NEAR(barriers[layer].loss_barrier, loss, 1e-12);
        EXPECT_NEAR(barriers[layer].error_barrier, error, 1e-12);
    }
    // The middle is looked at where the even grid leaves it out, too.
    const auto coarse = layer_barriers(graph, a, b, *samples, 2, alone);
    for (std::size_t layer = 0; layer < names.size(); ++layer)
        EXPECT_EQ(coarse[layer].loss_at_middle, barriers[layer].loss_at_middle);
    run_ranks(3, [&](core::Communicator& communicator) {
        const auto mine = layer_barriers(graph, a, b, *samples, 5, communicator);
        for (std::size_t layer = 0; layer < names.size(); ++layer) {
            EXPECT_EQ(mine[layer].loss_barrier, barriers[layer].loss_barrier);
            EXPECT_EQ(mine[layer].error_barrier, barriers[layer].error_barrier);
        }
    });
}

TEST(LayerBarriers, TakeBatchNormsAnewAtEveryPointButTheEnds) {
    const auto graph = mlp(6, {8}, 3, true);
    const auto a = random_parameters(graph, 1), b = random_parameters(graph, 2);
    const auto samples = random_samples(200, 6, 3);
    const std::shared_ptr<const data::SampleSet> calibration = random_samples(150, 6, 3, 2);
    core::SelfCommunicator alone;
    const auto plain = layer_barriers(graph, a, b, *samples, 3, alone);
    const auto fresh = layer_barriers(graph, a, b, *samples, 3, alone, calibration);
    EXPECT_NE(plain.front().loss_at_middle, fresh.front().loss_at_middle);
    // A line to A with one layer of B's, mended as lines are, has the same middle.
    const auto entry = [&](const std::string& name) {
        const auto& entries = graph.layout->entries();
        return static_cast<std::size_t>(
            std::find_if(entries.begin(), entries.end(), [&](const auto& one) { return one.name == name; }) -
            entries.begin());
    };
    auto mixed = a.clone();
    for (const auto* name : {"layers.0.weight", "layers.0.bias"})
        mixed.view(entry(name)).copy_(b.view(entry(name)));
    const auto curve = linear_curve(graph, a, mixed, {{"samples", samples.get()}},
                                    {.points = 3, .finish = "reset_batch_norm"}, calibration, alone);
    const double middle = curve.splits.front().second.loss[1];
    const double ends =
        (evaluate_alone(graph, a, *samples).loss + evaluate_alone(graph, b, *samples).loss) / 2;
    ASSERT_EQ(fresh.front().layer, "layers.0");
    EXPECT_NEAR(fresh.front().loss_at_middle, middle - ends, 1e-12);
    run_ranks(3, [&](core::Communicator& communicator) {
        const auto mine = layer_barriers(graph, a, b, *samples, 3, communicator, calibration);
        for (std::size_t layer = 0; layer < fresh.size(); ++layer)
            EXPECT_EQ(mine[layer].loss_barrier, fresh[layer].loss_barrier);
    });
}

TEST(LayerBarriers, OfOneLayerAreTheWholeBarrier) {
    const auto graph = linear_model(5, 4);
    const auto a = random_parameters(graph, 1), b = random_parameters(graph, 2);
    const auto samples = random_samples(300, 5, 4);
    core::SelfCommunicator alone;
    const auto barriers = layer_barriers(graph, a, b, *samples, 7, alone);
    ASSERT_EQ(barriers.size(), 1u);
    EXPECT_EQ(barriers.front().loss_barrier, 0);  // a convex loss
    EXPECT_NEAR(barriers.front().error_barrier, barrier(graph, a, b, *samples, 7, alone).error_barrier,
                1e-12);
    EXPECT_THROW(layer_barriers(graph, a, b, *samples, 1, alone), core::UsageError);
}

TEST(RelativeReduction, IsTheShareThatIsGone) {
    EXPECT_EQ(relative_reduction(2, 0), 1);
    EXPECT_EQ(relative_reduction(2, 0.5), 0.75);
    EXPECT_EQ(relative_reduction(1, 2), -1);
    EXPECT_TRUE(std::isnan(relative_reduction(0, 1)));
}

}  // namespace
}  // namespace thalweg::analysis::paths_test
