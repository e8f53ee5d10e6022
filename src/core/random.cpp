#include "thalweg/core/random.hpp"

#include <algorithm>
#include <boost/random/gamma_distribution.hpp>
#include <boost/random/normal_distribution.hpp>
#include <boost/random/uniform_int_distribution.hpp>
#include <numeric>
#include <stdexcept>
#include <unordered_set>

namespace thalweg::core {
namespace {

/// FNV-1a.
std::uint64_t hash(std::string_view text) {
    std::uint64_t h = 0xcbf29ce484222325ULL;
    for (const char c : text) {
        h ^= static_cast<unsigned char>(c);
        h *= 0x100000001b3ULL;
    }
    return h;
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection of 64 bits in which every input bit matters.
std::uint64_t mix(std::uint64_t x) {
    x += 0x9e3779b97f4a7c15ULL;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
}

/// Mixing between the arguments keeps (round 1, client 2) apart from (round 2, client 1).
std::uint64_t key(std::uint64_t seed, std::string_view purpose, std::int64_t round, std::int64_t client) {
    std::uint64_t k = mix(seed);
    k = mix(k ^ hash(purpose));
    k = mix(k ^ static_cast<std::uint64_t>(round));
    return mix(k ^ static_cast<std::uint64_t>(client));
}

}  // namespace

Random::Random(std::uint64_t seed, std::string_view purpose, std::int64_t round, std::int64_t client)
    : engine_(key(seed, purpose, round, client)) {}

double Random::uniform() {
    return static_cast<double>(engine_() >> 11) * 0x1.0p-53;
}

double Random::normal(double mean, double deviation) {
    if (!(deviation >= 0)) throw std::invalid_argument("Random::normal: the deviation must be >= 0");
    return mean + deviation * boost::random::normal_distribution<double>(0.0, 1.0)(engine_);
}

double Random::gamma(double shape) {
    if (!(shape > 0)) throw std::invalid_argument("Random::gamma: the shape must be > 0");
    return boost::random::gamma_distribution<double>(shape, 1.0)(engine_);
}

std::int64_t Random::below(std::int64_t bound) {
    if (bound <= 0) throw std::invalid_argument("Random::below: the bound must be > 0");
    return boost::random::uniform_int_distribution<std::int64_t>(0, bound - 1)(engine_);
}

std::vector<std::int64_t> Random::permutation(std::int64_t n) {
    if (n < 0) throw std::invalid_argument("Random::permutation: the length must be >= 0");
    std::vector<std::int64_t> order(static_cast<std::size_t>(n));
    std::iota(order.begin(), order.end(), std::int64_t{0});
    shuffle(std::span<std::int64_t>(order));
    return order;
}

std::vector<std::int64_t> Random::sample(std::int64_t n, std::int64_t count) {
    if (count < 0 || count > n) throw std::invalid_argument("Random::sample: 0 <= count <= n must hold");
    // Floyd: draw from 0…last; a value already taken stands for `last` itself, which cannot have been drawn before.
    std::unordered_set<std::int64_t> taken;
    taken.reserve(static_cast<std::size_t>(count));
    std::vector<std::int64_t> chosen;
    chosen.reserve(static_cast<std::size_t>(count));
    for (std::int64_t last = n - count; last < n; ++last) {
        const std::int64_t draw = below(last + 1);
        const std::int64_t pick = taken.insert(draw).second ? draw : last;
        if (pick == last) taken.insert(last);
        chosen.push_back(pick);
    }
    std::sort(chosen.begin(), chosen.end());
    return chosen;
}

}  // namespace thalweg::core
