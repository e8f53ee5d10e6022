#include "thalweg/core/value.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <stdexcept>

#include "expect_error.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/random.hpp"

namespace thalweg::core::value_test {
namespace {

using ::testing::HasSubstr;
using thalweg::testing::message_of;

Value quoted(const std::string& text) {
    return Value::scalar(text, true);
}

TEST(ValueBool, ReadsTheWordsOfYaml11) {
    for (const char* word : {"true", "True", "TRUE", "yes", "Yes", "on", "ON"})
        EXPECT_TRUE(Value::of(word).as_bool());
    for (const char* word : {"false", "False", "no", "NO", "off", "Off"})
        EXPECT_FALSE(Value::of(word).as_bool());
    EXPECT_TRUE(Value::of(true).as_bool());
    EXPECT_FALSE(Value::of(false).as_bool());
}

TEST(ValueBool, RefusesEverythingElse) {
    for (const char* word : {"1", "0", "y", "n", "tRUE", "", "true "}) {
        EXPECT_THROW(static_cast<void>(Value::of(word).as_bool()), UsageError) << word;
    }
    EXPECT_THROW(static_cast<void>(quoted("true").as_bool()), UsageError);
    EXPECT_THROW(static_cast<void>(Value().as_bool()), UsageError);
    EXPECT_THROW(static_cast<void>(Value::list().as_bool()), UsageError);
}

TEST(ValueInt, ReadsWholeIntegers) {
    EXPECT_EQ(Value::of("0").as_int(), 0);
    EXPECT_EQ(Value::of("-0").as_int(), 0);
    EXPECT_EQ(Value::of("+7").as_int(), 7);
    EXPECT_EQ(Value::of("-12").as_int(), -12);
    EXPECT_EQ(Value::of("9223372036854775807").as_int(), std::numeric_limits<std::int64_t>::max());
    EXPECT_EQ(Value::of("-9223372036854775808").as_int(), std::numeric_limits<std::int64_t>::min());
    EXPECT_EQ(Value::of(std::int64_t{1} << 60).as_int(), std::int64_t{1} << 60);
}

TEST(ValueInt, RefusesEverythingElse) {
    for (const char* word : {"", "+", "-", "1e3", "1.0", "1.", "0x10", "010", "1_000", "12 ", " 12", "12a",
                             "+-3", "--3", "true", "1,2"}) {
        EXPECT_THAT(message_of<UsageError>([&] { static_cast<void>(Value::of(word).as_int()); }),
                    HasSubstr("expected an integer"))
            << word;
    }
    for (const char* word : {"9223372036854775808", "-9223372036854775809", "99999999999999999999999"}) {
        EXPECT_THAT(message_of<UsageError>([&] { static_cast<void>(Value::of(word).as_int()); }),
                    HasSubstr("64-bit"));
    }
    EXPECT_THAT(message_of<UsageError>([] { static_cast<void>(quoted("5").as_int()); }),
                HasSubstr("found the quoted text '5'"));
    EXPECT_THAT(message_of<UsageError>([] { static_cast<void>(Value().as_int()); }),
                HasSubstr("found nothing (null)"));
    EXPECT_THAT(message_of<UsageError>([] { static_cast<void>(Value::list({Value::of(1)}).as_int()); }),
                HasSubstr("found a list of 1 item"));
}

TEST(ValueNumber, ReadsWholeNumbers) {
    EXPECT_EQ(Value::of("1").as_number(), 1);
    EXPECT_EQ(Value::of("1e3").as_number(), 1000);
    EXPECT_EQ(Value::of("-2.5E-3").as_number(), -0.0025);
    EXPECT_EQ(Value::of("+.5").as_number(), 0.5);
    EXPECT_EQ(Value::of("5.").as_number(), 5);
    EXPECT_EQ(Value::of("1.7976931348623157e308").as_number(), std::numeric_limits<double>::max());
}

TEST(ValueNumber, RefusesEverythingElse) {
    for (const char* word : {"", "+", ".", "e3", "1e", "0x1p3", "1.2.3", "1 ", "1f", "one", "+-1", "1e3x"}) {
        EXPECT_THAT(message_of<UsageError>([&] { static_cast<void>(Value::of(word).as_number()); }),
                    HasSubstr("expected a number"))
            << word;
    }
    for (const char* word : {"nan", "NaN", ".nan", "inf", "-inf", ".inf", "-.INF", "+infinity"}) {
        EXPECT_THAT(message_of<UsageError>([&] { static_cast<void>(Value::of(word).as_number()); }),
                    HasSubstr("finite"))
            << word;
    }
    EXPECT_THAT(message_of<UsageError>([] { static_cast<void>(Value::of("1e999").as_number()); }),
                HasSubstr("out of the range"));
    EXPECT_THROW(static_cast<void>(quoted("1.5").as_number()), UsageError);
}

TEST(ValueNumber, WritesTheShortestTextThatReadsBack) {
    EXPECT_EQ(Value::of(0.1).as_text(), "0.1");
    EXPECT_EQ(Value::of(1.0).as_text(), "1");
    EXPECT_EQ(Value::of(1e-5).as_text(), "1e-05");
    Random random(1, "value");
    for (int i = 0; i < 2000; ++i) {
        const double x = random.normal() * std::pow(10.0, random.uniform(-300, 300));
        ASSERT_EQ(Value::of(x).as_number(), x);
    }
}

TEST(Value, ReadsLists) {
    EXPECT_EQ(Value::of(std::vector<std::int64_t>{1, 2}).as_ints(), (std::vector<std::int64_t>{1, 2}));
    EXPECT_EQ(parse_yaml("[1, 2.5]", "x").as_numbers(), (std::vector<double>{1, 2.5}));
    EXPECT_THROW(static_cast<void>(Value::of(3).as_ints()), UsageError);
    EXPECT_THROW(static_cast<void>(parse_yaml("[1, a]", "x").as_numbers()), UsageError);
}

TEST(Value, TextIsAnyScalar) {
    EXPECT_EQ(Value::of(5).as_text(), "5");
    EXPECT_EQ(quoted("").as_text(), "");
    EXPECT_THROW(static_cast<void>(Value().as_text()), UsageError);
    EXPECT_THROW(static_cast<void>(Value::map().as_text()), UsageError);
}

TEST(Value, FieldsKeepTheirOrderAndAreReplaced) {
    Value value;
    value.set("b", Value::of(1));
    value.set("a", Value());
    value.set("b", Value::of(2));
    ASSERT_EQ(value.fields().size(), 2U);
    EXPECT_EQ(value.fields()[0].first, "b");
    EXPECT_EQ(value["b"].as_int(), 2);
    EXPECT_TRUE(value.has("b"));
    EXPECT_FALSE(value.has("a"));
    EXPECT_FALSE(value.has("c"));
    EXPECT_NE(value.find("a"), nullptr);
    EXPECT_EQ(value.find("c"), nullptr);
    EXPECT_THROW(static_cast<void>(value["c"]), std::logic_error);
    Value scalar = Value::of(1);
    EXPECT_THROW(scalar.set("a", Value()), std::logic_error);
}

TEST(Value, EqualityCountsKindTextAndOrder) {
    EXPECT_EQ(Value::of(1), quoted("1"));
    EXPECT_FALSE(Value::of(1) == Value::of(2));
    EXPECT_FALSE(Value() == Value::of("null"));
    EXPECT_FALSE(Value::list() == Value::map());
    EXPECT_EQ(parse_yaml("{a: 1, b: [x]}", "f"), parse_yaml("a: 1\nb:\n  - x\n", "g"));
    EXPECT_FALSE(parse_yaml("{a: 1, b: 2}", "f") == parse_yaml("{b: 2, a: 1}", "f"));
}

TEST(Value, SaysWhereItStands) {
    const Value root =
        parse_yaml("data:\n  partition:\n    alpha: -1\nlist: [a, {b: c}]\n", "configs/x.yaml");
    const Value& alpha = root["data"]["partition"]["alpha"];
    EXPECT_EQ(alpha.where(), "configs/x.yaml:3:5: data.partition.alpha");
    EXPECT_EQ(message_of<UsageError>([&] { alpha.reject("must be > 0, but is -1"); }),
              "configs/x.yaml:3:5: data.partition.alpha: must be > 0, but is -1");
    EXPECT_EQ(root["data"].where(), "configs/x.yaml:1:1: data");
    EXPECT_EQ(root["list"].items()[1]["b"].where(), "configs/x.yaml:4:12: list[1].b");
    EXPECT_EQ(root["list"].items()[0].path(), "list[0]");
}

TEST(Value, SaysAsMuchOfItsPlaceAsIsKnown) {
    Value value = Value::map({{"a", Value::of(1)}});
    EXPECT_EQ(value.where(), "");
    EXPECT_EQ(message_of<UsageError>([&] { value.reject("bad"); }), "bad");
    value.set_path("x");
    EXPECT_EQ(value["a"].where(), "x.a");
    value.place(std::make_shared<const std::string>("command line"), 0, 0);
    EXPECT_EQ(value.where(), "command line: x");
    EXPECT_EQ(value["a"].where(), "x.a");
    Value other = Value::map({{"a", Value::of(1)}});
    other.place_like(value, true);
    EXPECT_EQ(other["a"].where(), "command line");
}

}  // namespace
}  // namespace thalweg::core::value_test
