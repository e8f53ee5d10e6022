// One training step (forward, backward, SGD) of `linear` and of the multi-layer perceptron 784-200-200-10, at batch 10
// and 50: with the compiled step, with autograd over the flat vector, and as plain LibTorch does it. The only file
// here that includes torch/torch.h.
#include <benchmark/benchmark.h>
#include <torch/torch.h>

#include "thalweg/clients/training.hpp"
#include "thalweg/core/random.hpp"
#include "thalweg/core/schema.hpp"

namespace {

using namespace thalweg;

constexpr std::int64_t features = 784, classes = 10, hidden = 200;
constexpr double learning_rate = 0.01;

model::ModelGraph graph_of(const std::string& yaml) {
    const auto options = core::resolve_plugin("model", "kind", core::parse_yaml(yaml, "benchmark"), "model");
    return model::build_model(options, {features}, classes);
}

/// A hundred batches, so that the data are not all in the cache.
struct Batches {
    explicit Batches(std::int64_t n) {
        torch::manual_seed(1);
        for (int i = 0; i < 100; ++i) {
            x.push_back(torch::rand({n, features}));
            y.push_back(torch::randint(classes, {n}, torch::kLong));
        }
    }
    std::vector<torch::Tensor> x, y;
};

std::unique_ptr<clients::Algorithm> sgd(double momentum) {
    const auto yaml =
        "{kind: sgd, lr: " + std::to_string(learning_rate) + ", momentum: " + std::to_string(momentum) + "}";
    return core::Registry<std::unique_ptr<clients::Algorithm>>::make(
        core::resolve_plugin("algorithm", "kind", core::parse_yaml(yaml, "benchmark"), "algorithm"));
}

using StepMaker = std::unique_ptr<clients::LocalStep> (*)(const model::ModelGraph&);

void step(benchmark::State& state, const std::string& yaml, StepMaker make, double momentum) {
    const auto graph = graph_of(yaml);
    core::Random random(1, "benchmark");
    const auto parameters = model::initialise(graph, random);
    const auto local = make(graph);
    local->bind(parameters);
    const auto algorithm = sgd(momentum);
    const auto n = static_cast<std::size_t>(graph.layout->trainable_size());
    algorithm->start(graph.layout->trainable_size());
    const Batches batches(state.range(0));
    std::size_t i = 0;
    for (auto _ : state) {
        benchmark::DoNotOptimize(local->compute(batches.x[i % 100], batches.y[i % 100]));
        algorithm->step({parameters.data(), n}, {local->gradient().data_ptr<float>(), n}, learning_rate);
        ++i;
    }
}

torch::nn::Sequential plain_model(bool deep) {
    torch::nn::Sequential net;
    if (!deep) {
        net->push_back(torch::nn::Linear(features, classes));
        return net;
    }
    net->push_back(torch::nn::Linear(features, hidden));
    net->push_back(torch::nn::ReLU());
    net->push_back(torch::nn::Linear(hidden, hidden));
    net->push_back(torch::nn::ReLU());
    net->push_back(torch::nn::Linear(hidden, classes));
    return net;
}

void plain(benchmark::State& state, bool deep, double momentum) {
    auto net = plain_model(deep);
    torch::optim::SGD optimizer(net->parameters(),
                                torch::optim::SGDOptions(learning_rate).momentum(momentum));
    const Batches batches(state.range(0));
    std::size_t i = 0;
    for (auto _ : state) {
        optimizer.zero_grad();
        const auto loss =
            torch::nn::functional::cross_entropy(net->forward(batches.x[i % 100]), batches.y[i % 100]);
        loss.backward();
        optimizer.step();
        benchmark::DoNotOptimize(loss.item<float>());
        ++i;
    }
}

void declare() {
    const std::string mlp = "{kind: mlp, hidden: [200, 200]}";
    const auto add = [](const std::string& name, auto&& work) {
        benchmark::RegisterBenchmark(name.c_str(), work)->Arg(10)->Arg(50)->Unit(benchmark::kMicrosecond);
    };
    for (const double momentum : {0.0, 0.9}) {
        const std::string optimizer = momentum > 0 ? "sgd+momentum" : "sgd";
        for (const bool deep : {false, true}) {
            const std::string yaml = deep ? mlp : "linear";
            const std::string name =
                "training_step/" + std::string(deep ? "784-200-200-10" : "linear") + "/" + optimizer;
            add(name + "/compiled",
                [=](benchmark::State& s) { step(s, yaml, clients::compiled_step, momentum); });
            add(name + "/autograd",
                [=](benchmark::State& s) { step(s, yaml, clients::autograd_step, momentum); });
            add(name + "/libtorch", [=](benchmark::State& s) { plain(s, deep, momentum); });
        }
    }
}

}  // namespace

int main(int argc, char** argv) {
    at::set_num_threads(1);
    declare();
    benchmark::Initialize(&argc, argv);
    benchmark::RunSpecifiedBenchmarks();
    benchmark::Shutdown();
    return 0;
}
