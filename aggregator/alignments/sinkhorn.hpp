#pragma once

#include <ATen/core/Tensor.h>

namespace thalweg::aggregator {

/// The matrix of the form diag(u)·exp(scores)·diag(v) whose columns sum to `columns` and whose rows sum to `rows`
/// (Sinkhorn's algorithm, in the log domain): `iterations` times the columns and then the rows are scaled, so that rows are
/// right exactly and columns nearly. `scores` [m, n], `rows` [m] and `columns` [n] positive with one sum; undefined: ones.
at::Tensor sinkhorn(const at::Tensor& scores, int iterations, const at::Tensor& rows = {},
                    const at::Tensor& columns = {});

/// The entropic transport plan diag(u)·exp(scores)·diag(v) between `rows` and `columns`: scaled until every column holds to
/// 10⁻⁶ of its sum, or 2,000 times where little entropy makes it slow, and then rounded to a plan whose marginals hold
/// exactly up to rounding (Altschuler, Weed & Rigollet, NeurIPS 2017, algorithm 2), which changes it by
/// no more than twice what was wrong. RunError when the scores are not finite.
at::Tensor sinkhorn_plan(const at::Tensor& scores, const at::Tensor& rows, const at::Tensor& columns);

/// d loss ÷ d scores from `upstream` = d loss ÷ d plan, by implicit differentiation of the scaling's fixed point
/// (Eisenberger et al., *A Unified Framework for Implicit Sinkhorn Differentiation*, CVPR 2022): with G = upstream ∘ plan,
/// the result is G − plan ∘ (α 1ᵀ + 1 βᵀ), where α, β give it rows and columns that sum to zero. No memory of the
/// iterations. We eliminate α, and solve for β by Cholesky: O(m n min(m, n)) where the source solves m + n − 1 equations.
at::Tensor sinkhorn_gradient(const at::Tensor& plan, const at::Tensor& upstream);

}  // namespace thalweg::aggregator
