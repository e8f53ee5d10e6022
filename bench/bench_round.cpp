// What a federated round costs beside the training: 100 clients who take one step on one sample each, the exact mean,
// evaluation, record. One process; the time of one round, averaged over 20.
#include <ATen/Parallel.h>
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <filesystem>

#include "thalweg/federation/federation.hpp"

namespace {

using namespace thalweg;

constexpr int rounds = 20;

federation::Experiment experiment(const std::string& model, const std::string& fusion) {
    return federation::make_experiment(core::parse_yaml(R"(
data:
  dataset: {kind: gaussian_mixture, dimension: 784, train: 2000, test: 500}
  partition: {scheme: iid, clients: 100}
  holdout: 100
model: )" + model + R"(
clients: {steps: 1, batch_size: 1}
server: {rounds: )" + std::to_string(rounds) +
                                                            ", fusion: " + fusion + R"(}
record: {checkpoint_every: 0}
)",
                                                        "benchmark"),
                                       {});
}

void round_overhead(benchmark::State& state, const std::string& model, const std::string& fusion) {
    core::SelfCommunicator self;
    for (auto _ : state) {
        std::string folder = (std::filesystem::temp_directory_path() / "thalweg-bench-XXXXXX").string();
        if (mkdtemp(folder.data()) == nullptr) std::abort();
        federation::Federation federation(experiment(model, fusion), self);
        const record::Stopwatch watch;
        federation.run({.folder = folder, .resume = false, .progress = false, .manifest = {}});
        state.SetIterationTime(watch.seconds() / rounds);
        std::filesystem::remove_all(folder);
    }
}

void add(const std::string& name, const std::string& model, const std::string& fusion) {
    benchmark::RegisterBenchmark(("round/" + name).c_str(),
                                 [=](benchmark::State& state) { round_overhead(state, model, fusion); })
        ->UseManualTime()
        ->Unit(benchmark::kMillisecond)
        ->Iterations(2);
}

}  // namespace

int main(int argc, char** argv) {
    at::set_num_threads(1);
    add("linear 784-10/mean", "{kind: linear}", "[mean]");
    add("784-200-200-10/mean", "{kind: mlp, hidden: [200, 200]}", "[mean]");
    add("784-200-200-10/sign_alignment+mean+repair", "{kind: mlp, hidden: [200, 200]}",
        "[sign_alignment, mean, repair]");
    benchmark::Initialize(&argc, argv);
    benchmark::RunSpecifiedBenchmarks();
}
