// The modules in tests/golden/torchscript come from make_torchscript.py and make_refused.py beside it, with what PyTorch computes for them.
#include "thalweg/model/torchscript.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/serialization/import.h>
#include <torch/types.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

#include "../../../src/model/torchscript/translator.hpp"
#include "helpers.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/files.hpp"
#include "thalweg/core/schema.hpp"
#include "thalweg/core/text.hpp"
#include "thalweg/model/interpreter.hpp"
#include "thalweg/model/model_file.hpp"

namespace thalweg::model::torchscript_test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

const std::filesystem::path folder = std::filesystem::path(THALWEG_TEST_DIR) / "golden" / "torchscript";

const TensorFile& expected() {
    static const TensorFile file = load_tensors(folder / "expected.pt");
    return file;
}

std::vector<std::string> module_names() {
    std::vector<std::string> names;
    for (const auto& [key, text] : expected().meta) names.push_back(key.substr(0, key.find('/')));
    return names;
}

struct Golden {
    std::string name;
    ImportedModel model;
    bool tokens;
    at::Tensor input(int batch) const { return expected().at(name + "/input" + std::to_string(batch)); }
    at::Tensor output(int batch) const { return expected().at(name + "/output" + std::to_string(batch)); }
};

std::filesystem::path file_of(const std::string& name, const std::string& how) {
    return folder / (name + "." + how + ".pt");
}

Golden golden(const std::string& name, const std::string& how) {
    const auto input = expected().at(name + "/input3");
    const auto classes = expected().at(name + "/output3").size(1);
    const auto shape = input.sizes().slice(1).vec();
    return {name, import_torchscript(file_of(name, how), shape, classes), input.scalar_type() == at::kLong};
}

/// The module itself in double.
torch::jit::Module in_double(const std::filesystem::path& path) {
    auto module = torch::jit::load(path.string());
    const at::NoGradGuard no_grad;
    const auto widen = [](const at::Tensor& tensor) {
        if (tensor.is_floating_point()) tensor.set_data(tensor.to(at::kDouble));
    };
    for (const at::Tensor& tensor : module.parameters()) widen(tensor);
    for (const at::Tensor& tensor : module.buffers()) widen(tensor);
    return module;
}

double distance(const at::Tensor& a, const at::Tensor& b) {
    EXPECT_EQ(a.sizes(), b.sizes());
    return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

template <class Kind>
std::vector<const Kind*> operations(const ModelGraph& graph) {
    std::vector<const Kind*> found;
    for (const auto& operation : graph.operations) {
        if (const auto* kind = std::get_if<Kind>(&operation.kind)) found.push_back(kind);
    }
    return found;
}

template <class Error>
std::string message(const std::function<void()>& action) {
    try {
        action();
    } catch (const Error& error) {
        return error.what();
    }
    return "no error";
}

std::string temporary(const std::string& name) {
    static const test::TemporaryFolder all;
    return (all / name).string();
}

class TorchScript : public ::testing::TestWithParam<std::tuple<std::string, std::string>> {
  protected:
    std::string name() const { return std::get<0>(GetParam()); }
    std::string how() const { return std::get<1>(GetParam()); }
};

TEST_P(TorchScript, ComputesWhatPythonRecorded) {
    const auto imported = golden(name(), how());
    for (const int batch : {1, 3}) {
        const auto output = forward(imported.model.graph, views(imported.model.parameters),
                                    imported.input(batch).to(at::kFloat), Mode::evaluate);
        EXPECT_LT(distance(output, imported.output(batch)), 1e-5) << "batch of " << batch;
    }
}

TEST_P(TorchScript, ComputesWhatTheModuleDoesInDouble) {
    const auto imported = golden(name(), how());
    // A traced LSTM has its zero state baked in as floats; the scripted one is the same module.
    auto module = in_double(file_of(name(), name() == "lstm" ? "script" : how()));
    module.eval();
    const at::NoGradGuard no_grad;
    for (const int batch : {1, 3}) {
        const auto input = imported.input(batch);
        const auto theirs = module.forward({imported.tokens ? input : input.to(at::kDouble)}).toTensor();
        const auto ours = forward(imported.model.graph, views(imported.model.parameters.to_double()),
                                  input.to(at::kDouble), Mode::evaluate);
        EXPECT_LT(distance(ours, theirs), 1e-10) << "batch of " << batch;
    }
}

TEST_P(TorchScript, NamesShapesAndOrderArePythons) {
    const auto imported = golden(name(), how());
    std::vector<std::string> ours;
    for (const auto& item : imported.model.graph.state_items()) {
        std::string sizes;
        for (const auto size : state_tensor(imported.model.graph, imported.model.parameters, item).sizes()) {
            if (!sizes.empty()) sizes += ",";
            sizes += std::to_string(size);
        }
        ours.push_back(item.name + ":" + sizes);
    }
    EXPECT_EQ(core::join(ours, ";"), expected().meta.at(name() + "/state"));
}

INSTANTIATE_TEST_SUITE_P(Golden, TorchScript,
                         ::testing::Combine(::testing::ValuesIn(module_names()),
                                            ::testing::Values("script", "trace")),
                         [](const auto& info) {
                             return std::get<0>(info.param) + "_" + std::get<1>(info.param);
                         });

/// The same modules as PyTorch 2.6 saved them, with operations that LibTorch 1.13 does not have.
INSTANTIATE_TEST_SUITE_P(
    FromPyTorch26, TorchScript,
    ::testing::Combine(::testing::Values("cnn", "encoder", "gpt", "lstm", "multihead", "vit"),
                       ::testing::Values("script-2.6", "trace-2.6")),
    [](const auto& info) { return std::get<0>(info.param) + "_" + std::get<1>(info.param).substr(0, 5); });

class TorchScriptTraining : public ::testing::TestWithParam<std::string> {};

/// Gradients, moved statistics and counters of one training step, against LibTorch's own in train mode.
TEST_P(TorchScriptTraining, GradientsAreTheModules) {
    const auto name = GetParam().substr(0, GetParam().find('-'));
    const auto how = "script" + GetParam().substr(name.size());
    const auto imported = golden(name, how);
    auto module = in_double(file_of(name, how));
    module.train();
    const auto input = imported.input(3);
    const auto probe =
        at::arange(imported.output(3).numel(), at::kDouble).reshape(imported.output(3).sizes()).sin();
    (module.forward({imported.tokens ? input : input.to(at::kDouble)}).toTensor() * probe).sum().backward();

    const auto parameters = imported.model.parameters.to_double();
    const auto gradient = at::zeros({parameters.layout->trainable_size()}, at::kDouble);
    const auto leaves = leaf_views(parameters, gradient);
    (forward(imported.model.graph, leaves, input.to(at::kDouble), Mode::train) * probe).sum().backward();

    std::size_t compared = 0;
    for (const auto& item : module.named_parameters(true)) {
        const auto index = parameters.layout->find(item.name);
        if (!index) continue;
        const auto& entry = parameters.layout->entries()[*index];
        EXPECT_LT(distance(gradient.narrow(0, entry.offset, entry.size).view(entry.shape), item.value.grad()),
                  1e-10)
            << item.name;
        ++compared;
    }
    EXPECT_GT(compared, 3U);
    for (const auto& item : module.named_buffers(true)) {
        if (const auto index = parameters.layout->find(item.name)) {
            EXPECT_LT(distance(parameters.view(*index), item.value), 1e-12) << item.name;
        }
        const auto& counters = parameters.layout->counters();
        const auto place = std::find(counters.begin(), counters.end(), item.name) - counters.begin();
        if (place < static_cast<std::ptrdiff_t>(counters.size())) {
            EXPECT_EQ(parameters.counters[place].item<std::int64_t>(), item.value.item<std::int64_t>())
                << item.name;
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Golden, TorchScriptTraining,
                         ::testing::Values("cnn", "residual", "called_twice", "conv1d", "tied_embedding",
                                           "multihead", "multihead-2.6", "mixed", "frames", "convnext",
                                           "instance", "prelu"),
                         [](const auto& info) {
                             auto name = info.param;
                             std::replace_if(
                                 name.begin(), name.end(), [](char c) { return c == '-' || c == '.'; }, '_');
                             return name;
                         });

TEST(TorchScriptImport, DropoutSurvives) {
    for (const std::string how : {"script", "trace"}) {
        const auto dropouts = operations<Dropout>(golden("mlp", how).model.graph);
        ASSERT_EQ(dropouts.size(), 1U) << how;
        EXPECT_EQ(dropouts[0]->p, 0.25);
        // one of attention's weights, three of the layer's; tracing in evaluation mode leaves the first out
        EXPECT_EQ(operations<Dropout>(golden("encoder", how).model.graph).size(), how == "script" ? 4U : 3U);
        // between an LSTM's layers
        EXPECT_EQ(operations<Dropout>(golden("lstm", how).model.graph).size(), 1U);
    }
}

TEST(TorchScriptImport, BatchNormIsAsInTheModule) {
    for (const std::string how : {"script", "trace"}) {
        const auto model = golden("cnn", how).model;
        const auto norms = operations<BatchNorm>(model.graph);
        ASSERT_EQ(norms.size(), 2U);
        EXPECT_EQ(norms[0]->momentum, 0.1);
        EXPECT_EQ(norms[1]->momentum, 0.2);
        EXPECT_EQ(model.graph.layout->counters(),
                  (std::vector<std::string>{"bn1.num_batches_tracked", "bn2.num_batches_tracked"}));
        // tracing in train mode must not have moved them
        EXPECT_EQ(model.parameters.counters[0].item<std::int64_t>(), 3);
    }
}

TEST(TorchScriptImport, ViewsCostNothingWhereTheyCancel) {
    // attention's transposes and views of a convolutional net leave no more than they must
    const auto cnn = golden("cnn", "script").model.graph;
    EXPECT_EQ(operations<Reshape>(cnn).size() + operations<Permute>(cnn).size(), 0U);
    EXPECT_EQ(operations<Flatten>(cnn).size(), 1U);
    EXPECT_EQ(operations<Permute>(golden("unet", "script").model.graph).size(), 0U);
    EXPECT_EQ(operations<Permute>(golden("lstm", "script").model.graph).size(), 0U);
}

TEST(TorchScriptImport, TiedParametersAreOneEntryWithTwoNames) {
    const auto model = golden("tied_embedding", "script").model;
    EXPECT_TRUE(model.graph.layout->find("embed.weight"));
    EXPECT_FALSE(model.graph.layout->find("head.weight"));
    const auto path = temporary("tied.safetensors");
    save_model(path, model.graph, model.parameters, {});
    const auto written = load_tensors(path);
    EXPECT_NO_THROW(written.at("position_ids"));
    EXPECT_TRUE(at::equal(written.at("embed.weight"), written.at("head.weight")));
    EXPECT_TRUE(at::equal(written.at("embed.weight"), model.parameters.view("embed.weight")));
}

core::Value section(const std::string& text) {
    return core::resolve_plugin("model", "kind", core::parse_yaml(text, "test"), "model");
}

TEST(TorchScriptPlugin, TrainsFromTheFilesValuesAndComesBack) {
    const auto file = file_of("tied_embedding", "script").string();
    const auto graph = build_model(section("{kind: torchscript, file: " + file + "}"), {5}, 7);
    core::Random random(1, "initialisation");
    auto parameters = initialise(graph, random);
    EXPECT_TRUE(parameters.values.equal(golden("tied_embedding", "script").model.parameters.values));
    parameters.values.mul_(2);
    const auto path = temporary("model.pt");
    save_model(path, graph, parameters, {});
    const auto back = load_model(path);
    EXPECT_TRUE(back.parameters.values.equal(parameters.values));
    EXPECT_EQ(back.graph.spec["file"].as_text(), file);
    EXPECT_EQ(core::to_flow(back.graph.spec), core::to_flow(graph.spec));
}

TEST(TorchScriptPlugin, TheFileIsAModelFileToo) {
    const auto file = file_of("tied_embedding", "script");
    const auto own = load_model(file, core::parse_yaml("{input: [5], classes: 7}", "test"));
    EXPECT_TRUE(own.parameters.values.equal(golden("tied_embedding", "script").model.parameters.values));
    EXPECT_EQ(own.graph.spec["file"].as_text(), file.string());
    // Another file's parameters for the same architecture.
    const auto traced = load_model(file_of("mlp", "trace"),
                                   core::parse_yaml("{kind: torchscript, input: [6], classes: 4, file: " +
                                                        file_of("mlp", "script").string() + "}",
                                                    "test"));
    EXPECT_TRUE(traced.parameters.values.equal(golden("mlp", "trace").model.parameters.values));
    EXPECT_THAT(message<core::RunError>([&] { load_model(file); }),
                HasSubstr("--model \"{input: [3, 32, 32]"));
    EXPECT_THAT(message<core::RunError>([&] {
                    load_model(file, core::parse_yaml("{kind: linear, input: [5], classes: 7}", "test"));
                }),
                HasSubstr("which is code"));
    EXPECT_THAT(message<core::UsageError>([&] {
                    load_model(file, core::parse_yaml("{file: net.pt, input: [5], classes: 7}", "test"));
                }),
                HasSubstr("needs its kind"));
}

TEST(TorchScriptPlugin, RandomStartDrawsAnew) {
    const auto file = file_of("cnn", "script").string();
    const auto graph =
        build_model(section("{kind: torchscript, start: random, file: " + file + "}"), {2, 8, 8}, 4);
    core::Random random(1, "initialisation");
    const auto parameters = initialise(graph, random);
    EXPECT_LE(parameters.view("conv2.weight").abs().max().item<double>(), 1.0 / 6.0);
    EXPECT_GT(parameters.view("conv2.weight").abs().max().item<double>(), 0.1);
    EXPECT_EQ(parameters.view("bn1.weight").sub(1).abs().max().item<double>(), 0.0);
    EXPECT_EQ(parameters.view("bn1.running_var").sub(1).abs().max().item<double>(), 0.0);
}

TEST(TorchScriptPlugin, AFileThatChangedOrWentIsNamed) {
    const auto copy = temporary("copy.pt"), model = temporary("of_copy.pt");
    std::filesystem::copy_file(file_of("mlp", "script"), copy,
                               std::filesystem::copy_options::overwrite_existing);
    const auto graph = build_model(section("{kind: torchscript, file: " + copy + "}"), {6}, 4);
    save_model(model, graph, *graph.start, {});
    std::filesystem::copy_file(file_of("mlp", "trace"), copy,
                               std::filesystem::copy_options::overwrite_existing);
    EXPECT_THAT(message<core::Error>([&] { load_model(model); }), HasSubstr("has changed: its checksum is"));
    std::filesystem::remove(copy);
    EXPECT_THAT(message<core::Error>([&] { load_model(model); }), HasSubstr("put it back"));
}

TEST(TorchScriptPlugin, PythonTakesWhatWeWriteWithStrictNames) {
    std::string python;
    for (const std::string candidate : {"/usr/bin/python3", "python3"}) {
        if (std::system((candidate + " -c 'import torch' > /dev/null 2>&1").c_str()) == 0) python = candidate;
    }
    if (python.empty()) GTEST_SKIP() << "no Python here can import torch: loading in Python is not tested";
    const test::TemporaryFolder models, logs;
    for (const auto& name : module_names()) {
        const auto imported = golden(name, "script");
        save_model(models / (name + ".pt"), imported.model.graph, imported.model.parameters, {});
    }
    const auto log = logs / "log.txt";
    const auto command = python + " " + (folder.parent_path() / "make_torchscript.py").string() +
                         " --check " + folder.string() + " " + (models / "").string() + " > " + log.string() +
                         " 2>&1";
    EXPECT_EQ(std::system(command.c_str()), 0) << core::read_file(log);
}

TEST(TorchScriptRefused, UnknownOperationsWithLineAndWhatThereIs) {
    const auto text =
        message<core::UsageError>([] { import_torchscript(folder / "cumulative.refused.pt", {6}, 3); });
    EXPECT_THAT(text, HasSubstr("aten::cumsum"));
    EXPECT_THAT(text, HasSubstr("make_refused.py:"));
    EXPECT_THAT(text, HasSubstr("Supported: "));
    EXPECT_THAT(text, HasSubstr("layer_norm"));
}

TEST(TorchScriptRefused, ControlFlowThatDependsOnTheData) {
    const auto text =
        message<core::UsageError>([] { import_torchscript(folder / "data_dependent.refused.pt", {6}, 3); });
    EXPECT_THAT(text, HasSubstr("reads a number that depends on the data"));
    EXPECT_THAT(text, HasSubstr("make_refused.py:"));
}

TEST(TorchScriptRefused, WhatMixesTheBatch) {
    EXPECT_THAT(
        message<core::UsageError>([] { import_torchscript(folder / "mixes_batch.refused.pt", {6}, 3); }),
        HasSubstr("mixes the samples of a batch"));
}

/// Modules that compute the same here as in Python, and would train differently.
TEST(TorchScriptRefused, WhatTrainsDifferently) {
    const auto refusal = [](const std::string& name, const Sizes& shape) {
        return message<core::UsageError>(
            [&] { import_torchscript(folder / (name + ".refused.pt"), shape, 3); });
    };
    EXPECT_THAT(refusal("no_grad", {6}),
                AllOf(HasSubstr("runs under torch.no_grad()"), HasSubstr("make_refused.py:")));
    EXPECT_THAT(refusal("no_grad_cat", {6}), HasSubstr("aten::stack"));
    EXPECT_THAT(refusal("detached", {6}),
                AllOf(HasSubstr("aten::detach"), HasSubstr("would not be trained in Python")));
    EXPECT_THAT(refusal("no_statistics", {6}), HasSubstr("no running statistics"));
    EXPECT_THAT(refusal("no_momentum", {6}), HasSubstr("its momentum is 0"));
    EXPECT_THAT(refusal("average_momentum", {6}), HasSubstr("momentum=None"));
    EXPECT_THAT(refusal("frequencies", {4}), HasSubstr("scale_grad_by_freq"));
    EXPECT_THAT(refusal("padded", {4}), HasSubstr("it has a padding_idx"));
    EXPECT_THAT(refusal("frozen", {6}), HasSubstr("0.weight, has requires_grad=False"));
    EXPECT_THAT(refusal("instance_statistics", {2, 6}), HasSubstr("track_running_stats=False"));
    EXPECT_THAT(refusal("weight_norm", {6}), HasSubstr("aten::_weight_norm"));
    EXPECT_THAT(refusal("spectral_norm", {6}), HasSubstr("make_refused.py:"));
    EXPECT_THAT(refusal("two_directions", {5, 3}), HasSubstr("only LSTMs of one direction"));
    EXPECT_THAT(refusal("given_state", {5, 3}), HasSubstr("only an initial state of zeros"));
}

TEST(TorchScriptRefused, WrongShapes) {
    const auto file = file_of("mlp", "script");
    EXPECT_THAT(message<core::UsageError>([&] { import_torchscript(file, {7}, 4); }),
                HasSubstr("cannot be run on inputs of [7]"));
    EXPECT_THAT(message<core::UsageError>([&] { import_torchscript(file, {6}, 5); }),
                HasSubstr("logits [N, 5] are needed"));
}

TEST(TorchScriptRefused, OtherFiles) {
    EXPECT_THAT(message<core::RunError>([] { import_torchscript(folder / "expected.pt", {6}, 4); }),
                HasSubstr("it is what torch.save writes"));
    EXPECT_THAT(message<core::RunError>([] { import_torchscript(folder / "none.pt", {6}, 4); }),
                HasSubstr("none.pt"));
}

/// Bit flips, truncations, cut-out pieces and swapped bytes: an error or (where a byte does not matter) a model, never
/// a crash.
TEST(TorchScriptDamaged, NeverCrashes) {
    const auto original = core::read_file(file_of("mlp", "trace"));
    const auto path = temporary("damaged.pt");
    std::mt19937 random(1);
    int refused = 0;
    const int count = 600;
    for (int i = 0; i < count; ++i) {
        std::string content = original;
        const auto place = random() % content.size();
        switch (i % 4) {
            case 0:
                content[place] = static_cast<char>(content[place] ^ (1 << (random() % 8)));
                break;
            case 1:
                content.resize(place);
                break;
            case 2:
                content.erase(place, 1 + random() % 64);
                break;
            default:
                // in the directory at the end, which no CRC covers
                for (int k = 0; k < 3; ++k)
                    content[content.size() - 1 - random() % std::min<std::size_t>(content.size() - 1, 1500)] =
                        static_cast<char>(random());
        }
        std::ofstream(path, std::ios::binary) << content;
        try {
            import_torchscript(path, {6}, 4);
        } catch (const core::Error&) {
            ++refused;
        }
    }
    EXPECT_GT(refused, count / 2);
    EXPECT_LT(refused, count);  // some bytes do not matter: the loader is reached
}

TEST(TorchScriptDamaged, AFlippedBitOfAWeightIsFoundByItsChecksum) {
    auto content = core::read_file(file_of("residual", "script"));
    ASSERT_LT(content.find("data/0"), 64U);  // the first record, whose 144 bytes begin at byte 64
    content[100] = static_cast<char>(content[100] ^ 1);
    const auto path = temporary("flipped.pt");
    std::ofstream(path, std::ios::binary) << content;
    const auto said = message<core::RunError>([&] { import_torchscript(path, {1, 6, 6}, 4); });
    EXPECT_THAT(said, HasSubstr("data/0"));
    EXPECT_THAT(said, HasSubstr("its checksum (CRC) is wrong"));
}

/// What a view stands for, the slow way: every factor an axis, put in order, repeated, and merged.
at::Tensor seen(const torchscript::Draft& draft, const torchscript::View& view, const at::Tensor& input) {
    using torchscript::View;
    const auto n = input.size(0);
    auto value = input;
    if (view.value != 0) {
        const auto model = draft.finish(view.value, core::Value::map());
        value = forward(model.graph, views(model.parameters), input, Mode::evaluate);
    }
    Sizes fine{n};
    fine.insert(fine.end(), view.factors.begin(), view.factors.end());
    value = value.reshape(fine);
    Sizes order, shape;
    bool batch = false;
    for (const auto& axis : view.axes) {
        for (const int id : axis) {
            if (id >= View::batch) order.push_back(id + 1);
            batch = batch || id == View::batch;
        }
        shape.push_back(view.size(axis) *
                        (std::find(axis.begin(), axis.end(), View::batch) != axis.end() ? n : 1));
    }
    EXPECT_TRUE(batch);
    value = value.permute(order);
    std::int64_t place = 0;
    for (const auto& axis : view.axes) {
        for (const int id : axis) {
            if (id <= -2) {
                auto sizes = value.unsqueeze(place).sizes().vec();
                sizes[static_cast<std::size_t>(place)] = view.size(id);
                value = value.unsqueeze(place).expand(sizes);
            }
            ++place;
        }
    }
    return value.reshape(shape);
}

TEST(TorchScriptView, StaysTheSameTensorThroughRandomViews) {
    using namespace torchscript;
    const State none;
    int repeats = 0, refused = 0;
    for (unsigned seed = 0; seed < 300; ++seed) {
        std::mt19937 random(seed);
        const auto below = [&](std::size_t count) { return static_cast<std::size_t>(random() % count); };
        Draft draft(none, {4, 6, 1, 3});
        const auto input = at::arange(2 * 72, at::kFloat).reshape({2, 4, 6, 1, 3});
        auto view = plain(draft, 0);
        auto tensor = input;
        for (int step = 0; step < 12; ++step) {
            const auto rank = view.axes.size();
            const auto one = below(rank), two = below(rank);
            const auto extents = view.extents();
            switch (below(6)) {
                case 0:
                    std::swap(view.axes[one], view.axes[two]);
                    tensor = tensor.transpose(static_cast<std::int64_t>(one), static_cast<std::int64_t>(two));
                    break;
                case 1:
                case 2: {  // merge two neighbours, or divide one; sometimes so that nothing divides evenly
                    Extents wanted = extents;
                    if (one + 1 < rank && !(extents[one].batch && extents[one + 1].batch)) {
                        wanted[one] = {extents[one].count * extents[one + 1].count,
                                       extents[one].batch || extents[one + 1].batch};
                        wanted.erase(wanted.begin() + static_cast<std::ptrdiff_t>(one) + 1);
                    }
                    const auto divided = below(wanted.size());
                    for (const std::int64_t part : {3, 2}) {
                        if (wanted[divided].batch || wanted[divided].count % part != 0) continue;
                        wanted.insert(wanted.begin() + static_cast<std::ptrdiff_t>(divided),
                                      Extent{part, false});
                        wanted[divided + 1].count /= part;
                        break;
                    }
                    View result;
                    if (!reshape(draft, view, wanted, result)) {
                        ++refused;
                        break;
                    }
                    view = result;
                    Sizes sizes;
                    for (const auto& extent : wanted) sizes.push_back(extent.count * (extent.batch ? 2 : 1));
                    tensor = tensor.reshape(sizes);
                    break;
                }
                case 3:
                    if (extents[one] == Extent{} && repeats < 400 && tensor.numel() < 5000) {
                        view.axes[one].push_back(view.add_repeat(2));
                        auto sizes = tensor.sizes().vec();
                        sizes[one] = 2;
                        tensor = tensor.expand(sizes);
                        ++repeats;
                    } else {
                        view.axes.insert(view.axes.begin() + static_cast<std::ptrdiff_t>(one), Ids{});
                        tensor = tensor.unsqueeze(static_cast<std::int64_t>(one));
                    }
                    break;
                case 4:
                    view = solid(draft, view);
                    break;
                default:
                    if (!extents[one].batch) {
                        std::int64_t place = 0;
                        view = isolate(draft, view, one, place);
                        EXPECT_EQ(draft.shape(view.value).at(static_cast<std::size_t>(place) - 1),
                                  extents[one].count);
                    }
            }
            const auto result = seen(draft, view, input);
            ASSERT_TRUE(result.equal(tensor)) << "seed " << seed << ", step " << step << ": "
                                              << result.sizes() << " and " << tensor.sizes();
        }
    }
    EXPECT_GT(repeats, 100);
    EXPECT_LT(refused, 1000);
}

/// This LibTorch may be older than the operation, so the trace is written by hand: [N, 2 heads, 3 positions, 4].
TEST(TorchScriptAttention, IsWhatScaledDotProductAttentionSays) {
    using torchscript::Extents;
    const Sizes shape{3, 2, 4};
    for (const bool causal : {false, true}) {
        for (const double p : {0.0, 0.5}) {  // with dropout it is written out
            torchscript::Trace trace;
            const auto add = [&](torchscript::Value value) {
                trace.values.push_back(std::move(value));
                return static_cast<int>(trace.values.size()) - 1;
            };
            const auto tensor = [&](Extents extents) {
                torchscript::Value value;
                value.kind = torchscript::Value::Kind::tensor;
                value.extents = std::move(extents);
                return add(value);
            };
            const auto constant = [&](c10::IValue known) {
                torchscript::Value value;
                value.constant = value.other = std::move(known);
                return add(value);
            };
            trace.input = tensor({{1, true}, {3}, {2}, {4}});
            const int heads = tensor({{1, true}, {2}, {3}, {4}});
            const int answer = tensor({{1, true}, {2}, {3}, {4}});
            trace.output = tensor({{1, true}, {24}});
            const int one = constant(1), two = constant(2), none = constant({}), chance = constant(p),
                      flag = constant(causal);
            trace.nodes = {{"aten::transpose", {trace.input, one, two}, {heads}, "net.py:1"},
                           {"aten::scaled_dot_product_attention",
                            {heads, heads, heads, none, chance, flag, none},
                            {answer},
                            "net.py:2"},
                           {"aten::flatten", {answer}, {trace.output}, "net.py:3"}};
            torchscript::Translator translator("net.pt", trace, shape);
            const int output = translator.run(24);
            const auto model = translator.draft.finish(output, core::Value::map());
            EXPECT_EQ(operations<Attention>(model.graph).size(), p == 0.0 ? 1U : 0U);

            const auto x = at::arange(48, at::kFloat).reshape({2, 3, 2, 4}).sin();
            const auto q = x.transpose(1, 2);
            auto scores = at::matmul(q, q.transpose(2, 3)) / 2.0;
            if (causal)
                scores = scores.masked_fill(at::ones({3, 3}, at::kBool).triu(1),
                                            -std::numeric_limits<double>::infinity());
            const auto theirs = at::matmul(scores.softmax(-1), q).flatten(1);
            EXPECT_LT(distance(forward(model.graph, views(model.parameters), x, Mode::evaluate), theirs),
                      1e-6);
        }
    }
}

}  // namespace
}  // namespace thalweg::model::torchscript_test
