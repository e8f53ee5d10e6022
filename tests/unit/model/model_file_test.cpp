#include "thalweg/model/model_file.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <cstring>
#include <fstream>

#include "helpers.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/files.hpp"
#include "thalweg/core/text.hpp"

namespace thalweg::model::model_file_test {
namespace {

using test::graph_of;
using test::message_of;
using test::random_parameters;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

const char* const batch_mlp = "{kind: mlp, hidden: [5, 4], norm: batch}";

core::Value spec_of(const std::string& yaml) {
    return core::parse_yaml(yaml, "spec");
}

TEST(ModelFile, ComesBackAsItWas) {
    const test::TemporaryFolder folder;
    for (const auto* yaml :
         {batch_mlp, "linear", "{kind: cnn, preset: niid_bench, norm: layer}",
          "{kind: cnn, layers: [{conv: 2, kernel: 3}, {pool: 2, type: avg}], norm: batch}"}) {
        const auto graph = graph_of(yaml, {1, 28, 28}, 3);
        const auto parameters = random_parameters(graph);
        parameters.counters.fill_(12345678901);
        save_model(folder / "m.pt", graph, parameters,
                   {{"data", "fashion_mnist:/a b"}, {"round", "3"}, {"é", ""}});
        const auto file = load_model(folder / "m.pt");
        EXPECT_TRUE(*file.graph.layout == *graph.layout);
        EXPECT_TRUE(file.graph.spec == graph.spec);
        EXPECT_TRUE(at::equal(file.parameters.values, parameters.values)) << yaml;
        EXPECT_TRUE(at::equal(file.parameters.counters, parameters.counters));
        EXPECT_EQ(file.meta, (std::map<std::string, std::string>{
                                 {"data", "fashion_mnist:/a b"}, {"round", "3"}, {"é", ""}}));
        EXPECT_NO_THROW(require_same_architecture(graph, "a", file.graph, "b"));
    }
}

TEST(ModelFile, KeepsNonFiniteValues) {
    const test::TemporaryFolder folder;
    const auto graph = graph_of("linear", {3}, 2);
    const auto parameters = random_parameters(graph);
    parameters.view("fc.bias")[1] = std::nanf("");
    save_model(folder / "m.pt", graph, parameters, {});
    EXPECT_EQ(load_model(folder / "m.pt").parameters.first_non_finite(), "fc.bias (1 of 2 values)");
}

TEST(ModelFile, HasTheSameBytesForTheSameContent) {
    const test::TemporaryFolder folder;
    const auto graph = graph_of(batch_mlp, {6}, 3);
    save_model(folder / "a.pt", graph, random_parameters(graph), {{"b", "2"}, {"a", "1"}});
    // A copy at another address, in a graph built again.
    const auto again = graph_of(batch_mlp, {6}, 3);
    const auto unused = random_parameters(again, 9);
    save_model(folder / "b.pt", again, random_parameters(again), {{"a", "1"}, {"b", "2"}});
    EXPECT_EQ(core::read_file(folder / "a.pt"), core::read_file(folder / "b.pt"));
}

TEST(ModelFile, RefusesWhatItCannotHold) {
    const test::TemporaryFolder folder;
    const auto graph = graph_of(batch_mlp, {6}, 3);
    EXPECT_THROW(save_model(folder / "m.pt", graph, random_parameters(graph).to_double(), {}),
                 std::logic_error);
    EXPECT_THROW(save_model(folder / "m.pt", graph, random_parameters(graph_of("linear", {6}, 3)), {}),
                 std::logic_error);
    EXPECT_THROW(save_model(folder / "nowhere/m.pt", graph, random_parameters(graph), {}), core::RunError);
}

TEST(ModelFile, SaysWhatIsWrongWithTheTensors) {
    const test::TemporaryFolder folder;
    const auto graph = graph_of("{kind: mlp, hidden: [5]}", {6}, 3);
    save_model(folder / "m.pt", graph, random_parameters(graph), {});
    const auto refused = [&](const std::string& spec) {
        return message_of<core::RunError>([&] { load_model(folder / "m.pt", spec_of(spec)); });
    };
    EXPECT_NO_THROW(load_model(folder / "m.pt", spec_of("{kind: mlp, hidden: [5], input: [6], classes: 3}")));
    EXPECT_THAT(
        refused("{kind: mlp, hidden: [4], input: [6], classes: 3}"),
        AllOf(HasSubstr("m.pt"), HasSubstr("different: layers.0.weight is " + core::shape_text({5, 6})),
              HasSubstr(core::shape_text({4, 6})), HasSubstr("mlp 6-4-3")));
    EXPECT_THAT(refused("{kind: mlp, hidden: [5, 5], input: [6], classes: 3}"),
                AllOf(HasSubstr("missing: layers.4.weight, layers.4.bias"), HasSubstr("layers.2.weight is")));
    EXPECT_THAT(refused("{kind: linear, input: [6], classes: 3}"),
                AllOf(HasSubstr("superfluous: layers.0.bias, layers.0.weight, layers.2.bias and 1 more")));
    EXPECT_THROW(load_model(folder / "m.pt", spec_of("{kind: mlp}")), core::UsageError);
}

TEST(ModelFile, SaysWhatIsWrongWithTheFile) {
    const test::TemporaryFolder folder;
    const auto refused = [&](const std::string& name) {
        return message_of<core::RunError>([&] { load_model(folder / name); });
    };
    const auto write = [&](const std::string& name, const std::string& bytes) {
        std::ofstream(folder / name, std::ios::binary) << bytes;
    };
    EXPECT_THAT(refused("absent.pt"), HasSubstr("absent.pt"));
    write("empty.pt", "");
    EXPECT_THAT(refused("empty.pt"), AllOf(HasSubstr("empty.pt"), HasSubstr("not a zip archive")));
    write("text.pt", "this is a text that is longer than a zip's end record");
    EXPECT_THAT(refused("text.pt"), HasSubstr("not a zip archive"));
    write("old.pt", std::string("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e\x80\x02", 17));
    EXPECT_THAT(refused("old.pt"), AllOf(HasSubstr("before 1.6"), HasSubstr("re-save")));

    const auto graph = graph_of("linear", {30}, 20);
    save_model(folder / "good.pt", graph, random_parameters(graph), {});
    auto bytes = core::read_file(folder / "good.pt");
    write("cut.pt", bytes.substr(0, bytes.size() / 2));
    EXPECT_THAT(refused("cut.pt"), HasSubstr("cut off"));
    const auto at =
        bytes.find(std::string(reinterpret_cast<const char*>(random_parameters(graph).data()), 64));
    ASSERT_NE(at, std::string::npos);
    bytes[at + 5] = static_cast<char>(bytes[at + 5] ^ 1);
    write("flipped.pt", bytes);
    EXPECT_THAT(refused("flipped.pt"), AllOf(HasSubstr("flipped.pt"), HasSubstr("CRC")));

    save_tensors(folder / "tensors.pt", {{"fc.weight", at::zeros({2, 3})}}, {});
    EXPECT_THAT(refused("tensors.pt"), HasSubstr("--model"));
}

TEST(ModelFile, SaysWhenItsDescriptionIsNone) {
    const test::TemporaryFolder folder;
    auto graph = graph_of("linear", {3}, 2);
    graph.spec = spec_of("{kind: lineal, input: [3], classes: 2}");
    save_model(folder / "m.pt", graph, random_parameters(graph), {});
    EXPECT_THAT(message_of<core::RunError>([&] { load_model(folder / "m.pt"); }),
                AllOf(HasSubstr("m.pt"), HasSubstr("entry 'model'"), HasSubstr("lineal")));
    // A description that asks for more memory than there is is found out before any is taken.
    graph.spec = spec_of("{kind: linear, input: [1000000], classes: 1000000}");
    save_model(folder / "m.pt", graph, random_parameters(graph), {});
    EXPECT_THAT(message_of<core::RunError>([&] { load_model(folder / "m.pt"); }), HasSubstr("fc.weight"));
}

TEST(TensorFile, KeepsTypesShapesAndOrder) {
    const test::TemporaryFolder folder;
    const auto base = at::arange(24, at::kFloat).view({2, 3, 4});
    const std::vector<std::pair<std::string, at::Tensor>> tensors{
        {"z", base},
        {"slice", base.select(2, 1)},
        {"transposed", base.permute({2, 0, 1})},
        {"double", at::full({3}, 0.1, at::kDouble)},
        {"long", at::arange(-2, 5, at::kLong)},
        {"byte", at::arange(250, 256, at::kByte)},
        {"bool", at::arange(4).gt(1)},
        {"half", at::full({2}, 0.5, at::kHalf)},
        {"scalar", at::scalar_tensor(7, at::kLong)},
        {"empty", at::empty({0, 3})},
    };
    save_tensors(folder / "t.pt", tensors, {{"round", "7"}});
    const auto file = load_tensors(folder / "t.pt");
    ASSERT_EQ(file.tensors.size(), tensors.size());
    for (std::size_t i = 0; i < tensors.size(); ++i) {
        EXPECT_EQ(file.tensors[i].first, tensors[i].first);
        EXPECT_EQ(file.tensors[i].second.scalar_type(), tensors[i].second.scalar_type()) << tensors[i].first;
        EXPECT_EQ(file.tensors[i].second.sizes(), tensors[i].second.sizes()) << tensors[i].first;
        EXPECT_TRUE(at::equal(file.tensors[i].second, tensors[i].second)) << tensors[i].first;
        EXPECT_TRUE(file.tensors[i].second.is_contiguous());
    }
    EXPECT_EQ(file.meta.at("round"), "7");
    EXPECT_EQ(file.at("long").size(0), 7);
    EXPECT_THAT(message_of<core::RunError>([&] { file.at("nothing"); }), HasSubstr("nothing"));
    EXPECT_THROW(save_tensors(folder / "t.pt", {{"a", base}, {"a", base}}, {}), std::logic_error);
}

TEST(TensorFile, MayBeEmpty) {
    const test::TemporaryFolder folder;
    save_tensors(folder / "t.pt", {}, {});
    const auto file = load_tensors(folder / "t.pt");
    EXPECT_TRUE(file.tensors.empty());
    EXPECT_TRUE(file.meta.empty());
    const auto graph = graph_of("linear", {3}, 2);
    save_model(folder / "m.pt", graph, random_parameters(graph), {});
    EXPECT_THAT(message_of<core::RunError>([&] { load_tensors(folder / "m.pt"); }),
                HasSubstr("not a file of tensors"));
}

TEST(SameArchitecture, NamesTheFirstDifference) {
    const auto differ = [](const std::string& a, const std::string& b,
                           const std::vector<std::int64_t>& input_b) {
        return message_of<core::RunError>([&] {
            require_same_architecture(graph_of(a, {1, 8, 8}, 3), "a.pt", graph_of(b, input_b, 3), "b.pt");
        });
    };
    EXPECT_THAT(
        differ("{kind: mlp, hidden: [5]}", "{kind: mlp, hidden: [6]}", {1, 8, 8}),
        AllOf(HasSubstr("a.pt has layers.0.weight " + core::shape_text({5, 64})),
              HasSubstr("b.pt has layers.0.weight " + core::shape_text({6, 64})), HasSubstr("mlp 64-5-3")));
    EXPECT_THAT(differ("{kind: mlp, hidden: [5]}", "{kind: mlp, hidden: [5], activation: tanh}", {1, 8, 8}),
                AllOf(HasSubstr("relu_1: relu"), HasSubstr("tanh_1: tanh")));
    EXPECT_THAT(differ("{kind: mlp, hidden: [5]}", "{kind: mlp, hidden: [5]}", {64}),
                HasSubstr("takes inputs of " + core::shape_text({1, 8, 8})));
    EXPECT_THAT(differ("{kind: cnn, layers: [{conv: 2, kernel: 3}, {pool: 2}]}",
                       "{kind: cnn, layers: [{conv: 2, kernel: 3}, {pool: 2, type: avg}]}", {1, 8, 8}),
                AllOf(HasSubstr("max_pool"), HasSubstr("avg_pool")));
    EXPECT_THAT(differ("{kind: mlp, hidden: [5]}", "{kind: mlp, hidden: [5, 5]}", {1, 8, 8}),
                Not(HasSubstr("no error")));
}

}  // namespace
}  // namespace thalweg::model::model_file_test
