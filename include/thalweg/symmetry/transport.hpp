#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace thalweg::symmetry {

/// Exact optimal transport between n units of mass 1/n and m units of mass 1/m: the plan [n, m] in row-major order with
/// those sums that minimises Σ cost·plan. For n = m an assignment ÷ n; otherwise successive shortest augmenting paths with
/// prices (the transportation problem's Hungarian method), in whole parts of 1/lcm(n, m), so that sums are exact.
/// O((n + m)·n·m) as a rule. Among equally good plans the one that comes first by index; the same call gives the same plan.
/// std::invalid_argument when the cost holds a NaN or an infinity, or has not n·m elements, or n or m is 0.
std::vector<double> transport_plan(std::span<const double> cost, std::int64_t n, std::int64_t m);

}  // namespace thalweg::symmetry
