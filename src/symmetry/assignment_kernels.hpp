#pragma once

#include <cstdint>

// The loops in which the assignment solver spends its time, over one row of the gain matrix. The cost of (i, j) is
// −gain[i, j], its reduced cost −gain[i, j] − price[j].

namespace thalweg::symmetry::kernels {

/// Columns are looked at in blocks, so that the place of a minimum is searched in one block only.
inline constexpr std::int64_t block = 128;

struct TwoSmallest {
    double first;         ///< the smallest reduced cost of the row
    std::int64_t column;  ///< the first column that has it
    double second;  ///< the smallest of the others (equal to `first` for a tie); +∞ when there is none
};
TwoSmallest two_smallest(const float* row, const double* price, std::int64_t n);
TwoSmallest two_smallest(const double* row, const double* price, std::int64_t n);

/// minimum[j] = min(minimum[j], cost − shift), and place[j] = row_index where it became smaller.
void take_column_minima(const float* row, std::int64_t n, std::int64_t row_index, double shift,
                        double* minimum, std::int64_t* place);
void take_column_minima(const double* row, std::int64_t n, std::int64_t row_index, double shift,
                        double* minimum, std::int64_t* place);

/// One step of Dijkstra's algorithm: the paths that go through `row_index`, which is `shift` less than its reduced costs
/// and not shorter than `floor` (rounding), are compared with the distances so far. Also the minimum of each block.
struct Relaxation {
    const double* price;
    double* distance;
    std::int64_t* predecessor;
    double* block_minimum;
};
void relax(const float* row, std::int64_t n, std::int64_t row_index, double shift, double floor,
           const Relaxation& to);
void relax(const double* row, std::int64_t n, std::int64_t row_index, double shift, double floor,
           const Relaxation& to);

/// True when every value is finite and at most `limit` in magnitude.
bool all_within(const float* values, std::int64_t count, double limit);
bool all_within(const double* values, std::int64_t count, double limit);

}  // namespace thalweg::symmetry::kernels
