#include "lanczos.hpp"

#include <ATen/ops/linalg_eigh.h>
#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <utility>

namespace thalweg::analysis {

namespace {

double product_of(const at::Tensor& a, const at::Tensor& b) {
    return at::dot(a, b).item<double>();
}

/// Below this part of the operator's size a remainder is rounding.
constexpr double rounding = 1e-12;

}  // namespace

Lanczos::Lanczos(Operator apply, const at::Tensor& start, Decide decide)
    : apply_(std::move(apply)), decide_(std::move(decide)) {
    basis_.push_back(start / std::sqrt(product_of(start, start)));
}

at::Tensor Lanczos::orthogonal(at::Tensor vector) const {
    for (int again = 0; again < 2; ++again) {
        for (const auto& q : basis_) vector.sub_(q, product_of(q, vector));
    }
    return vector;
}

bool Lanczos::step() {
    const at::Tensor product = apply_(basis_.back());
    alpha_.push_back(product_of(product, basis_.back()));
    at::Tensor rest = orthogonal(product.clone());
    const double length = std::sqrt(product_of(rest, rest));
    scale_ = std::max({scale_, std::abs(alpha_.back()), length});
    if (!decide_(length > rounding * scale_)) {
        beta_.push_back(0);
        return false;
    }
    beta_.push_back(length);
    basis_.push_back(rest / length);
    return true;
}

bool Lanczos::restart(const at::Tensor& vector) {
    const double before = std::sqrt(product_of(vector, vector));
    at::Tensor rest = orthogonal(vector.clone());
    const double length = std::sqrt(product_of(rest, rest));
    if (!decide_(length > 1e-9 * before)) return false;
    basis_.push_back(rest / length);
    return true;
}

Lanczos::Ritz Lanczos::ritz() const {
    const std::int64_t m = steps();
    const at::Tensor t = at::zeros({m, m}, at::kDouble);
    double* out = t.data_ptr<double>();
    for (std::int64_t i = 0; i < m; ++i) {
        out[i * m + i] = alpha_[static_cast<std::size_t>(i)];
        if (i + 1 == m) continue;
        out[i * m + i + 1] = out[(i + 1) * m + i] = beta_[static_cast<std::size_t>(i)];
    }
    const auto [values, vectors] = at::linalg_eigh(t, "L");
    const at::Tensor columns = vectors.contiguous();
    const double* vector = columns.data_ptr<double>();
    Ritz result;
    for (std::int64_t i = 0; i < m; ++i) {
        result.values.push_back(values[i].item<double>());
        const double first = vector[i], last = vector[(m - 1) * m + i];
        result.weights.push_back(first * first);
        result.residuals.push_back(std::abs(beta_.back() * last));
    }
    return result;
}

}  // namespace thalweg::analysis
