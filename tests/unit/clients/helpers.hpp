#pragma once

#include <ATen/Functions.h>

#include <string>
#include <vector>

#include "thalweg/clients/training.hpp"
#include "thalweg/core/random.hpp"
#include "thalweg/core/schema.hpp"
#include "thalweg/data/sample_sets.hpp"

namespace thalweg::clients::test {

/// A resolved plug-in section from YAML.
inline core::Value plugin(const std::string& kind, const std::string& yaml) {
    return core::resolve_plugin(kind, "kind", core::parse_yaml(yaml, "test"), kind);
}

inline std::unique_ptr<Algorithm> algorithm(const std::string& yaml) {
    return core::Registry<std::unique_ptr<Algorithm>>::make(plugin("algorithm", yaml));
}
inline std::unique_ptr<Objective> objective(const std::string& yaml) {
    return core::Registry<std::unique_ptr<Objective>>::make(plugin("objective", yaml));
}

inline core::Value resolve_clients(const std::string& yaml) {
    const auto given = core::parse_yaml("clients: " + yaml, "test.yaml");
    return core::resolve(core::Schema{TrainingPlan::schema()}, given, "")["clients"];
}
inline TrainingPlan plan(const std::string& yaml, std::int64_t rounds = 1) {
    return TrainingPlan::from(resolve_clients(yaml), rounds);
}

inline model::ModelGraph graph_of(const std::string& yaml, const std::vector<std::int64_t>& input,
                                  std::int64_t classes) {
    return model::build_model(plugin("model", yaml), input, classes);
}

inline model::Parameters initial(const model::ModelGraph& graph, std::uint64_t seed = 1) {
    core::Random random(seed, "test parameters");
    return model::initialise(graph, random);
}

/// Labelled noise with a different mean for each class, so that there is something to learn.
inline data::FloatSamples samples(std::int64_t count, std::int64_t width, std::int64_t classes,
                                  std::uint64_t seed = 5) {
    core::Random random(seed, "test samples");
    std::vector<float> values;
    std::vector<std::uint8_t> labels;
    for (std::int64_t i = 0; i < count; ++i) {
        const auto label = random.below(classes);
        labels.push_back(static_cast<std::uint8_t>(label));
        for (std::int64_t j = 0; j < width; ++j) {
            values.push_back(static_cast<float>(random.normal(j % classes == label ? 1.0 : 0.0)));
        }
    }
    return {std::move(values), std::move(labels), width};
}

inline bool same_bits(const at::Tensor& a, const at::Tensor& b) {
    return a.numel() == b.numel() && std::memcmp(a.data_ptr<float>(), b.data_ptr<float>(),
                                                 static_cast<std::size_t>(a.numel()) * 4) == 0;
}

/// The words of the error that `work` throws.
template <class Expected, class Work>
std::string message_of(Work&& work) {
    try {
        work();
    } catch (const Expected& error) {
        return error.what();
    }
    return "no error";
}

}  // namespace thalweg::clients::test
