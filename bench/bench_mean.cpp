// The exact weighted mean of 32 models 784-256-256-10 (269,322 numbers each) in one process, against a plain loop of
// tensor additions in float.
#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <benchmark/benchmark.h>

#include "thalweg/aggregator/stage.hpp"
#include "thalweg/core/communicator.hpp"
#include "thalweg/core/random.hpp"
#include "thalweg/core/schema.hpp"

namespace {

using namespace thalweg;

constexpr int models = 32;

struct Cohort {
    Cohort() {
        core::Random random(1, "benchmark");
        for (int client = 0; client < models; ++client) {
            updates.push_back({client, 100 + client, model::initialise(graph, random), {}});
            members.push_back({client, 100 + client, 0});
        }
    }
    model::ModelGraph graph = model::build_model(
        core::resolve_plugin("model", "kind",
                             core::parse_yaml("{kind: mlp, hidden: [256, 256]}", "benchmark"), "model"),
        {784}, 10);
    std::vector<aggregator::Update> updates;
    std::vector<aggregator::Member> members;
};

void exact_mean(benchmark::State& state) {
    const Cohort cohort;
    const auto symmetries = symmetry::derive(cohort.graph);
    core::SelfCommunicator self;
    aggregator::FusionContext context{cohort.graph,   symmetries, self,    1,       1,
                                      cohort.members, nullptr,    nullptr, nullptr, nullptr};
    const auto weights = aggregator::weights(cohort.members, aggregator::Weighting::samples);
    for (auto _ : state) benchmark::DoNotOptimize(aggregator::mean(cohort.updates, context, weights));
}

void tensor_loop(benchmark::State& state) {
    const Cohort cohort;
    const auto weights = aggregator::weights(cohort.members, aggregator::Weighting::samples);
    for (auto _ : state) {
        auto sum = at::zeros_like(cohort.updates.front().parameters.values);
        for (std::size_t i = 0; i < models; ++i) sum.add_(cohort.updates[i].parameters.values, weights[i]);
        benchmark::DoNotOptimize(sum);
    }
}

BENCHMARK(exact_mean)->Name("mean/32x784-256-256-10/exact")->Unit(benchmark::kMillisecond);
BENCHMARK(tensor_loop)->Name("mean/32x784-256-256-10/float_tensors")->Unit(benchmark::kMillisecond);

}  // namespace

int main(int argc, char** argv) {
    at::set_num_threads(1);
    benchmark::Initialize(&argc, argv);
    benchmark::RunSpecifiedBenchmarks();
    benchmark::Shutdown();
    return 0;
}
