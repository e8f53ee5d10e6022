#include "thalweg/symmetry/assignment.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <limits>
#include <numeric>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "thalweg/core/random.hpp"

namespace thalweg::symmetry::assignment_test {
namespace {

using Matrix = std::vector<double>;

double total(const Matrix& gain, const std::vector<std::int64_t>& columns) {
    const std::size_t n = columns.size();
    double sum = 0;
    for (std::size_t i = 0; i < n; ++i) sum += gain[i * n + static_cast<std::size_t>(columns[i])];
    return sum;
}

void expect_permutation(std::vector<std::int64_t> columns) {
    std::sort(columns.begin(), columns.end());
    for (std::size_t i = 0; i < columns.size(); ++i) ASSERT_EQ(columns[i], static_cast<std::int64_t>(i));
}

/// The slow and obvious way: all permutations.
double best_of_all(const Matrix& gain, std::int64_t n) {
    std::vector<std::int64_t> columns(static_cast<std::size_t>(n));
    std::iota(columns.begin(), columns.end(), 0);
    double best = -std::numeric_limits<double>::infinity();
    do {
        best = std::max(best, total(gain, columns));
    } while (std::next_permutation(columns.begin(), columns.end()));
    return best;
}

/// Value of the dual under the solver's column prices; never below the optimum, equal to it for optimal prices.
double dual_value(const Matrix& gain, std::span<const double> prices) {
    const std::size_t n = prices.size();
    double sum = -std::accumulate(prices.begin(), prices.end(), 0.0);
    for (std::size_t i = 0; i < n; ++i) {
        double least = std::numeric_limits<double>::infinity();
        for (std::size_t j = 0; j < n; ++j) least = std::min(least, -gain[i * n + j] - prices[j]);
        sum -= least;
    }
    return sum;
}

/// Matrices of several sorts: smooth, negative, full of ties, duplicated rows, a huge range, one constant.
Matrix draw(int sort, std::int64_t n, core::Random& random) {
    Matrix gain(static_cast<std::size_t>(n * n));
    for (std::size_t at = 0; at < gain.size(); ++at) {
        double& x = gain[at];
        switch (sort) {
            case 0:
                x = random.uniform();
                break;
            case 1:
                x = random.normal(-50, 3);
                break;
            case 2:
                x = static_cast<double>(random.below(3));
                break;
            case 3:
                x = static_cast<double>(random.below(100) - 50);
                break;
            case 4:
                x = at >= static_cast<std::size_t>(n) && random.below(2) == 0
                        ? gain[at - static_cast<std::size_t>(n)]
                        : random.normal();
                break;
            case 5:
                x = std::ldexp(random.normal(), static_cast<int>(random.below(60)) - 30);
                break;
            default:
                x = 7.25;
        }
    }
    return gain;
}
constexpr int sorts = 7;

double magnitude(const Matrix& gain) {
    double largest = 1e-300;
    for (const double x : gain) largest = std::max(largest, std::abs(x));
    return largest;
}

TEST(Assignment, EqualsTheBestOfAllPermutations) {
    core::Random random(1, "assignment test");
    AssignmentSolver solver;
    for (std::int64_t n = 1; n <= 8; ++n) {
        const int repeats = n <= 6 ? 150 : n == 7 ? 25 : 4;
        for (int sort = 0; sort < sorts; ++sort) {
            for (int repeat = 0; repeat < repeats; ++repeat) {
                const Matrix gain = draw(sort, n, random);
                solver.reset();
                const auto columns = solver.maximise(gain, n);
                expect_permutation(columns);
                ASSERT_NEAR(total(gain, columns), best_of_all(gain, n), 1e-12 * magnitude(gain))
                    << "n " << n << ", sort " << sort << ", repeat " << repeat;
            }
        }
    }
}

TEST(Assignment, FloatsAreSolvedExactlyAsTheyAre) {
    core::Random random(2, "assignment test");
    for (int repeat = 0; repeat < 200; ++repeat) {
        const Matrix drawn = draw(repeat % sorts, 6, random);
        const std::vector<float> narrow(drawn.begin(), drawn.end());
        const Matrix gain(narrow.begin(), narrow.end());
        AssignmentSolver solver;
        ASSERT_NEAR(total(gain, solver.maximise(narrow, 6)), best_of_all(gain, 6), 1e-12 * magnitude(gain));
    }
}

TEST(Assignment, PricesProveTheOptimum) {
    core::Random random(3, "assignment test");
    // Sizes around the blocks and lanes of the scanning loops, and one that is large.
    for (const std::int64_t n : {9, 64, 127, 128, 129, 131, 263, 512}) {
        for (int sort = 0; sort < sorts; ++sort) {
            const Matrix gain = draw(sort, n, random);
            AssignmentSolver solver;
            const auto columns = solver.maximise(gain, n);
            expect_permutation(columns);
            const double scale = magnitude(gain) * static_cast<double>(n);
            EXPECT_NEAR(total(gain, columns), dual_value(gain, solver.prices()), 1e-12 * scale)
                << "n " << n << ", sort " << sort;
        }
    }
}

TEST(Assignment, WarmStartsReachTheSameOptimum) {
    core::Random random(4, "assignment test");
    for (int sort = 0; sort < sorts; ++sort) {
        const std::int64_t n = 150;
        Matrix gain = draw(sort, n, random);
        AssignmentSolver warm;
        for (int step = 0; step < 6; ++step) {
            const double warm_total = total(gain, warm.maximise(gain, n));
            AssignmentSolver cold;
            const double cold_total = total(gain, cold.maximise(gain, n));
            EXPECT_NEAR(warm_total, cold_total, 1e-12 * magnitude(gain) * static_cast<double>(n))
                << "sort " << sort << ", step " << step;
            // a similar matrix, then one that has nothing to do with it
            if (step < 4) {
                for (double& x : gain) x += 0.05 * random.normal();
            } else {
                gain = draw((sort + 1) % sorts, n, random);
            }
        }
    }
}

TEST(Assignment, TheSameCallsGiveTheSameColumns) {
    core::Random random(5, "assignment test");
    const Matrix first = draw(2, 60, random), second = draw(2, 60, random);
    AssignmentSolver a, b;
    EXPECT_EQ(a.maximise(first, 60), b.maximise(first, 60));
    EXPECT_EQ(a.maximise(second, 60), b.maximise(second, 60));
    b.reset();
    AssignmentSolver fresh;
    EXPECT_EQ(b.maximise(second, 60), fresh.maximise(second, 60));
}

TEST(Assignment, AChangeOfSizeStartsAnew) {
    core::Random random(6, "assignment test");
    AssignmentSolver used, fresh;
    used.maximise(draw(0, 40, random), 40);
    const Matrix gain = draw(0, 20, random);
    EXPECT_EQ(used.maximise(gain, 20), fresh.maximise(gain, 20));
}

TEST(Assignment, AConstantMatrixGivesTheIdentity) {
    for (const std::int64_t n : {0, 1, 2, 7, 200}) {
        AssignmentSolver solver;
        const auto columns = solver.maximise(Matrix(static_cast<std::size_t>(n * n), -3.0), n);
        ASSERT_EQ(static_cast<std::int64_t>(columns.size()), n);
        for (std::int64_t i = 0; i < n; ++i) EXPECT_EQ(columns[static_cast<std::size_t>(i)], i);
    }
}

TEST(Assignment, FindsAPlantedPermutation) {
    core::Random random(7, "assignment test");
    const std::int64_t n = 300;
    const auto planted = random.permutation(n);
    std::vector<float> gain(static_cast<std::size_t>(n * n));
    for (auto& x : gain) x = static_cast<float>(random.uniform(0, 0.9));
    for (std::int64_t i = 0; i < n; ++i)
        gain[static_cast<std::size_t>(i * n + planted[static_cast<std::size_t>(i)])] = 1;
    AssignmentSolver solver;
    EXPECT_EQ(solver.maximise(gain, n), planted);
}

TEST(Assignment, RefusesWhatItCannotSolve) {
    AssignmentSolver solver;
    const double nan = std::numeric_limits<double>::quiet_NaN();
    const double infinity = std::numeric_limits<double>::infinity();
    for (const double bad : {nan, infinity, -infinity, 1e200}) {
        for (std::size_t at = 0; at < 9; ++at) {
            Matrix gain(9, 1.0);
            gain[at] = bad;
            EXPECT_THROW(solver.maximise(gain, 3), std::invalid_argument);
        }
    }
    EXPECT_THROW(solver.maximise(std::vector<float>(9, std::numeric_limits<float>::quiet_NaN()), 3),
                 std::invalid_argument);
    EXPECT_THROW(solver.maximise(Matrix(8, 1.0), 3), std::invalid_argument);
    EXPECT_EQ(solver.maximise(Matrix{0, 1, 1, 0}, 2), (std::vector<std::int64_t>{1, 0}));
}

// The matrices of tests/golden/make_assignment.py, made again by the same arithmetic.

std::uint64_t random_bits(std::uint64_t seed, std::uint64_t index) {
    std::uint64_t z = ((seed << 32) + index + 1) * 0x9E3779B97F4A7C15U;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
    return z ^ (z >> 31);
}

double uniform(std::uint64_t seed, std::uint64_t index) {
    return static_cast<double>(random_bits(seed, index) >> 11) * 0x1p-53;
}

double golden_value(const std::string& kind, std::uint64_t n, std::uint64_t seed, std::uint64_t i,
                    std::uint64_t j) {
    const std::uint64_t at = i * n + j;
    const double u = uniform(seed, at);
    if (kind == "uniform") return u;
    if (kind == "centred") return 20.0 * u - 10.0;
    if (kind == "integers") return std::floor(10.0 * u);
    if (kind == "range") return std::ldexp(u, static_cast<int>(random_bits(seed + 1000, at) % 41) - 20);
    if (kind == "duplicates") return uniform(seed, i / 3 * n + j);
    double sum = 0;
    for (std::uint64_t k = 0; k < 5; ++k) {
        const double b = uniform(seed + 2000, j * 5 + k) + 0.5 * uniform(seed + 3000, j * 5 + k);
        sum += uniform(seed + 2000, i * 5 + k) * b;
    }
    return sum;
}

TEST(Assignment, AgreesWithScipysRecordedOptima) {
    std::ifstream file(THALWEG_TEST_DIR "/golden/assignment.txt");
    std::string line;
    int cases = 0;
    while (std::getline(file, line)) {
        if (line.starts_with('#')) continue;
        std::istringstream words(line);
        std::string kind, optimum;
        std::uint64_t n = 0, seed = 0;
        words >> kind >> n >> seed >> optimum;
        std::vector<std::int64_t> recorded(n);
        for (auto& column : recorded) words >> column;
        ASSERT_TRUE(words) << line;
        Matrix gain(n * n);
        for (std::uint64_t i = 0; i < n; ++i) {
            for (std::uint64_t j = 0; j < n; ++j) gain[i * n + j] = golden_value(kind, n, seed, i, j);
        }
        AssignmentSolver solver;
        const auto columns = solver.maximise(gain, static_cast<std::int64_t>(n));
        const double expected = std::strtod(optimum.c_str(), nullptr);
        EXPECT_NEAR(total(gain, recorded), expected, 1e-12 * std::abs(expected))
            << "another matrix: " << line;
        EXPECT_NEAR(total(gain, columns), expected, 1e-12 * std::abs(expected)) << kind << ' ' << n;
        if (kind == "uniform" || kind == "centred") {
            EXPECT_EQ(columns, recorded) << kind << ' ' << n;
        }
        ++cases;
    }
    EXPECT_EQ(cases, 48);
}

}  // namespace
}  // namespace thalweg::symmetry::assignment_test
