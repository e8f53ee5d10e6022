#include <benchmark/benchmark.h>

#include <cstdint>
#include <numeric>
#include <vector>

#include "thalweg/core/random.hpp"
#include "thalweg/symmetry/assignment.hpp"

// Linear assignment at n = 256…4096, one thread. bench/assignment_scipy.py times scipy's solver on matrices of the same
// kinds.

namespace {

using thalweg::core::Random;
using thalweg::symmetry::AssignmentSolver;

/// Independent uniform gains.
std::vector<float> random_gain(std::int64_t n, Random& random) {
    std::vector<float> gain(static_cast<std::size_t>(n * n));
    for (float& x : gain) x = static_cast<float>(random.uniform());
    return gain;
}

std::vector<double> features(std::int64_t n, std::int64_t width, double mean, Random& random) {
    std::vector<double> result(static_cast<std::size_t>(n * width));
    for (double& x : result) x = random.normal(mean);
    return result;
}

/// gain[i, j] = ⟨a_i, b_j⟩
std::vector<float> products(const std::vector<double>& a, const std::vector<double>& b, std::int64_t n) {
    const std::size_t width = a.size() / static_cast<std::size_t>(n);
    std::vector<float> gain;
    gain.reserve(static_cast<std::size_t>(n * n));
    for (auto row = a.begin(); row != a.end(); row += static_cast<std::ptrdiff_t>(width)) {
        for (auto column = b.begin(); column != b.end(); column += static_cast<std::ptrdiff_t>(width)) {
            gain.push_back(static_cast<float>(
                std::inner_product(row, row + static_cast<std::ptrdiff_t>(width), column, 0.0)));
        }
    }
    return gain;
}

/// Two noisy views of the same 32 features a channel, as of two networks that learned alike.
std::vector<float> matching_gain(std::int64_t n, Random& random) {
    const auto a = features(n, 32, 0, random);
    auto b = a;
    for (double& x : b) x += random.normal();
    return products(a, b, n);
}

/// Eight features with a common mean, two independent sets: every row likes the same columns. Hard for any solver.
std::vector<float> correlated_gain(std::int64_t n, Random& random) {
    const auto a = features(n, 8, 1, random);
    return products(a, features(n, 8, 1, random), n);
}

template <std::vector<float> (*make)(std::int64_t, Random&)>
void cold(benchmark::State& state) {
    const std::int64_t n = state.range(0);
    Random random(1, "benchmark");
    const auto gain = make(n, random);
    AssignmentSolver solver;
    for (auto _ : state) {
        solver.reset();
        benchmark::DoNotOptimize(solver.maximise(gain, n).data());
    }
}

/// The same matrix with a little noise each time, as in the sweeps of weight matching.
template <std::vector<float> (*make)(std::int64_t, Random&)>
void warm(benchmark::State& state) {
    const std::int64_t n = state.range(0);
    Random random(1, "benchmark");
    std::vector<std::vector<float>> gains(3, make(n, random));
    for (std::size_t k = 1; k < gains.size(); ++k) {
        for (float& x : gains[k]) x *= static_cast<float>(random.uniform(0.99, 1.01));
    }
    AssignmentSolver solver;
    solver.maximise(gains.back(), n);
    std::size_t next = 0;
    for (auto _ : state) benchmark::DoNotOptimize(solver.maximise(gains[next++ % gains.size()], n).data());
}

void sizes(benchmark::internal::Benchmark* benchmark) {
    benchmark->RangeMultiplier(2)->Range(256, 4096)->Unit(benchmark::kMillisecond);
}

}  // namespace

BENCHMARK(cold<random_gain>)->Name("assignment/random")->Apply(sizes);
BENCHMARK(cold<matching_gain>)->Name("assignment/matching")->Apply(sizes);
BENCHMARK(cold<correlated_gain>)->Name("assignment/correlated")->Apply(sizes);
BENCHMARK(warm<random_gain>)->Name("assignment/random_warm")->Apply(sizes);
BENCHMARK(warm<matching_gain>)->Name("assignment/matching_warm")->Apply(sizes);

BENCHMARK_MAIN();
