#pragma once

#include <boost/random/mersenne_twister.hpp>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

namespace thalweg::core {

/// A stream of random numbers named by (seed, purpose, round, client), never by a rank, a thread or the clock: the
/// same four values give the same numbers on any machine layout. Engine and distributions are Boost.Random's, which
/// (unlike the standard library's distributions) are the same on every platform.
///
/// `purpose` is a short literal such as "initialisation"; two purposes give independent streams.
class Random {
  public:
    Random(std::uint64_t seed, std::string_view purpose, std::int64_t round = 0, std::int64_t client = 0);

    std::uint64_t next() { return engine_(); }
    /// Uniform in [0, 1).
    double uniform();
    /// Uniform in [low, high).
    double uniform(double low, double high) { return low + (high - low) * uniform(); }
    double normal(double mean = 0.0, double deviation = 1.0);
    /// Gamma(shape, 1); shape > 0.
    double gamma(double shape);
    /// Uniform integer in [0, bound); bound > 0.
    std::int64_t below(std::int64_t bound);
    /// Fisher–Yates.
    template <class T>
    void shuffle(std::span<T> items) {
        for (std::size_t i = items.size(); i > 1; --i) {
            std::swap(items[i - 1], items[static_cast<std::size_t>(below(static_cast<std::int64_t>(i)))]);
        }
    }
    /// 0…n-1 in random order.
    std::vector<std::int64_t> permutation(std::int64_t n);
    /// `count` different values of 0…n-1, in increasing order; O(count) memory (Floyd's algorithm). count ≤ n.
    std::vector<std::int64_t> sample(std::int64_t n, std::int64_t count);

  private:
    boost::random::mt19937_64 engine_;
};

}  // namespace thalweg::core
