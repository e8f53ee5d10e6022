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
/// smaller index on a cold start (a constant matrix gives the identity), and any start gives the same result for the
/// same sequence of calls. The arithmetic is in double whatever the matrix is in.
class AssignmentSolver {
  public:
    /// column[i] for each row i. std::invalid_argument when the matrix holds a NaN, an infinity or a magnitude over
    /// 1e150 (sums of prices could overflow), or is not n×n.
    const std::vector<std::int64_t>& maximise(std::span<const double> gain, std::int64_t n);
    const std::vector<std::int64_t>& maximise(std::span<const float> gain, std::int64_t n);
    /// Forgets the duals.
    void reset();
    /// The column prices of the last call (ν of the dual, for cost = −gain): with μ_i = min_j (−gain[i,j] − ν_j), the
    /// optimum is −Σμ − Σν.
    std::span<const double> prices() const { return price_; }

  private:
    template <class T>
    const std::vector<std::int64_t>& solve(std::span<const T> gain, std::int64_t n);
    template <class T>
    void reduce_columns(const T* gain, std::int64_t n);
    template <class T>
    void take_tight_edges(const T* gain, std::int64_t n);
    template <class T>
    void augment_by_row_reduction(const T* gain, std::int64_t n);
    template <class T>
    std::int64_t tied_column(const T* row, std::int64_t n, std::int64_t smallest, double value) const;
    template <class T>
    void augment_by_shortest_path(const T* gain, std::int64_t n, std::int64_t row);
    std::int64_t nearest_open_column() const;
    void assign(std::int64_t row, std::int64_t column);

    std::vector<double> price_;
    std::vector<std::int64_t> column_of_row_, row_of_column_, free_rows_;
    // Scratch of one shortest-path search. A closed column has distance +∞ and price −∞ while it lasts, so that the
    // scanning loop passes over it without a test.
    struct Closed {
        std::int64_t column;
        double distance, price;
    };
    std::vector<double> distance_, block_minimum_;
    std::vector<std::int64_t> predecessor_;
    std::vector<Closed> closed_;
};

}  // namespace thalweg::symmetry
