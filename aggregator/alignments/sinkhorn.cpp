#include "sinkhorn.hpp"

#include <torch/types.h>

#include "thalweg/core/error.hpp"
#include "thalweg/core/interrupt.hpp"

namespace thalweg::aggregator {

namespace {

/// The columns, and then the rows of exp(log_plan), are scaled once to their sums (undefined: ones).
void scale_once(at::Tensor& log_plan, const at::Tensor& rows, const at::Tensor& columns) {
    log_plan.sub_(log_plan.logsumexp(0, true));
    if (columns.defined()) log_plan.add_(columns.log().unsqueeze(0));
    log_plan.sub_(log_plan.logsumexp(1, true));
    if (rows.defined()) log_plan.add_(rows.log().unsqueeze(1));
}

/// Rows and columns that have too much are scaled down, and what is missing then is spread where it is missing.
at::Tensor rounded(at::Tensor plan, const at::Tensor& rows, const at::Tensor& columns) {
    const auto at_most_one = [](const at::Tensor& wanted, const at::Tensor& sum) {
        return at::where(sum > wanted, wanted / sum, at::ones_like(sum));
    };
    plan = plan * at_most_one(rows, plan.sum(1)).unsqueeze(1);
    plan = plan * at_most_one(columns, plan.sum(0)).unsqueeze(0);
    const at::Tensor of_rows = (rows - plan.sum(1)).clamp_min(0),
                     of_columns = (columns - plan.sum(0)).clamp_min(0);
    const double missing = of_rows.sum().item<double>();
    return missing > 0 ? plan + at::outer(of_rows, of_columns) / missing : plan;
}

}  // namespace

at::Tensor sinkhorn(const at::Tensor& scores, int iterations, const at::Tensor& rows,
                    const at::Tensor& columns) {
    at::Tensor log_plan = scores.clone();
    for (int i = 0; i < iterations; ++i) scale_once(log_plan, rows, columns);
    return log_plan.exp();
}

at::Tensor sinkhorn_plan(const at::Tensor& scores, const at::Tensor& rows, const at::Tensor& columns) {
    constexpr int most = 2000, judged_every = 20;
    constexpr double tolerance = 1e-6;
    if (!scores.isfinite().all().item<bool>())
        throw core::RunError("the channels cannot be carried: distances of their weights are not finite");
    at::Tensor log_plan = scores.clone();
    for (int i = 1; i <= most; ++i) {
        core::check_interrupt();
        scale_once(log_plan, rows, columns);
        if (i % judged_every != 0) continue;
        const at::Tensor off = log_plan.exp().sum(0) / columns - 1;
        if (off.abs().max().item<double>() <= tolerance) break;
    }
    return rounded(log_plan.exp(), rows, columns);
}

at::Tensor sinkhorn_gradient(const at::Tensor& plan, const at::Tensor& upstream) {
    const at::Tensor s = plan.to(at::kDouble);
    const at::Tensor g = upstream.to(at::kDouble) * s;
    const at::Tensor rows = s.sum(1), columns = s.sum(0);
    // rows ∘ α + S β = G 1 and Sᵀ α + columns ∘ β = Gᵀ 1. One of them follows from the others: β's last is zero.
    const std::int64_t n = s.size(1) - 1;
    const at::Tensor of_rows = g.sum(1), of_columns = g.sum(0).narrow(0, 0, n);
    const at::Tensor left = s.narrow(1, 0, n);
    const at::Tensor scaled = left / rows.unsqueeze(1);
    at::Tensor beta = at::zeros({n + 1}, s.options());
    if (n > 0) {
        const at::Tensor schur = at::diag(columns.narrow(0, 0, n)) - at::mm(left.t(), scaled);
        // Positive definite up to rounding; where channels hardly mix it is nearly singular, and so is what it is applied to.
        const at::Tensor ridge = at::full({n}, 1e-12, s.options());
        const at::Tensor factor = at::linalg_cholesky(schur + at::diag(ridge));
        const at::Tensor right = of_columns - at::mv(scaled.t(), of_rows);
        beta.narrow(0, 0, n).copy_(at::cholesky_solve(right.unsqueeze(1), factor).squeeze(1));
    }
    const at::Tensor alpha = (of_rows - at::mv(s, beta)) / rows;
    return (g - s * (alpha.unsqueeze(1) + beta.unsqueeze(0))).to(upstream.scalar_type());
}

}  // namespace thalweg::aggregator
