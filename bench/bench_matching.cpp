#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <benchmark/benchmark.h>

#include "thalweg/aggregator/matching.hpp"
#include "thalweg/core/schema.hpp"

// Weight matching and permuting, one thread.

namespace {

using namespace thalweg;

model::ModelGraph mlp(const std::string& hidden) {
    const auto spec = core::parse_yaml("{kind: mlp, hidden: " + hidden + "}", "benchmark");
    return model::build_model(core::resolve_plugin("model", "kind", spec, "model"), {784}, 10);
}

model::Parameters drawn(const model::ModelGraph& graph, std::int64_t number) {
    core::Random random(1, "benchmark", 0, number);
    return model::initialise(graph, random);
}

/// Two models that share nothing: more sweeps than trained ones need.
void independent(benchmark::State& state, const std::string& hidden) {
    at::set_num_threads(1);
    const auto graph = mlp(hidden);
    const auto symmetries = symmetry::derive(graph);
    const auto a = drawn(graph, 0), b = drawn(graph, 1);
    int sweeps = 0;
    for (auto _ : state) {
        core::Random random(1, "weight matching");
        sweeps = aggregator::weight_matching(graph, symmetries, a, b, random).sweeps;
    }
    state.counters["sweeps"] = sweeps;
}

/// B is A with its channels permuted and a tenth of noise, as of two trainings that found the same solution.
void planted(benchmark::State& state, const std::string& hidden) {
    at::set_num_threads(1);
    const auto graph = mlp(hidden);
    const auto symmetries = symmetry::derive(graph);
    const auto a = drawn(graph, 0);
    core::Random random(1, "planted");
    auto b = symmetry::permute(a, symmetries, symmetry::random_permutations(symmetries, random));
    b.values.add_(drawn(graph, 1).values, 0.1);
    int sweeps = 0;
    for (auto _ : state) {
        core::Random order(1, "weight matching");
        sweeps = aggregator::weight_matching(graph, symmetries, a, b, order).sweeps;
    }
    state.counters["sweeps"] = sweeps;
}

void permute(benchmark::State& state, const std::string& hidden) {
    at::set_num_threads(1);
    const auto graph = mlp(hidden);
    const auto symmetries = symmetry::derive(graph);
    const auto a = drawn(graph, 0);
    core::Random random(1, "permute");
    const auto permutations = symmetry::random_permutations(symmetries, random);
    for (auto _ : state) benchmark::DoNotOptimize(symmetry::permute(a, symmetries, permutations).values);
}

}  // namespace

BENCHMARK_CAPTURE(independent, 784_512_512_512_10, "[512, 512, 512]")
    ->Name("weight_matching/independent_784_512_512_512_10")
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(planted, 784_512_512_512_10, "[512, 512, 512]")
    ->Name("weight_matching/planted_784_512_512_512_10")
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(permute, 784_512_512_512_10, "[512, 512, 512]")
    ->Name("permute/784_512_512_512_10")
    ->Unit(benchmark::kMillisecond);

BENCHMARK_MAIN();
