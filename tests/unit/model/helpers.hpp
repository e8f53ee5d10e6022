#pragma once

#include <ATen/core/Tensor.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <vector>

#include "thalweg/core/random.hpp"
#include "thalweg/core/schema.hpp"
#include "thalweg/core/value.hpp"
#include "thalweg/model/graph.hpp"

namespace thalweg::model::test {

/// The graph of a `model` section written in YAML.
inline ModelGraph graph_of(const std::string& yaml, const std::vector<std::int64_t>& input,
                           std::int64_t classes) {
    const auto given = core::parse_yaml(yaml, "test");
    return build_model(core::resolve_plugin("model", "kind", given, "model"), input, classes);
}

/// Parameters in which nothing sits at a special value: running statistics and norm scales, too, are drawn.
inline Parameters random_parameters(const ModelGraph& graph, std::uint64_t seed = 1) {
    core::Random random(seed, "test parameters");
    auto parameters = initialise(graph, random);
    for (const auto& entry : graph.layout->entries()) {
        if (entry.role == Role::weight) continue;
        const bool positive = entry.role == Role::norm_scale || entry.role == Role::running_var;
        for (std::int64_t i = 0; i < entry.size; ++i) {
            parameters.data()[entry.offset + i] =
                static_cast<float>(positive ? random.uniform(0.5, 1.5) : random.uniform(-0.5, 0.5));
        }
    }
    return parameters;
}

inline at::Tensor random_input(const ModelGraph& graph, std::int64_t count, std::uint64_t seed = 2);

/// A folder of this process's own that goes away with the object.
class TemporaryFolder {
  public:
    TemporaryFolder() {
        path_ = std::filesystem::temp_directory_path() /
                ("thalweg-model-" + std::to_string(::getpid()) + "-" + std::to_string(number()++));
        std::filesystem::create_directories(path_);
    }
    ~TemporaryFolder() { std::filesystem::remove_all(path_); }
    TemporaryFolder(const TemporaryFolder&) = delete;
    TemporaryFolder& operator=(const TemporaryFolder&) = delete;
    std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

  private:
    static int& number() {
        static int next = 0;
        return next;
    }
    std::filesystem::path path_;
};

/// The message of the error that `work` must throw.
template <class Error, class Work>
std::string message_of(Work&& work) {
    try {
        work();
    } catch (const Error& error) {
        return error.what();
    }
    return "no error of the expected type was thrown";
}

}  // namespace thalweg::model::test

#include <torch/types.h>

inline at::Tensor thalweg::model::test::random_input(const ModelGraph& graph, std::int64_t count,
                                                     std::uint64_t seed) {
    core::Random random(seed, "test input");
    auto shape = graph.input_shape();
    shape.insert(shape.begin(), count);
    auto input = at::empty(shape, at::kDouble);
    for (std::int64_t i = 0; i < input.numel(); ++i) input.data_ptr<double>()[i] = random.normal();
    return input.to(at::kFloat);
}
