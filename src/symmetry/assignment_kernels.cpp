#include "assignment_kernels.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

// Written with the vector extension of GCC and clang: eight doubles are four SSE2 registers in the portable binary and
// two AVX registers where the machine has them. Lanes are combined by minima only, so the results do not depend on the
// width. Vectors pass by reference because their calling convention would depend on it.

#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__)
#define THALWEG_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define THALWEG_CLONES
#endif
#define THALWEG_INLINE __attribute__((always_inline)) inline

namespace thalweg::symmetry::kernels {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr std::int64_t width = 8;
using Lanes = double __attribute__((vector_size(width * sizeof(double))));
using FloatLanes = float __attribute__((vector_size(width * sizeof(float))));
using IndexLanes = std::int64_t __attribute__((vector_size(width * sizeof(std::int64_t))));

THALWEG_INLINE void load(const double* from, Lanes& to) {
    std::memcpy(&to, from, sizeof to);
}
THALWEG_INLINE void load(const float* from, Lanes& to) {
    FloatLanes narrow;
    std::memcpy(&narrow, from, sizeof narrow);
    to = __builtin_convertvector(narrow, Lanes);
}
THALWEG_INLINE void load(const std::int64_t* from, IndexLanes& to) {
    std::memcpy(&to, from, sizeof to);
}
template <class Vector, class T>
THALWEG_INLINE void store(const Vector& from, T* to) {
    std::memcpy(to, &from, sizeof from);
}

THALWEG_INLINE double smallest(const Lanes& lanes) {
    double result = lanes[0];
    for (int l = 1; l < width; ++l) result = lanes[l] < result ? lanes[l] : result;
    return result;
}

template <class T>
THALWEG_INLINE double reduced_cost(const T* row, const double* price, std::int64_t j) {
    return -static_cast<double>(row[j]) - price[j];
}

/// The smallest and second smallest of `count` values that arrive one by one or in lanes.
struct Pair {
    double first = infinity, second = infinity;
    THALWEG_INLINE void take(double value) {
        second = std::min(second, std::max(first, value));
        first = std::min(first, value);
    }
};

template <class T>
THALWEG_INLINE Pair two_smallest_of_block(const T* row, const double* price, std::int64_t begin,
                                          std::int64_t end) {
    Pair result;
    std::int64_t j = begin;
    if (end - begin >= width) {
        Lanes first, second, value, prices;
        first = second = Lanes{} + infinity;
        for (; j + width <= end; j += width) {
            load(row + j, value);
            load(price + j, prices);
            value = -value - prices;
            const Lanes larger = value < first ? first : value;
            second = larger < second ? larger : second;
            first = value < first ? value : first;
        }
        for (int l = 0; l < width; ++l) {
            result.take(first[l]);
            result.take(second[l]);
        }
    }
    for (; j < end; ++j) result.take(reduced_cost(row, price, j));
    return result;
}

template <class T>
THALWEG_INLINE TwoSmallest two_smallest_of_row(const T* row, const double* price, std::int64_t n) {
    Pair best;
    std::int64_t where = 0;
    for (std::int64_t begin = 0; begin < n; begin += block) {
        const Pair here = two_smallest_of_block(row, price, begin, std::min(n, begin + block));
        if (here.first < best.first) where = begin;
        best.take(here.first);
        best.take(here.second);
    }
    while (where + 1 < n && reduced_cost(row, price, where) != best.first) ++where;
    return {best.first, where, best.second};
}

template <class T>
THALWEG_INLINE void column_minima(const T* row, std::int64_t n, std::int64_t row_index, double shift,
                                  double* minimum, std::int64_t* place) {
    std::int64_t j = 0;
    for (; j + width <= n; j += width) {
        Lanes value, least;
        IndexLanes places;
        load(row + j, value);
        load(minimum + j, least);
        load(place + j, places);
        value = -value - shift;
        const IndexLanes better = value < least;
        store(better ? value : least, minimum + j);
        store(better ? IndexLanes{} + row_index : places, place + j);
    }
    for (; j < n; ++j) {
        const double value = -static_cast<double>(row[j]) - shift;
        if (value < minimum[j]) {
            minimum[j] = value;
            place[j] = row_index;
        }
    }
}

template <class T>
THALWEG_INLINE double relax_block(const T* row, std::int64_t begin, std::int64_t end, std::int64_t row_index,
                                  double shift, double floor, const Relaxation& to) {
    double least = infinity;
    std::int64_t j = begin;
    if (end - begin >= width) {
        const Lanes floors = Lanes{} + floor;
        Lanes minima = Lanes{} + infinity;
        for (; j + width <= end; j += width) {
            Lanes path, prices, distance;
            IndexLanes predecessor;
            load(row + j, path);
            load(to.price + j, prices);
            load(to.distance + j, distance);
            load(to.predecessor + j, predecessor);
            path = -path - prices - shift;
            path = path < floors ? floors : path;
            const IndexLanes shorter = path < distance;
            distance = shorter ? path : distance;
            predecessor = shorter ? IndexLanes{} + row_index : predecessor;
            store(distance, to.distance + j);
            store(predecessor, to.predecessor + j);
            minima = distance < minima ? distance : minima;
        }
        least = smallest(minima);
    }
    for (; j < end; ++j) {
        const double path = std::max(floor, reduced_cost(row, to.price, j) - shift);
        if (path < to.distance[j]) {
            to.distance[j] = path;
            to.predecessor[j] = row_index;
        }
        least = std::min(least, to.distance[j]);
    }
    return least;
}

template <class T>
THALWEG_INLINE void relax_row(const T* row, std::int64_t n, std::int64_t row_index, double shift,
                              double floor, const Relaxation& to) {
    double* least = to.block_minimum;
    for (std::int64_t begin = 0; begin < n; begin += block) {
        *least++ = relax_block(row, begin, std::min(n, begin + block), row_index, shift, floor, to);
    }
}

template <class T>
THALWEG_INLINE bool within(const T* values, std::int64_t count, double limit) {
    int outside = 0;
    // Not "> limit": a NaN is outside too.
    for (std::int64_t i = 0; i < count; ++i) outside |= !(values[i] <= limit) | !(values[i] >= -limit);
    return outside == 0;
}

}  // namespace

THALWEG_CLONES TwoSmallest two_smallest(const float* row, const double* price, std::int64_t n) {
    return two_smallest_of_row(row, price, n);
}
THALWEG_CLONES TwoSmallest two_smallest(const double* row, const double* price, std::int64_t n) {
    return two_smallest_of_row(row, price, n);
}
THALWEG_CLONES void take_column_minima(const float* row, std::int64_t n, std::int64_t row_index, double shift,
                                       double* minimum, std::int64_t* place) {
    column_minima(row, n, row_index, shift, minimum, place);
}
THALWEG_CLONES void take_column_minima(const double* row, std::int64_t n, std::int64_t row_index,
                                       double shift, double* minimum, std::int64_t* place) {
    column_minima(row, n, row_index, shift, minimum, place);
}
THALWEG_CLONES void relax(const float* row, std::int64_t n, std::int64_t row_index, double shift,
                          double floor, const Relaxation& to) {
    relax_row(row, n, row_index, shift, floor, to);
}
THALWEG_CLONES void relax(const double* row, std::int64_t n, std::int64_t row_index, double shift,
                          double floor, const Relaxation& to) {
    relax_row(row, n, row_index, shift, floor, to);
}
THALWEG_CLONES bool all_within(const float* values, std::int64_t count, double limit) {
    return within(values, count, limit);
}
THALWEG_CLONES bool all_within(const double* values, std::int64_t count, double limit) {
    return within(values, count, limit);
}

}  // namespace thalweg::symmetry::kernels
