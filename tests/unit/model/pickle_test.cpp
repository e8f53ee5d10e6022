// Pickled objects that ask for much more than their size: each was found by reading the code or by the fuzz target.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include "helpers.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/model/model_file.hpp"
#include "unit/support/stored_zip.hpp"

namespace thalweg::model::pickle_test {
namespace {

using test::message_of;
using ::testing::HasSubstr;

std::string archive_of(const std::string& pickled, std::size_t bytes = 64) {
    return thalweg::testing::stored_zip(
        {{"archive/data.pkl", pickled}, {"archive/data/0", std::string(bytes, '\x3f')}});
}

std::string refusal(const std::string& pickled) {
    return message_of<core::RunError>([&] { parse_tensors(archive_of(pickled), "x.pt"); });
}

std::string text(const std::string& value) {
    return std::string("\x8c") + static_cast<char>(value.size()) + value;
}

std::string small(std::size_t value) {
    return std::string("K") + static_cast<char>(value);
}

std::string wide(std::size_t value) {
    std::string number = "J";
    for (int byte = 0; byte < 4; ++byte) number += static_cast<char>(value >> (8 * byte) & 0xff);
    return number;
}

/// A float storage of `count` elements under the key 0.
std::string storage(std::size_t count) {
    return "(" + text("storage") + "ctorch\nFloatStorage\n" + text("0") + text("cpu") + wide(count) + "tQ";
}

/// A tensor with these sizes and strides, each a pickled tuple.
std::string tensor(const std::string& sizes, const std::string& strides, std::size_t count = 16) {
    return "ctorch._utils\n_rebuild_tensor_v2\n(" + storage(count) + small(0) + sizes + strides + "tR";
}

std::string file_of(const std::string& items) {
    return "\x80\x02}(" + text("tensors") + "}(" + items + "u" + text("meta") + "}u.";
}

std::string repeated(const std::string& piece, std::size_t count) {
    std::string all;
    for (std::size_t i = 0; i < count; ++i) all += piece;
    return all;
}

TEST(Pickle, WrittenByHandIsRead) {
    const auto file = parse_tensors(
        archive_of(file_of(text("a") + tensor(small(2) + small(3) + "\x86", small(3) + small(1) + "\x86"))),
        "x.pt");
    EXPECT_EQ(file.at("a").sizes().vec(), (std::vector<std::int64_t>{2, 3}));
}

TEST(Pickle, TensorsThatShareTheirDataDoNotMultiplyIt) {
    std::string items;
    for (char name = 'a'; name <= 'z'; ++name)
        items += text(std::string(200, name)) + tensor(small(16) + "\x85", small(1) + "\x85");
    EXPECT_NO_THROW(parse_tensors(archive_of(file_of(items)), "x.pt"));
    // 100 names of two bytes, each of the whole storage, which is remembered.
    items = text("first") + tensor(small(16) + "\x85", small(1) + "\x85") + "q\x01";
    for (char a = 'a'; a <= 'z'; ++a) {
        for (char b = 'a'; b <= 'z'; ++b) items += text(std::string{a, b}) + "h\x01";
    }
    EXPECT_THAT(refusal(file_of(items)), HasSubstr("share their data"));
}

TEST(Pickle, ATensorHasAtMost16Axes) {
    const auto ones = [](std::size_t count) { return "(" + repeated(small(1), count) + "t"; };
    EXPECT_NO_THROW(parse_tensors(archive_of(file_of(text("a") + tensor(ones(16), ones(16)))), "x.pt"));
    EXPECT_THAT(refusal(file_of(text("a") + tensor(ones(17), ones(17)))), HasSubstr("16 axes"));
}

TEST(Pickle, AnEmptyTensorCannotHaveShapesBeyondCounting) {
    const auto huge = "\x8a\x08" + std::string(7, '\xff') + '\x3f';
    EXPECT_THAT(refusal(file_of(text("a") +
                                tensor(small(0) + huge + huge + "\x87", huge + huge + small(1) + "\x87"))),
                HasSubstr("reaches outside its storage"));
    EXPECT_THAT(refusal(file_of(text("a") + tensor(small(0) + huge + "\x86", huge + small(1) + "\x86"))),
                HasSubstr("reaches outside its storage"));
}

TEST(Pickle, HasABoundedNumberOfObjects) {
    EXPECT_THAT(refusal("\x80\x02" + std::string(2'100'000, 'N')),
                HasSubstr("more objects than any state_dict"));
    EXPECT_THAT(refusal("\x80\x02N" + std::string(2'100'000, '\x94')),
                HasSubstr("more objects than any state_dict"));
}

TEST(Pickle, AModelWhoseLayersShareOneWeightIsReadUnlessItGrowsOutOfProportion) {
    const auto load = [](std::size_t layers) {
        std::string widths = "256";
        std::string items = text("layers.0.weight") +
                            tensor(wide(256) + wide(256) + "\x86", wide(256) + small(1) + "\x86", 65536) +
                            "q\x01" + text("layers.0.bias") +
                            tensor(wide(256) + "\x85", small(1) + "\x85", 65536) + "q\x02";
        for (std::size_t i = 1; i <= layers; ++i) {
            if (i < layers) widths += ",256";
            const auto name = "layers." + std::to_string(2 * i);
            items += text(name + ".weight") + "h\x01" + text(name + ".bias") + "h\x02";
        }
        const auto spec =
            core::parse_yaml("{kind: mlp, hidden: [" + widths + "], input: [256], classes: 256}", "spec");
        return parse_model(archive_of("\x80\x02}(" + items + "u.", 4 * 65536), "x.pt", spec);
    };
    const auto file = load(12);
    EXPECT_TRUE(at::equal(file.parameters.view("layers.0.weight"), file.parameters.view("layers.24.weight")));
    EXPECT_THAT(message_of<core::RunError>([&] { load(600); }), HasSubstr("share their data so often"));
}

}  // namespace
}  // namespace thalweg::model::pickle_test
