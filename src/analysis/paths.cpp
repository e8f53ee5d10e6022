#include "thalweg/analysis/paths.hpp"

#include <ATen/Dispatch.h>
#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "blend.hpp"
#include "thalweg/aggregator/spheres.hpp"
#include "thalweg/core/error.hpp"

namespace thalweg::analysis {

namespace {

void require_same_layout(const model::Parameters& a, const model::Parameters& b) {
    if (*a.layout == *b.layout && a.is_double() == b.is_double()) return;
    throw core::RunError("Models of different architectures cannot be interpolated.");
}

class Line final : public Path {
  public:
    Line(model::Parameters a, model::Parameters b) : a_(std::move(a)), b_(std::move(b)) {
        require_same_layout(a_, b_);
    }
    std::string name() const override { return "line"; }
    model::Parameters at(double t) const override { return interpolate(a_, b_, t); }

  private:
    model::Parameters a_, b_;
};

/// With a free point between the ends.
class Bent final : public Path {
  public:
    using Weights = Blend (*)(double t);
    Bent(std::string name, Weights weights, model::Parameters a, model::Parameters bend, model::Parameters b)
        : name_(std::move(name)),
          weights_(weights),
          a_(std::move(a)),
          bend_(std::move(bend)),
          b_(std::move(b)) {
        require_same_layout(a_, b_);
        require_same_layout(a_, bend_);
    }
    std::string name() const override { return name_; }
    model::Parameters at(double t) const override {
        if (t == 0 || t == 1) return interpolate(a_, b_, t);
        const Blend blend = weights_(t);
        model::Parameters between = a_.clone();
        at::Tensor sum = at::zeros({a_.layout->size()}, at::kDouble);
        const auto add = [&](const model::Parameters& model, double weight) {
            if (weight != 0) sum += weight * model.values.to(at::kDouble);  // 0 · ∞ is no number
        };
        add(a_, blend.a);
        add(bend_, blend.bend);
        add(b_, blend.b);
        between.values.copy_(sum);
        return between;
    }

  private:
    std::string name_;
    Weights weights_;
    model::Parameters a_, bend_, b_;
};

model::Parameters normalised(const aggregator::Spheres& spheres, const model::Parameters& model) {
    if (spheres.units() == 0) {
        throw core::RunError(
            "Toroid normalisation and geodesic paths work on hidden units that can be rescaled, and this "
            "model "
            "has none: it needs positively homogeneous activations (ReLU, leaky ReLU, PReLU); take another "
            "path.");
    }
    model::Parameters result = model.clone();
    spheres.fold_batch_norms(result);
    spheres.normalise(result);
    return result;
}

/// Where no direction on the sphere leads from one vector to the other, or all do.
constexpr double smallest_sine = 1e-8;

class Geodesic final : public Path {
  public:
    Geodesic(const model::ModelGraph& graph, const model::Parameters& a, const model::Parameters& b)
        : folds_norms_(has_batch_norm(graph)) {
        require_same_layout(a, b);
        const aggregator::Spheres spheres(graph);
        a_ = normalised(spheres, a);
        b_ = normalised(spheres, b);
        unit_of_ = spheres.unit_of();
        measure(spheres.units() + 1);
    }
    std::string name() const override { return "geodesic"; }
    bool folds_norms() const override { return folds_norms_; }

    model::Parameters at(double t) const override {
        model::Parameters between = interpolate(a_, b_, t);
        if (t == 0 || t == 1) return between;
        const auto shares = weights(t);
        const auto &from = shares.first, &to = shares.second;
        const auto* unit_of = unit_of_.data_ptr<std::int64_t>();
        AT_DISPATCH_FLOATING_TYPES(between.values.scalar_type(), "geodesic", [&] {
            const scalar_t *a = a_.values.data_ptr<scalar_t>(), *b = b_.values.data_ptr<scalar_t>();
            scalar_t* out = between.values.data_ptr<scalar_t>();
            for (std::int64_t i = 0; i < unit_of_.numel(); ++i) {
                if (unit_of[i] < 0 || !turns_[static_cast<std::size_t>(unit_of[i])]) continue;
                const auto unit = static_cast<std::size_t>(unit_of[i]);
                out[i] = static_cast<scalar_t>(from[unit] * static_cast<double>(a[i]) +
                                               to[unit] * static_cast<double>(b[i]));
            }
        });
        return between;
    }

  private:
    /// Lengths and angle of every unit's two vectors.
    void measure(std::int64_t vectors) {
        const at::Tensor place = at::where(unit_of_.ge(0), unit_of_, at::full({}, vectors, at::kLong));
        const auto sums = [&](const model::Parameters& one, const model::Parameters& other) {
            const at::Tensor product = one.trainable().to(at::kDouble) * other.trainable().to(at::kDouble);
            const at::Tensor sum = at::zeros({vectors + 1}, at::kDouble).index_add_(0, place, product);
            return std::vector<double>(sum.data_ptr<double>(), sum.data_ptr<double>() + vectors);
        };
        const auto own_a = sums(a_, a_), own_b = sums(b_, b_), between = sums(a_, b_);
        for (std::size_t unit = 0; unit < own_a.size(); ++unit) {
            length_a_.push_back(std::sqrt(own_a[unit]));
            length_b_.push_back(std::sqrt(own_b[unit]));
            const double lengths = length_a_.back() * length_b_.back();
            angle_.push_back(lengths > 0 ? std::acos(std::clamp(between[unit] / lengths, -1.0, 1.0)) : 0.0);
            turns_.push_back(std::sin(angle_.back()) > smallest_sine);
        }
    }

    /// What each unit's two vectors count at t; lengths (1, but for units that cannot be rescaled) change linearly.
    std::pair<std::vector<double>, std::vector<double>> weights(double t) const {
        std::vector<double> from(angle_.size()), to(angle_.size());
        for (std::size_t unit = 0; unit < angle_.size(); ++unit) {
            if (!turns_[unit]) continue;
            const double length = (1 - t) * length_a_[unit] + t * length_b_[unit];
            const double sine = std::sin(angle_[unit]);
            from[unit] = std::sin((1 - t) * angle_[unit]) / sine * length / length_a_[unit];
            to[unit] = std::sin(t * angle_[unit]) / sine * length / length_b_[unit];
        }
        return {from, to};
    }

    model::Parameters a_, b_;
    bool folds_norms_;
    at::Tensor unit_of_;
    std::vector<double> length_a_, length_b_, angle_;
    std::vector<bool> turns_;
};

}  // namespace

std::unique_ptr<Path> line_path(const model::Parameters& a, const model::Parameters& b) {
    return std::make_unique<Line>(a, b);
}

model::Parameters toroid_normalised(const model::ModelGraph& graph, const model::Parameters& parameters) {
    return normalised(aggregator::Spheres(graph), parameters);
}

std::unique_ptr<Path> geodesic_path(const model::ModelGraph& graph, const model::Parameters& a,
                                    const model::Parameters& b) {
    return std::make_unique<Geodesic>(graph, a, b);
}

std::unique_ptr<Path> bezier_path(const model::Parameters& a, const model::Parameters& control,
                                  const model::Parameters& b) {
    return std::make_unique<Bent>("bezier", bezier, a, control, b);
}

std::unique_ptr<Path> polygon_path(const model::Parameters& a, const model::Parameters& bend,
                                   const model::Parameters& b) {
    return std::make_unique<Bent>("polygon", polygon, a, bend, b);
}

}  // namespace thalweg::analysis
