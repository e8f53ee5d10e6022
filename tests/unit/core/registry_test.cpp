#include "thalweg/core/registry.hpp"

#include <gtest/gtest.h>

#include "expect_error.hpp"
#include "test_plugins.hpp"

namespace thalweg::core::registry_test {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using thalweg::testing::Fruit;
using thalweg::testing::message_of;

// Registered in the wrong order: the registry sorts.
const Registration<Fruit, int> pear{
    {.kind = "fruit",
     .name = "pear",
     .help = "a pear",
     .citation = "",
     .options = {boolean("ripe", "whether it is")}},
    [](const Value& options, int count) {
        return Fruit{std::to_string(count) + (options["ripe"].as_bool() ? " ripe pears" : " hard pears")};
    }};

const Registration<Fruit, int> apple{
    {.kind = "fruit",
     .name = "apple",
     .help = "an apple",
     .citation = "Newton 1666",
     .options = {text("colour", "its colour").by_default("red"),
                 number("weight", "in N").above(0).by_default(1)}},
    [](const Value& options, int count) {
        return Fruit{std::to_string(count) + " " + options["colour"].as_text() + " apples"};
    }};

const Registration<int> needy{{.kind = "needy",
                               .name = "one",
                               .help = "",
                               .citation = "",
                               .options = {number("x", "").above(1).below(2)}},
                              [](const Value&) { return 1; }};

TEST(Registry, ListsKindsAndPluginsSorted) {
    EXPECT_THAT(plugin_kinds(), ElementsAre("fruit", "needy"));
    const auto fruits = plugins_of("fruit");
    ASSERT_EQ(fruits.size(), 2U);
    EXPECT_EQ(fruits[0].name, "apple");
    EXPECT_EQ(fruits[0].citation, "Newton 1666");
    EXPECT_EQ(fruits[1].name, "pear");
    EXPECT_TRUE(plugins_of("vegetable").empty());
    EXPECT_THAT(plugin_kinds(), ElementsAre("fruit", "needy")) << "asking must not add a kind";
}

TEST(Registry, FindsByName) {
    ASSERT_NE(find_plugin("fruit", "pear"), nullptr);
    EXPECT_EQ(find_plugin("fruit", "pear")->help, "a pear");
    EXPECT_EQ(find_plugin("fruit", "plum"), nullptr);
    EXPECT_EQ(find_plugin("vegetable", "pear"), nullptr);
}

TEST(Registry, MakesFromResolvedOptions) {
    const Value by_name = resolve_plugin("fruit", "kind", Value::of("apple"), "x");
    EXPECT_EQ((Registry<Fruit, int>::make(by_name, 3).text), "3 red apples");
    const Value by_map = resolve_plugin("fruit", "scheme", parse_yaml("{pear: {ripe: no}}", "f"), "x");
    EXPECT_EQ((Registry<Fruit, int>::make(by_map, 2, "scheme").text), "2 hard pears");
}

TEST(Registry, ADuplicateIsAnErrorAndReplacesNothing) {
    const auto again = [] {
        const Registration<Fruit, int> twice{
            {.kind = "fruit", .name = "apple", .help = "another", .citation = "", .options = {}},
            [](const Value&, int) { return Fruit{"wrong"}; }};
    };
    ::testing::internal::CaptureStderr();
    EXPECT_EQ(message_of<std::logic_error>(again), "the fruit 'apple' is registered twice");
    EXPECT_THAT(::testing::internal::GetCapturedStderr(), HasSubstr("the fruit 'apple' is registered twice"));
    EXPECT_EQ(find_plugin("fruit", "apple")->help, "an apple");
    const Value options = resolve_plugin("fruit", "kind", Value::of("apple"), "x");
    EXPECT_EQ((Registry<Fruit, int>::make(options, 1).text), "1 red apples");
}

TEST(Registry, AMissingFactoryIsAMistakeInTheProgram) {
    const Value options = Value::map({{"kind", Value::of("plum")}});
    EXPECT_THROW((Registry<Fruit, int>::make(options, 1)), std::logic_error);
}

}  // namespace
}  // namespace thalweg::core::registry_test
