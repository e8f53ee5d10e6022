#include "thalweg/symmetry/transport.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <stdexcept>

#include "thalweg/symmetry/assignment.hpp"

namespace thalweg::symmetry {

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr std::int64_t none = -1;

/// Supplies and demands in whole parts; cost(i, j) − row price − column price ≥ 0, and = 0 where something flows.
class Transport {
  public:
    Transport(std::span<const double> cost, std::int64_t n, std::int64_t m)
        : cost_(cost),
          n_(n),
          m_(m),
          supply_(static_cast<std::size_t>(n), std::lcm(n, m) / n),
          demand_(static_cast<std::size_t>(m), std::lcm(n, m) / m),
          flow_(static_cast<std::size_t>(n * m), 0),
          row_price_(static_cast<std::size_t>(n), 0),
          column_price_(static_cast<std::size_t>(m), 0) {
        for (std::int64_t i = 0; i < n; ++i) {
            const auto row = cost.subspan(static_cast<std::size_t>(i * m), static_cast<std::size_t>(m));
            row_price_[static_cast<std::size_t>(i)] = *std::min_element(row.begin(), row.end());
        }
    }

    std::vector<double> solve() {
        for (std::int64_t i = 0; i < n_; ++i) {
            while (supply_[static_cast<std::size_t>(i)] > 0) augment(i);
        }
        const auto parts = static_cast<double>(std::lcm(n_, m_));
        std::vector<double> plan(flow_.size());
        for (std::size_t k = 0; k < plan.size(); ++k) plan[k] = static_cast<double>(flow_[k]) / parts;
        return plan;
    }

  private:
    std::size_t at(std::int64_t i, std::int64_t j) const { return static_cast<std::size_t>(i * m_ + j); }

    /// Dijkstra from row `start` over reduced costs: forward along any pair, backward where something flows, to the nearest
    /// column that still wants something; then as much as the path takes is sent along it.
    void augment(std::int64_t start) {
        const auto columns = static_cast<std::size_t>(m_);
        std::vector<double> to_column(columns, infinity), to_row(static_cast<std::size_t>(n_), infinity);
        std::vector<std::int64_t> row_before(columns, none);  // of a column on the path
        std::vector<std::int64_t> column_before(static_cast<std::size_t>(n_), none);  // of a row
        std::vector<bool> closed(columns, false);
        const auto relax = [&](std::int64_t i) {
            const double here = to_row[static_cast<std::size_t>(i)] - row_price_[static_cast<std::size_t>(i)];
            for (std::int64_t j = 0; j < m_; ++j) {
                const auto c = static_cast<std::size_t>(j);
                if (closed[c]) continue;
                const double length = here + cost_[at(i, j)] - column_price_[c];
                if (length < to_column[c]) {
                    to_column[c] = length;
                    row_before[c] = i;
                }
            }
        };
        to_row[static_cast<std::size_t>(start)] = 0;
        relax(start);
        std::int64_t end = none;
        while (end == none) {
            std::int64_t nearest = none;
            for (std::int64_t j = 0; j < m_; ++j) {
                if (closed[static_cast<std::size_t>(j)]) continue;
                const double length = to_column[static_cast<std::size_t>(j)];
                const double best = nearest == none ? infinity : to_column[static_cast<std::size_t>(nearest)];
                const bool wants = demand_[static_cast<std::size_t>(j)] > 0;
                const bool best_wants = nearest != none && demand_[static_cast<std::size_t>(nearest)] > 0;
                if (length < best || (length == best && wants && !best_wants)) nearest = j;
            }
            const auto c = static_cast<std::size_t>(nearest);
            closed[c] = true;
            if (demand_[c] > 0) {
                end = nearest;
                break;
            }
            for (std::int64_t i = 0; i < n_; ++i) {
                const auto r = static_cast<std::size_t>(i);
                // A row keeps what it was first reached by: rounding must not lead it round in a circle.
                if (flow_[at(i, nearest)] == 0 || to_row[r] < infinity) continue;
                to_row[r] = to_column[c];  // reduced cost 0 where something flows
                column_before[r] = nearest;
                relax(i);
            }
        }
        send(start, end, row_before, column_before);
        const double reached = to_column[static_cast<std::size_t>(end)];
        for (std::size_t j = 0; j < columns; ++j) {
            if (closed[j]) column_price_[j] += to_column[j] - reached;
        }
        for (std::size_t i = 0; i < to_row.size(); ++i) {
            if (to_row[i] < reached) row_price_[i] += reached - to_row[i];
        }
    }

    void send(std::int64_t start, std::int64_t end, const std::vector<std::int64_t>& row_before,
              const std::vector<std::int64_t>& column_before) {
        std::int64_t amount =
            std::min(supply_[static_cast<std::size_t>(start)], demand_[static_cast<std::size_t>(end)]);
        const auto along_path = [&](const auto& forward, const auto& backward) {
            for (std::int64_t j = end;;) {
                const std::int64_t i = row_before[static_cast<std::size_t>(j)];
                forward(at(i, j));
                if (i == start) return;
                j = column_before[static_cast<std::size_t>(i)];
                backward(at(i, j));
            }
        };
        along_path([](std::size_t) {}, [&](std::size_t pair) { amount = std::min(amount, flow_[pair]); });
        along_path([&](std::size_t pair) { flow_[pair] += amount; },
                   [&](std::size_t pair) { flow_[pair] -= amount; });
        supply_[static_cast<std::size_t>(start)] -= amount;
        demand_[static_cast<std::size_t>(end)] -= amount;
    }

    std::span<const double> cost_;
    std::int64_t n_, m_;
    std::vector<std::int64_t> supply_, demand_, flow_;
    std::vector<double> row_price_, column_price_;
};

}  // namespace

std::vector<double> transport_plan(std::span<const double> cost, std::int64_t n, std::int64_t m) {
    if (n <= 0 || m <= 0 || static_cast<std::int64_t>(cost.size()) != n * m)
        throw std::invalid_argument("transport_plan: the cost is not [n, m]");
    for (const double value : cost) {
        if (!std::isfinite(value)) throw std::invalid_argument("transport_plan: the cost is not finite");
    }
    if (n != m) return Transport(cost, n, m).solve();
    std::vector<double> gain(cost.begin(), cost.end()), plan(cost.size(), 0.0);
    for (double& value : gain) value = -value;
    AssignmentSolver solver;
    const auto& column = solver.maximise(std::span<const double>(gain), n);
    for (std::int64_t i = 0; i < n; ++i)
        plan[static_cast<std::size_t>(i * n + column[static_cast<std::size_t>(i)])] =
            1.0 / static_cast<double>(n);
    return plan;
}

}  // namespace thalweg::symmetry
