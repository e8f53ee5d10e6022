#include <gmock/gmock.h>

#include <cmath>

#include "thalweg/aggregator/spheres.hpp"
#include "thalweg/core/error.hpp"
#include "unit/aggregator/fusion_fixture.hpp"

namespace thalweg::testing::toroid_test {
namespace {

using aggregator::Spheres;

/// Lengths of all vectors, by unit; the classifier's last.
std::vector<double> lengths(const Spheres& spheres, const model::Parameters& model) {
    std::vector<double> squares(static_cast<std::size_t>(spheres.units()) + 1, 0.0);
    const auto* unit = spheres.unit_of().data_ptr<std::int64_t>();
    for (std::int64_t i = 0; i < spheres.unit_of().numel(); ++i) {
        const double value = model.values[i].item<double>();
        if (unit[i] >= 0) squares[static_cast<std::size_t>(unit[i])] += value * value;
    }
    for (double& square : squares) square = std::sqrt(square);
    return squares;
}

TEST(Spheres, FoldingBatchNormsKeepsTheFunction) {
    for (const std::string architecture : {"mlp_batch_norm", "cnn_batch_norm", "residual_batch_norm"}) {
        const Round round = make_round(architecture, 1);
        auto folded = round.updates[0].parameters.clone();
        Spheres(round.graph).fold_batch_norms(folded);
        const at::Tensor x = inputs_of(round.graph, *round.holdout).narrow(0, 0, 100);
        const at::Tensor before = logits_of(round.graph, round.updates[0].parameters, x);
        EXPECT_LT(largest_difference(logits_of(round.graph, folded, x), before),
                  1e-4 * before.abs().max().item<double>())
            << architecture;
    }
}

TEST(Spheres, NormalisedUnitsHaveLengthOne) {
    for (const std::string architecture :
         {"mlp", "cnn", "mlp_batch_norm", "cnn_batch_norm", "residual_batch_norm"}) {
        const Round round = make_round(architecture, 1);
        const Spheres spheres(round.graph);
        EXPECT_GE(spheres.units(), 10) << architecture;
        auto model = round.updates[0].parameters.clone();
        spheres.fold_batch_norms(model);
        spheres.normalise(model);
        int counted = 0;
        for (const double length : lengths(spheres, model)) {
            if (length == 0) continue;  // a channel of the residual stream
            EXPECT_NEAR(length, 1, 1e-5) << architecture;
            ++counted;
        }
        EXPECT_GE(counted, 6) << architecture;
    }
}

TEST(Toroid, RescaledCopiesBecomeTheSameModel) {
    Round round = make_round("mlp", 2);
    const auto gauge = symmetry::derive_gauge(round.graph, symmetry::Gauge::Kind::scale);
    core::Random random(1, "scales");
    round.updates[1].parameters =
        symmetry::multiply(round.updates[0].parameters, gauge, symmetry::random_factors(gauge, random));
    const auto updates = fuse(round, "toroid+mean", 2).updates;
    EXPECT_LT(largest_difference(updates[0].parameters.values, updates[1].parameters.values), 1e-5);
}

TEST(GeodesicMean, OfTwoModelsIsThePointOnTheArc) {
    Round round = make_round("mlp", 2);
    round.updates[0].samples = 30;
    round.updates[1].samples = 70;
    const auto normalised = fuse(round, "toroid+mean").updates;
    const auto merged = fuse(round, "toroid+geodesic_mean", 2).merged;
    const Spheres spheres(round.graph);
    const auto* unit = spheres.unit_of().data_ptr<std::int64_t>();
    for (std::int64_t u = 0; u <= spheres.units(); ++u) {
        std::vector<double> a, b, m;
        for (std::int64_t i = 0; i < spheres.unit_of().numel(); ++i) {
            if (unit[i] != u) continue;
            a.push_back(normalised[0].parameters.values[i].item<double>());
            b.push_back(normalised[1].parameters.values[i].item<double>());
            m.push_back(merged.values[i].item<double>());
        }
        double cosine = 0;
        for (std::size_t i = 0; i < a.size(); ++i) cosine += a[i] * b[i];
        const double angle = std::acos(std::clamp(cosine, -1.0, 1.0)), t = 0.7;
        for (std::size_t i = 0; i < a.size(); ++i) {
            const double expected =
                angle < 1e-6
                    ? a[i]
                    : (std::sin((1 - t) * angle) * a[i] + std::sin(t * angle) * b[i]) / std::sin(angle);
            EXPECT_NEAR(m[i], expected, 1e-5) << "unit " << u;
        }
    }
}

TEST(GeodesicMean, OfSeveralModelsHasNoPullLeft) {
    const Round round = make_round("mlp", 4);
    const auto normalised = fuse(round, "toroid+mean").updates;
    const auto fused = fuse(round, "toroid+geodesic_mean(weights=uniform)", 3);
    const Spheres spheres(round.graph);
    for (const double length : lengths(spheres, fused.merged)) EXPECT_NEAR(length, 1, 1e-5);
    // The Karcher mean: the tangents towards all models sum to zero.
    const auto* unit = spheres.unit_of().data_ptr<std::int64_t>();
    for (std::int64_t u = 0; u < spheres.units(); ++u) {
        std::vector<std::int64_t> elements;
        for (std::int64_t i = 0; i < spheres.unit_of().numel(); ++i) {
            if (unit[i] == u) elements.push_back(i);
        }
        const at::Tensor at_unit = at::tensor(elements, at::kLong);
        const at::Tensor m = fused.merged.values.index_select(0, at_unit).to(at::kDouble);
        at::Tensor pull = at::zeros_like(m);
        for (const auto& update : normalised) {
            const at::Tensor v = update.parameters.values.index_select(0, at_unit).to(at::kDouble);
            const double cosine = std::clamp(m.dot(v).item<double>(), -1.0, 1.0), angle = std::acos(cosine);
            if (angle > 1e-6) pull += (v - m * cosine) * (angle / std::sin(angle));
        }
        EXPECT_LT(pull.norm().item<double>(), 1e-4) << "unit " << u;
    }
}

TEST(Toroid, SaysWhereNothingCanBeRescaled) {
    EXPECT_THROW(fuse(make_round("mlp_tanh", 2), "toroid+mean"), core::RunError);
    EXPECT_THROW(fuse(make_round("mlp_tanh", 2), "geodesic_mean"), core::RunError);
}

}  // namespace
}  // namespace thalweg::testing::toroid_test
