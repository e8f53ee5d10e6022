#include "thalweg/symmetry/transport.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <numeric>

#include "thalweg/core/random.hpp"
#include "thalweg/symmetry/assignment.hpp"

namespace thalweg::symmetry::transport_test {
namespace {

std::vector<double> random_cost(std::int64_t n, std::int64_t m, std::uint64_t seed, bool whole) {
    core::Random random(seed, "cost");
    std::vector<double> cost(static_cast<std::size_t>(n * m));
    for (double& value : cost) value = whole ? static_cast<double>(random.below(5)) : random.normal();
    return cost;
}

/// Every unit cut into parts of 1/lcm, and the parts assigned one to one: slow, and obviously the optimum.
double least_cost(const std::vector<double>& cost, std::int64_t n, std::int64_t m) {
    const std::int64_t parts = std::lcm(n, m);
    std::vector<double> gain(static_cast<std::size_t>(parts * parts));
    for (std::int64_t i = 0; i < parts; ++i) {
        for (std::int64_t j = 0; j < parts; ++j)
            gain[static_cast<std::size_t>(i * parts + j)] =
                -cost[static_cast<std::size_t>(i / (parts / n) * m + j / (parts / m))];
    }
    AssignmentSolver solver;
    const auto& column = solver.maximise(std::span<const double>(gain), parts);
    double sum = 0;
    for (std::int64_t i = 0; i < parts; ++i)
        sum -= gain[static_cast<std::size_t>(i * parts + column[static_cast<std::size_t>(i)])];
    return sum / static_cast<double>(parts);
}

TEST(TransportPlan, IsOptimalAndHasTheRightSums) {
    std::uint64_t seed = 0;
    for (const auto& [n, m] : std::vector<std::pair<std::int64_t, std::int64_t>>{
             {1, 1}, {1, 7}, {7, 1}, {2, 3}, {4, 6}, {6, 4}, {5, 5}, {12, 8}, {8, 12}, {13, 9}, {20, 30}}) {
        for (const bool whole : {false, true}) {
            for (int draw = 0; draw < 5; ++draw) {
                const auto cost = random_cost(n, m, ++seed, whole);
                const auto plan = transport_plan(cost, n, m);
                double total = 0;
                std::vector<double> rows(static_cast<std::size_t>(n), 0),
                    columns(static_cast<std::size_t>(m), 0);
                for (std::int64_t i = 0; i < n; ++i) {
                    for (std::int64_t j = 0; j < m; ++j) {
                        const double moved = plan[static_cast<std::size_t>(i * m + j)];
                        EXPECT_GE(moved, 0);
                        rows[static_cast<std::size_t>(i)] += moved;
                        columns[static_cast<std::size_t>(j)] += moved;
                        total += moved * cost[static_cast<std::size_t>(i * m + j)];
                    }
                }
                for (const double sum : rows) EXPECT_NEAR(sum, 1.0 / static_cast<double>(n), 1e-12);
                for (const double sum : columns) EXPECT_NEAR(sum, 1.0 / static_cast<double>(m), 1e-12);
                EXPECT_NEAR(total, least_cost(cost, n, m), 1e-9)
                    << n << " to " << m << (whole ? ", ties" : "");
                EXPECT_EQ(plan, transport_plan(cost, n, m));
            }
        }
    }
}

TEST(TransportPlan, RefusesWhatIsNoCost) {
    const std::vector<double> cost{1, 2, std::numeric_limits<double>::quiet_NaN(), 4};
    EXPECT_THROW(transport_plan(cost, 2, 2), std::invalid_argument);
    EXPECT_THROW(transport_plan(std::vector<double>{1, 2, 3}, 2, 2), std::invalid_argument);
    EXPECT_THROW(transport_plan({}, 0, 0), std::invalid_argument);
}

}  // namespace
}  // namespace thalweg::symmetry::transport_test
