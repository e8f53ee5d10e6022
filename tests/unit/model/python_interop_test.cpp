// Python's torch reads what we write, and we read what it writes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <cstdlib>
#include <optional>

#include "helpers.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/files.hpp"
#include "thalweg/model/interpreter.hpp"
#include "thalweg/model/model_file.hpp"

namespace thalweg::model::python_interop_test {
namespace {

using test::message_of;
using ::testing::AllOf;
using ::testing::HasSubstr;

std::optional<std::string> python_with_torch() {
    for (const std::string python : {"/usr/bin/python3", "python3"}) {
        if (std::system((python + " -c 'import torch' > /dev/null 2>&1").c_str()) == 0) return python;
    }
    return std::nullopt;
}

TEST(Python, LoadsOurFilesAndWeLoadIts) {
    const auto python = python_with_torch();
    if (!python) GTEST_SKIP() << "no Python here can import torch: interoperability is not tested";
    const test::TemporaryFolder folder;
    const auto graph = test::graph_of("{kind: mlp, hidden: [5], norm: batch}", {3, 2, 2}, 3);
    const auto parameters = test::random_parameters(graph);
    parameters.counters.fill_(42);
    const auto input = test::random_input(graph, 6);
    save_model(folder / "model.pt", graph, parameters, {{"data", "made up"}, {"round", "3"}});
    save_tensors(
        folder / "input.pt",
        {{"x", input},
         {"long", at::full({2}, -1, at::kLong).index_fill(0, at::ones({1}, at::kLong), 1099511627776)},
         {"byte", at::arange(3, at::kByte)}},
        {{"what", "input"}});
    const auto log = folder / "log.txt";
    const auto script = std::string(THALWEG_TEST_DIR) + "/unit/model/python_interop.py";
    const auto command =
        *python + " " + script + " " + (folder / "").string() + " > " + log.string() + " 2>&1";
    ASSERT_EQ(std::system(command.c_str()), 0) << core::read_file(log);

    const auto output = load_tensors(folder / "output.pt");
    EXPECT_TRUE(
        at::allclose(output.at("y"), forward(graph, views(parameters), input, Mode::evaluate), 1e-5, 1e-6));
    EXPECT_EQ(output.meta.at("of"), "python");

    const auto spec = graph.spec;
    for (const auto* name : {"state_dict.pt", "parameters.pt", "nested.pt"}) {
        const auto file = load_model(folder / name, spec);
        EXPECT_TRUE(at::equal(file.parameters.values, parameters.values)) << name;
        EXPECT_EQ(file.parameters.counters[0].item<std::int64_t>(), 42) << name;
        EXPECT_THAT(message_of<core::RunError>([&] { load_model(folder / name); }),
                    AllOf(HasSubstr(name), HasSubstr("--model")));
    }
    const auto half = load_model(folder / "half.pt", spec);
    EXPECT_TRUE(at::equal(half.parameters.values, parameters.values.to(at::kHalf).to(at::kFloat)));

    const auto refused = [&](const std::string& name) {
        return message_of<core::RunError>([&] { load_model(folder / name, spec); });
    };
    EXPECT_THAT(refused("integers.pt"), HasSubstr("layers.0.weight holds integers"));
    EXPECT_THAT(refused("expanded.pt"), HasSubstr("reaches outside its storage"));
    EXPECT_THAT(refused("whole.pt"), AllOf(HasSubstr("__main__.Mlp"), HasSubstr("state_dict()")));
    EXPECT_THAT(refused("script.pt"), HasSubstr("TorchScript"));
    EXPECT_THAT(refused("old.pt"), HasSubstr("before 1.6"));
    EXPECT_THAT(refused("list.pt"), HasSubstr("a list, not a state_dict"));
    EXPECT_THAT(refused("empty.pt"),
                HasSubstr("missing: layers.0.weight, layers.0.bias, layers.1.weight and 6 more"));
}

TEST(Python, ReadsOurSafetensorsAndWeReadIts) {
    const auto python = python_with_torch();
    if (!python) GTEST_SKIP() << "no Python here can import torch: interoperability is not tested";
    const test::TemporaryFolder folder;
    const auto graph = test::graph_of("{kind: mlp, hidden: [5], norm: batch}", {3, 2, 2}, 3);
    const auto parameters = test::random_parameters(graph);
    parameters.counters.fill_(42);
    const auto input = test::random_input(graph, 6);
    save_model(folder / "model.safetensors", graph, parameters, {{"data", "made up"}, {"round", "3"}});
    save_tensors(folder / "input.safetensors", {{"x", input}}, {});
    const auto log = folder / "log.txt";
    const auto script = std::string(THALWEG_TEST_DIR) + "/unit/model/safetensors_interop.py";
    const auto command =
        *python + " " + script + " " + (folder / "").string() + " > " + log.string() + " 2>&1";
    ASSERT_EQ(std::system(command.c_str()), 0) << core::read_file(log);

    const auto output = load_tensors(folder / "output.safetensors");
    EXPECT_TRUE(
        at::allclose(output.at("y"), forward(graph, views(parameters), input, Mode::evaluate), 1e-5, 1e-6));
    EXPECT_EQ(output.meta.at("of"), "python");
    const auto foreign = load_model(folder / "foreign.safetensors", graph.spec);
    EXPECT_TRUE(at::equal(foreign.parameters.values, parameters.values.to(at::kHalf).to(at::kFloat)));
    EXPECT_EQ(foreign.parameters.counters[0].item<std::int64_t>(), 42);
    EXPECT_THAT(message_of<core::RunError>([&] { load_model(folder / "foreign.safetensors"); }),
                AllOf(HasSubstr("foreign.safetensors"), HasSubstr("--model")));
}

}  // namespace
}  // namespace thalweg::model::python_interop_test
