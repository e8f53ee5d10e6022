#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace thalweg::symmetry {

/// Exact linear assignment (shortest augmenting paths, Jonker & Volgenant 1987): the permutation that maximises
/// Σ_i gain[i, column(i)] over an n×n matrix in row-major order. O(n³) worst case, usually far less.
///
/// The solver keeps its dual prices from one call to the next: solving a similar matrix again (the next sweep of weight
/// matching) starts from them. Results do not depend on it except among equally good assignments; ties go to the
/// smaller index on a cold start, and any start gives the same result for the same sequence of calls.
class AssignmentSolver {
  public:
    /// column[i] for each row i. std::invalid_argument when the matrix holds a NaN or an infinity or is not n×n.
    const std::vector<std::int64_t>& maximise(std::span<const double> gain, std::int64_t n);
    const std::vector<std::int64_t>& maximise(std::span<const float> gain, std::int64_t n);
    /// Forgets the duals.
    void reset();
    /// The column prices of the last call (ν of the dual, for cost = −gain).
    std::span<const double> prices() const { return column_price_; }

  private:
    template <class T>
    void solve(std::span<const T> gain, std::int64_t n);
    std::vector<double> column_price_;
    std::vector<std::int64_t> column_of_row_, row_of_column_;
    // scratch, kept between calls
    std::vector<double> distance_;
    std::vector<std::int64_t> predecessor_, columns_, free_rows_;
};

}  // namespace thalweg::symmetry
