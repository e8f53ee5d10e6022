#include "thalweg/symmetry/assignment.hpp"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <string>

#include "assignment_kernels.hpp"

// R. Jonker and A. Volgenant, "A shortest augmenting path algorithm for dense and sparse linear assignment problems",
// Computing 38 (1987): column reduction, reduction transfer, two passes of augmenting row reduction, then one shortest
// path for each row that is still free. Throughout, assigned pairs have the smallest reduced cost of their row.

namespace thalweg::symmetry {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double largest_magnitude = 1e150;
constexpr std::int64_t none = -1;

}  // namespace

const std::vector<std::int64_t>& AssignmentSolver::maximise(std::span<const double> gain, std::int64_t n) {
    return solve(gain, n);
}

const std::vector<std::int64_t>& AssignmentSolver::maximise(std::span<const float> gain, std::int64_t n) {
    return solve(gain, n);
}

void AssignmentSolver::reset() {
    price_.clear();
}

template <class T>
const std::vector<std::int64_t>& AssignmentSolver::solve(std::span<const T> gain, std::int64_t n) {
    if (n < 0 || static_cast<std::int64_t>(gain.size()) != n * n) {
        throw std::invalid_argument("an assignment of " + std::to_string(n) + " needs a square matrix, not " +
                                    std::to_string(gain.size()) + " values");
    }
    if (!kernels::all_within(gain.data(), n * n, largest_magnitude)) {
        throw std::invalid_argument(
            "the assignment's gain matrix holds a value that is not finite or beyond 1e150");
    }
    const bool warm = static_cast<std::int64_t>(price_.size()) == n;
    column_of_row_.assign(n, none);
    row_of_column_.assign(n, none);
    if (warm) {
        take_tight_edges(gain.data(), n);
    } else {
        reduce_columns(gain.data(), n);
    }
    augment_by_row_reduction(gain.data(), n);
    for (const std::int64_t row : free_rows_) augment_by_shortest_path(gain.data(), n, row);
    return column_of_row_;
}

void AssignmentSolver::assign(std::int64_t row, std::int64_t column) {
    column_of_row_[row] = column;
    row_of_column_[column] = row;
}

/// Cold start. Prices: the columns' smallest costs; a row that is cheapest in some column takes the first of them. Then
/// reduction transfer: a row that is cheapest in one column only can lower that column's price until its second choice
/// is as good, which helps the others.
template <class T>
void AssignmentSolver::reduce_columns(const T* gain, std::int64_t n) {
    price_.assign(n, infinity);
    auto& cheapest_row = predecessor_;
    cheapest_row.assign(n, 0);
    for (std::int64_t i = 0; i < n; ++i) {
        kernels::take_column_minima(gain + i * n, n, i, 0.0, price_.data(), cheapest_row.data());
    }
    std::vector<std::int64_t> columns_won(n, 0);
    for (std::int64_t j = 0; j < n; ++j) {
        if (++columns_won[cheapest_row[j]] == 1) assign(cheapest_row[j], j);
    }
    free_rows_.clear();
    for (std::int64_t i = 0; i < n; ++i) {
        if (columns_won[i] == 0) free_rows_.push_back(i);
        if (columns_won[i] == 1 && n > 1) {
            price_[column_of_row_[i]] -= kernels::two_smallest(gain + i * n, price_.data(), n).second;
        }
    }
}

/// Warm start: under the prices of the last call every row takes its best column if it is still to be had. Then every
/// column's price rises until some row likes it as much as its best, and takes it if that row is still free. (Without
/// this, prices that fell for the old matrix keep columns from being chosen: row reduction can only lower the others.)
template <class T>
void AssignmentSolver::take_tight_edges(const T* gain, std::int64_t n) {
    auto& row_minimum = distance_;
    row_minimum.resize(n);
    for (std::int64_t i = 0; i < n; ++i) {
        const auto best = kernels::two_smallest(gain + i * n, price_.data(), n);
        row_minimum[i] = best.first;
        if (row_of_column_[best.column] == none) assign(i, best.column);
    }
    price_.assign(n, infinity);
    auto& cheapest_row = predecessor_;
    cheapest_row.assign(n, 0);
    for (std::int64_t i = 0; i < n; ++i) {
        kernels::take_column_minima(gain + i * n, n, i, row_minimum[i], price_.data(), cheapest_row.data());
    }
    for (std::int64_t j = 0; j < n; ++j) {
        if (row_of_column_[j] == none && column_of_row_[cheapest_row[j]] == none) assign(cheapest_row[j], j);
    }
    free_rows_.clear();
    for (std::int64_t i = 0; i < n; ++i) {
        if (column_of_row_[i] == none) free_rows_.push_back(i);
    }
}

/// Free rows take their best column, lowering its price until the second best is as good, and set free the row that had
/// it. Prices only fall; a bound on the steps keeps tiny decreases from going on for ever.
template <class T>
void AssignmentSolver::augment_by_row_reduction(const T* gain, std::int64_t n) {
    if (n == 1 && !free_rows_.empty()) {
        assign(0, 0);
        free_rows_.clear();
    }
    for (int pass = 0; pass < 2 && !free_rows_.empty(); ++pass) {
        std::vector<std::int64_t> waiting(free_rows_.rbegin(), free_rows_.rend());
        free_rows_.clear();
        for (std::int64_t steps = 8 * n; !waiting.empty(); --steps) {
            const std::int64_t row = waiting.back();
            waiting.pop_back();
            const auto best = kernels::two_smallest(gain + row * n, price_.data(), n);
            const double lowered = price_[best.column] - (best.second - best.first);
            const bool lowers = lowered < price_[best.column];
            std::int64_t column = best.column;
            if (lowers) {
                price_[column] = lowered;
            } else if (row_of_column_[column] != none) {
                column = tied_column(gain + row * n, n, best.column, best.second);
            }
            const std::int64_t displaced = row_of_column_[column];
            if (displaced != none) column_of_row_[displaced] = none;
            assign(row, column);
            if (displaced == none) continue;
            // A row displaced without any price falling waits for the next pass: it could go on for ever.
            (lowers && steps > 0 ? waiting : free_rows_).push_back(displaced);
        }
    }
}

/// Among the columns that cost the same as the best one (which is taken): the first that nobody has, else the first.
template <class T>
std::int64_t AssignmentSolver::tied_column(const T* row, std::int64_t n, std::int64_t smallest,
                                           double value) const {
    std::int64_t first = none;
    for (std::int64_t j = 0; j < n; ++j) {
        if (j == smallest || -static_cast<double>(row[j]) - price_[j] > value) continue;
        if (row_of_column_[j] == none) return j;
        if (first == none) first = j;
    }
    return first;
}

/// Dijkstra's algorithm on reduced costs from a free row to the nearest column nobody has; then the prices of the
/// columns passed fall, so that the path becomes tight, and the path's pairs change places.
template <class T>
void AssignmentSolver::augment_by_shortest_path(const T* gain, std::int64_t n, std::int64_t row) {
    distance_.assign(n, infinity);
    predecessor_.resize(n);
    block_minimum_.resize((n + kernels::block - 1) / kernels::block);
    closed_.clear();
    const kernels::Relaxation relaxation{price_.data(), distance_.data(), predecessor_.data(),
                                         block_minimum_.data()};

    kernels::relax(gain + row * n, n, row, 0.0, -infinity, relaxation);
    std::int64_t column = nearest_open_column();
    double reached = distance_[column];
    while (row_of_column_[column] != none) {
        const std::int64_t next = row_of_column_[column];
        const double shift = -static_cast<double>(gain[next * n + column]) - price_[column] - reached;
        closed_.push_back({column, reached, price_[column]});
        distance_[column] = infinity;
        price_[column] = -infinity;
        kernels::relax(gain + next * n, n, next, shift, reached, relaxation);
        column = nearest_open_column();
        reached = distance_[column];
    }
    for (const Closed& passed : closed_) price_[passed.column] = passed.price + (passed.distance - reached);
    while (true) {
        const std::int64_t owner = predecessor_[column];
        const std::int64_t given_up = column_of_row_[owner];
        assign(owner, column);
        if (owner == row) break;
        column = given_up;
    }
}

/// The open column at the smallest distance: one that nobody has if there is any (the search ends there), else the first.
std::int64_t AssignmentSolver::nearest_open_column() const {
    const std::int64_t n = static_cast<std::int64_t>(distance_.size());
    const double least = *std::min_element(block_minimum_.begin(), block_minimum_.end());
    std::int64_t first = none;
    for (std::size_t b = 0; b < block_minimum_.size(); ++b) {
        if (block_minimum_[b] != least) continue;
        const std::int64_t begin = static_cast<std::int64_t>(b) * kernels::block;
        for (std::int64_t j = begin; j < std::min(n, begin + kernels::block); ++j) {
            if (distance_[j] != least) continue;
            if (row_of_column_[j] == none) return j;
            if (first == none) first = j;
        }
    }
    return first;
}

}  // namespace thalweg::symmetry
