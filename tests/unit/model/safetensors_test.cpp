// The safetensors format: both directions, and every sort of damage by name.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <cstring>
#include <fstream>

#include "helpers.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/files.hpp"
#include "thalweg/model/model_file.hpp"

namespace thalweg::model::safetensors_test {
namespace {

using test::graph_of;
using test::message_of;
using test::random_parameters;
using ::testing::AllOf;
using ::testing::HasSubstr;

const char* const batch_mlp = "{kind: mlp, hidden: [5, 4], norm: batch}";

/// A file as the format's description has it, put together by hand.
std::string file_of(const std::string& header, const std::string& data) {
    std::string length(8, '\0');
    for (std::size_t i = 0; i < 8; ++i) length[i] = static_cast<char>(header.size() >> (8 * i) & 0xff);
    return length + header + data;
}

std::string bytes_of(const at::Tensor& tensor) {
    const auto values = tensor.contiguous();
    return std::string(static_cast<const char*>(values.data_ptr()), values.nbytes());
}

std::string refusal(const std::string& content) {
    return message_of<core::RunError>([&] { parse_tensors(content, "x.safetensors"); });
}

TEST(Safetensors, ModelsComeBackAsTheyWere) {
    const test::TemporaryFolder folder;
    for (const auto* yaml : {batch_mlp, "linear", "{kind: cnn, preset: niid_bench, norm: layer}"}) {
        const auto graph = graph_of(yaml, {1, 28, 28}, 3);
        const auto parameters = random_parameters(graph);
        parameters.counters.fill_(12345678901);
        const std::map<std::string, std::string> meta{
            {"data", "fashion_mnist:/a \"b\"\n\\"}, {"round", "3"}, {"é", ""}};
        save_model(folder / "m.safetensors", graph, parameters, meta);
        const auto file = load_model(folder / "m.safetensors");
        EXPECT_TRUE(*file.graph.layout == *graph.layout);
        EXPECT_TRUE(file.graph.spec == graph.spec);
        EXPECT_TRUE(at::equal(file.parameters.values, parameters.values)) << yaml;
        EXPECT_TRUE(at::equal(file.parameters.counters, parameters.counters));
        EXPECT_EQ(file.meta, meta);
    }
}

TEST(Safetensors, AreTheSameBytesForTheSameContentAndAligned) {
    const test::TemporaryFolder folder;
    const auto graph = graph_of(batch_mlp, {6}, 3);
    save_model(folder / "a.safetensors", graph, random_parameters(graph), {{"b", "2"}, {"a", "1"}});
    const auto again = graph_of(batch_mlp, {6}, 3);
    save_model(folder / "b.safetensors", again, random_parameters(again), {{"a", "1"}, {"b", "2"}});
    const auto bytes = core::read_file(folder / "a.safetensors");
    EXPECT_EQ(bytes, core::read_file(folder / "b.safetensors"));
    EXPECT_EQ(static_cast<unsigned char>(bytes[0]) % 8, 0);
    EXPECT_EQ(bytes.substr(8, 15), "{\"__metadata__\"");
    EXPECT_THAT(
        bytes,
        HasSubstr(R"("layers.1.num_batches_tracked":{"dtype":"I64","shape":[],"data_offsets":[0,8]})"));
}

TEST(Safetensors, RefuseWhatTheyCannotHold) {
    const test::TemporaryFolder folder;
    const auto graph = graph_of("linear", {3}, 2);
    const auto parameters = random_parameters(graph);
    const auto path = folder / "m.safetensors";
    EXPECT_THROW(save_model(path, graph, parameters, {{"model", "x"}}), std::logic_error);
    EXPECT_THAT(message_of<core::RunError>([&] {
                    save_model(path, graph, parameters, {{"data", "\xff"}});
                }),
                AllOf(HasSubstr("m.safetensors"), HasSubstr("UTF-8")));
    EXPECT_THAT(message_of<core::RunError>([&] {
                    save_tensors(path, {{"t", at::zeros({2}, at::kByte)}}, {});
                }),
                AllOf(HasSubstr("tensor t"), HasSubstr("BF16")));
    EXPECT_THROW(save_tensors(path, {{"t", at::zeros({2})}, {"t", at::zeros({2})}}, {}), std::logic_error);
    EXPECT_FALSE(std::filesystem::exists(path));
    EXPECT_THROW(save_model(folder / "nowhere/m.safetensors", graph, parameters, {}), core::RunError);
}

TEST(Safetensors, TensorsKeepTypesAndShapes) {
    const test::TemporaryFolder folder;
    const auto base = at::arange(24, at::kFloat).view({2, 3, 4});
    const std::vector<std::pair<std::string, at::Tensor>> tensors{
        {"double", at::full({3}, 0.1, at::kDouble)},
        {"long", at::arange(-2, 5, at::kLong)},
        {"z", base},
        {"transposed", base.permute({2, 0, 1})},
        {"empty", at::empty({0, 3})},
        {"scalar", at::scalar_tensor(7.5)},
        {"half", at::full({3}, 0.5, at::kHalf)},
        {"bfloat", at::full({1}, 2.5, at::kBFloat16)},
    };
    save_tensors(folder / "t.safetensors", tensors, {{"round", "7"}});
    const auto file = load_tensors(folder / "t.safetensors");
    ASSERT_EQ(file.tensors.size(), tensors.size());
    for (const auto& [name, tensor] : tensors) {
        EXPECT_EQ(file.at(name).scalar_type(), tensor.scalar_type()) << name;
        EXPECT_TRUE(at::equal(file.at(name), tensor)) << name;
    }
    EXPECT_EQ(file.meta, (std::map<std::string, std::string>{{"round", "7"}}));
}

TEST(Safetensors, OfAnotherProgramNeedTheArchitecture) {
    const auto weight = at::arange(6, at::kFloat).view({2, 3}) / 4;
    const auto bias = at::full({2}, -1.5, at::kDouble);
    const auto file = file_of(
        R"({"fc.weight": {"dtype":"BF16","shape":[2,3],"data_offsets":[16,28]}, "fc.bias":{"shape":[2],)"
        R"("data_offsets":[0,16],"dtype":"F64"}}   )",
        bytes_of(bias) + bytes_of(weight.to(at::kBFloat16)));
    const auto spec = core::parse_yaml("{kind: linear, input: [3], classes: 2}", "spec");
    const auto loaded = parse_model(file, "x.safetensors", spec);
    EXPECT_TRUE(at::equal(loaded.parameters.view("fc.weight"), weight));
    EXPECT_TRUE(at::equal(loaded.parameters.view("fc.bias"), bias.to(at::kFloat)));
    EXPECT_TRUE(loaded.meta.empty());
    EXPECT_THAT(message_of<core::RunError>([&] { parse_model(file, "x.safetensors"); }),
                AllOf(HasSubstr("x.safetensors"), HasSubstr("--model")));
    const auto other = core::parse_yaml("{kind: linear, input: [4], classes: 2}", "spec");
    EXPECT_THAT(message_of<core::RunError>([&] { parse_model(file, "x.safetensors", other); }),
                AllOf(HasSubstr("fc.weight is "), HasSubstr("linear")));
    const auto integers = file_of(R"({"fc.weight":{"dtype":"I64","shape":[2,3],"data_offsets":[16,64]},)"
                                  R"("fc.bias":{"dtype":"F64","shape":[2],"data_offsets":[0,16]}})",
                                  std::string(64, '\0'));
    EXPECT_THAT(message_of<core::RunError>([&] { parse_model(integers, "x.safetensors", spec); }),
                HasSubstr("fc.weight holds integers"));
}

TEST(Safetensors, SayWhatIsWrongWithTheFile) {
    EXPECT_THAT(refusal(""), AllOf(HasSubstr("x.safetensors"), HasSubstr("too short")));
    EXPECT_THAT(refusal("PK\x03\x04 and so on"), HasSubstr(".pt"));
    EXPECT_THAT(refusal(std::string(7, '\0')), HasSubstr("too short"));
    EXPECT_THAT(refusal(std::string(8, '\0')), HasSubstr("not JSON"));
    EXPECT_THAT(refusal(std::string(8, '\xff') + "{}"), HasSubstr("18446744073709551615 bytes and has 2"));
    EXPECT_THAT(refusal(file_of("{}", "").substr(0, 9)), HasSubstr("cut off"));
    EXPECT_THAT(refusal(file_of(" {}", "")), HasSubstr("not JSON"));
    EXPECT_THAT(refusal(file_of("{", "")), HasSubstr("not valid JSON"));
    EXPECT_THAT(refusal(file_of("{}{}", "")), HasSubstr("not valid JSON"));
    EXPECT_THAT(refusal(file_of("{\"\xff\":{}}", "")), HasSubstr("not valid JSON"));
    EXPECT_THAT(refusal(file_of("{}", "x")), HasSubstr("take 0 bytes, but 1"));
    EXPECT_NO_THROW(parse_tensors(file_of("{}", ""), "x.safetensors"));
}

TEST(Safetensors, SayWhatIsWrongWithTheHeader) {
    const auto header = [](const std::string& text) { return refusal(file_of(text, std::string(8, 'x'))); };
    const std::string good = R"("dtype":"F32","shape":[2],"data_offsets":[0,8])";
    EXPECT_NO_THROW(parse_tensors(file_of("{\"a\":{" + good + "}}", std::string(8, 'x')), "x.safetensors"));
    EXPECT_THAT(header("{\"a\":{" + good + "},\"a\":{" + good + "}}"), HasSubstr("'a' twice"));
    EXPECT_THAT(header("{\"a\":{" + good + ",\"shape\":[2]}}"), HasSubstr("'shape' twice"));
    EXPECT_THAT(header("{\"a\":{" + good + ",\"more\":1}}"), HasSubstr("a number under 'more'"));
    EXPECT_THAT(header("{\"a\":{" + good + ",\"more\":{}}}"), HasSubstr("an object under 'more'"));
    EXPECT_THAT(header(R"({"a":{"dtype":"F32","shape":[2]}})"), HasSubstr("tensor a has no data_offsets"));
    EXPECT_THAT(header(R"({"a":{"shape":[2],"data_offsets":[0,8]}})"), HasSubstr("tensor a has no dtype"));
    EXPECT_THAT(header(R"({"a":7})"), HasSubstr("a number under 'a'"));
    EXPECT_THAT(header(R"({"a":[[[[]]]]})"), HasSubstr("a list under 'a'"));
    EXPECT_THAT(header(R"({"a":{"shape":[[2]]}})"), HasSubstr("a list under 'shape'"));
    EXPECT_THAT(header(R"({"a":{"shape":[{}]}})"), HasSubstr("an object under 'shape'"));
    EXPECT_THAT(header(R"({"a":{"shape":[null]}})"), HasSubstr("null under 'shape'"));
    EXPECT_THAT(header(R"({"a":{"shape":[-2]}})"), HasSubstr("a negative number"));
    EXPECT_THAT(header(R"({"a":{"shape":[2.5]}})"), HasSubstr("no 64-bit integer"));
    EXPECT_THAT(header(R"({"a":{"shape":[99999999999999999999]}})"), HasSubstr("no 64-bit integer"));
    EXPECT_THAT(header(R"({"a":{"shape":[9223372036854775808]}})"), HasSubstr("beyond 63 bits"));
    EXPECT_THAT(header(R"({"a":{"shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]}})"), HasSubstr("more than 16"));
    EXPECT_THAT(header(R"({"__metadata__":{"a":1}})"), HasSubstr("a number under 'a'"));
    EXPECT_THAT(header(R"({"__metadata__":{"a":[]}})"), HasSubstr("a list under 'a'"));
    EXPECT_THAT(header(R"({"__metadata__":"a"})"), HasSubstr("a text under '__metadata__'"));
}

TEST(Safetensors, SayWhatIsWrongWithATensor) {
    const auto tensor = [](const std::string& dtype, const std::string& shape, const std::string& offsets) {
        return refusal(file_of("{\"a.b\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape +
                                   ",\"data_offsets\":" + offsets + "}}",
                               std::string(8, 'x')));
    };
    EXPECT_THAT(tensor("U8", "[8]", "[0,8]"),
                AllOf(HasSubstr("tensor a.b"), HasSubstr("U8"), HasSubstr("BF16")));
    EXPECT_THAT(tensor("F8_E4M3", "[8]", "[0,8]"), HasSubstr("F8_E4M3"));
    EXPECT_THAT(tensor("F32", "[2]", "[0]"), HasSubstr("not two numbers"));
    EXPECT_THAT(tensor("F32", "[2]", "[0,4]"), HasSubstr("takes 8 bytes, but its data_offsets are 0 to 4"));
    EXPECT_THAT(tensor("F32", "[2]", "[8,0]"), HasSubstr("8 to 0"));
    EXPECT_THAT(tensor("F32", "[1]", "[0,4]"), HasSubstr("take 4 bytes, but 8 follow"));
    EXPECT_THAT(tensor("F32", "[1]", "[4,8]"), HasSubstr("a gap"));
    EXPECT_THAT(tensor("F32", "[3]", "[0,12]"), HasSubstr("take 12 bytes, but 8 follow"));
    EXPECT_THAT(tensor("F32", "[4294967296,4294967296]", "[0,0]"), HasSubstr("too large to be counted"));
    EXPECT_THAT(tensor("F32", "[0,4294967296,4294967296]", "[0,0]"), HasSubstr("too large to be counted"));
    EXPECT_THAT(tensor("F32", "[9223372036854775807]", "[0,8]"), HasSubstr("too large"));
    EXPECT_THAT(refusal(file_of(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                                R"("b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
                                std::string(8, 'x'))),
                HasSubstr("inside another's"));
}

}  // namespace
}  // namespace thalweg::model::safetensors_test
