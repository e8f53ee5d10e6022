#include <torch/types.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "coordinatewise.hpp"
#include "thalweg/aggregator/spheres.hpp"
#include "thalweg/aggregator/stage.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/interrupt.hpp"

namespace thalweg::aggregator {

namespace {

/// Coefficients c with m = Σ c_k u_k the weighted mean of unit vectors on the sphere (Karcher mean, by gradient descent
/// with step 1; for two of them the point at w_2 of the arc), from their inner products.
std::vector<double> spherical_mean(const std::vector<double>& products, const std::vector<double>& w) {
    const std::size_t n = w.size();
    const auto dot = [&](const std::vector<double>& a, const std::vector<double>& b) {
        double sum = 0;
        for (std::size_t i = 0; i < n; ++i) {
            for (std::size_t j = 0; j < n; ++j) sum += a[i] * b[j] * products[i * n + j];
        }
        return sum;
    };
    std::vector<double> m = w;
    const double start = std::sqrt(std::max(0.0, dot(m, m)));
    if (start < 1e-12) return w;  // they cancel: no direction is nearer than another
    for (double& c : m) c /= start;
    for (int iteration = 0; iteration < 200; ++iteration) {
        std::vector<double> tangent(n, 0.0);
        double along = 0;
        for (std::size_t k = 0; k < n; ++k) {
            double cosine = 0;
            for (std::size_t l = 0; l < n; ++l) cosine += m[l] * products[k * n + l];
            cosine = std::clamp(cosine, -1.0, 1.0);
            const double angle = std::acos(cosine), sine = std::sqrt(1 - cosine * cosine);
            const double pull = w[k] * (sine > 1e-8 ? angle / sine : 1.0);
            tangent[k] += pull;
            along += pull * cosine;
        }
        for (std::size_t k = 0; k < n; ++k) tangent[k] -= along * m[k];
        const double step = std::sqrt(std::max(0.0, dot(tangent, tangent)));
        if (step < 1e-13) break;
        const double c = std::cos(step), s = std::sin(step) / step;
        for (std::size_t k = 0; k < n; ++k) m[k] = c * m[k] + s * tangent[k];
    }
    return m;
}

/// Average on the spheres of `toroid` (Pittorino et al., ICML 2022): every hidden unit's incoming vector moves on its
/// sphere, to the weighted mean of the clients' directions along great circles, and has the mean of their lengths; the
/// classifier as one vector likewise. What belongs to no unit takes the plain mean, running statistics too. The source has
/// the geodesic between two models; for more we take the Karcher mean.
///
/// Directions lie in the span of the clients', so that their inner products are all that travels before one exchange.
class GeodesicMean final : public Stage {
  public:
    explicit GeodesicMean(const core::Value& options)
        : weighting_(weighting_of(options["weights"].as_text())) {}

    StageTraits traits() const override { return {.kind = StageKind::reduction, .needs_homogeneous = true}; }

    StageNotes apply(FusionState& state, const FusionContext& context) const override {
        const auto w =
            core::collectively(context.communicator, [&] { return weights(context.members, weighting_); });
        const Spheres spheres(context.graph);
        core::collectively(context.communicator, [&] {
            if (spheres.units() > 0) return;
            throw core::RunError(
                "geodesic_mean averages hidden units on spheres, and this model has none that could be "
                "rescaled: it "
                "needs positively homogeneous activations (ReLU); use mean");
        });
        const auto products = inner_products(state.updates, context, spheres);
        const auto coefficients = mixing(products, w, spheres.units() + 1);
        const auto* unit_of = spheres.unit_of().data_ptr<std::int64_t>();
        const std::int64_t trainable = context.graph.layout->trainable_size(), vectors = spheres.units() + 1;
        state.merged = reduce_coordinates(
            state.updates, context,
            [&](const UpdateSlices& slices, std::int64_t first, std::span<double> out) {
                std::array<double, block_length> value;
                std::fill(out.begin(), out.end(), 0.0);
                for (std::size_t k = 0; k < slices.count(); ++k) {
                    slices.load(k, first, std::span(value).first(out.size()));
                    for (std::size_t i = 0; i < out.size(); ++i) {
                        const std::int64_t at = first + static_cast<std::int64_t>(i);
                        const std::int64_t unit = at < trainable ? unit_of[at] : -1;
                        out[i] += value[i] * (unit < 0 ? w[k]
                                                       : coefficients[k * static_cast<std::size_t>(vectors) +
                                                                      static_cast<std::size_t>(unit)]);
                    }
                }
                for (std::size_t i = 0; i < out.size(); ++i) {
                    if (!std::isfinite(out[i]))
                        refuse_coordinate(context, slices, first + static_cast<std::int64_t>(i));
                }
            });
        state.weights = w;
        return {{"units", static_cast<double>(spheres.units())}};
    }

  private:
    /// ⟨θ_j, θ_k⟩ of every unit's vectors: [j][k][unit], the classifier's last. One model after another visits all ranks.
    static std::vector<double> inner_products(const std::vector<Update>& updates,
                                              const FusionContext& context, const Spheres& spheres) {
        auto& communicator = context.communicator;
        const std::size_t count = context.members.size();
        const std::int64_t vectors = spheres.units() + 1;
        const at::Tensor place =
            at::where(spheres.unit_of().ge(0), spheres.unit_of(), at::full({}, vectors, at::kLong));
        std::vector<std::vector<double>> rows(updates.size());
        core::collectively(communicator, [&] { check_updates(updates, context); });
        std::size_t next = 0;
        for (std::size_t j = 0; j < count; ++j) {
            const bool is_mine = context.members[j].owner == communicator.rank();
            const auto visitor =
                broadcast_parameters(is_mine ? updates[next++].parameters : model::Parameters(),
                                     context.members[j].owner, context);
            core::collectively(communicator, [&] {
                core::check_interrupt();
                for (std::size_t u = 0; u < updates.size(); ++u) {
                    const at::Tensor product =
                        visitor.trainable().to(at::kDouble) * updates[u].parameters.trainable();
                    const at::Tensor sums =
                        at::zeros({vectors + 1}, at::kDouble).index_add_(0, place, product);
                    rows[u].insert(rows[u].end(), sums.data_ptr<double>(), sums.data_ptr<double>() + vectors);
                }
            });
        }
        std::size_t row = 0;
        return gather_member_rows(communicator, context.members, static_cast<std::int64_t>(count) * vectors,
                                  [&](std::size_t, std::span<double> out) {
                                      std::copy(rows[row].begin(), rows[row].end(), out.begin());
                                      ++row;
                                  });
    }

    /// What each client's vector counts in the mean of every unit: [client][unit].
    static std::vector<double> mixing(const std::vector<double>& products, const std::vector<double>& w,
                                      std::int64_t vectors) {
        const std::size_t n = w.size(), size = static_cast<std::size_t>(vectors);
        std::vector<double> result(n * size);
        for (std::size_t unit = 0; unit < size; ++unit) {
            std::vector<double> length(n), unit_products(n * n);
            double mean_length = 0;
            bool any_zero = false;
            for (std::size_t k = 0; k < n; ++k) {
                length[k] = std::sqrt(products[(k * n + k) * size + unit]);
                mean_length += w[k] * length[k];
                any_zero = any_zero || length[k] == 0;
            }
            if (any_zero) {  // a vector without direction: on a line
                for (std::size_t k = 0; k < n; ++k) result[k * size + unit] = w[k];
                continue;
            }
            for (std::size_t j = 0; j < n; ++j) {
                for (std::size_t k = 0; k < n; ++k)
                    unit_products[j * n + k] = products[(j * n + k) * size + unit] / (length[j] * length[k]);
            }
            const auto mean = spherical_mean(unit_products, w);
            for (std::size_t k = 0; k < n; ++k) result[k * size + unit] = mean[k] / length[k] * mean_length;
        }
        return result;
    }

    Weighting weighting_;
};

const StageRegistration geodesic_mean_registration{
    {.kind = "stage",
     .name = "geodesic_mean",
     .help =
         "averages every hidden unit's incoming weights on their sphere, along great circles (after toroid)",
     .citation = "Pittorino et al., Deep Networks on Toroids, ICML 2022",
     .options = {core::choice("weights", {"samples", "uniform"},
                              "what a client counts: its samples, or all alike")
                     .by_default("samples")},
     .cost = "O(K² · d ÷ ranks)"},
    [](const core::Value& options) { return std::make_unique<GeodesicMean>(options); }};

}  // namespace

}  // namespace thalweg::aggregator
