#include "thalweg/core/schema.hpp"

#include <gtest/gtest.h>

#include "expect_error.hpp"
#include "test_plugins.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/registry.hpp"

namespace thalweg::core::schema_test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using thalweg::testing::message_of;

const Schema& partition() {
    static const Schema schema{number("alpha", "concentration").above(0).by_default(0.5),
                               integer("clients", "how many").at_least(1).at_most(100),
                               integer("min_size", "fewest samples").at_least(0).by_default(10)};
    return schema;
}

Value resolved(const Schema& schema, const std::string& yaml, const std::string& path = "") {
    return resolve(schema, parse_yaml(yaml, "f.yaml"), path);
}

std::string flow(const Schema& schema, const std::string& yaml) {
    return to_flow(resolved(schema, yaml));
}

std::string refusal(const Schema& schema, const std::string& yaml, const std::string& path = "") {
    return message_of<UsageError>([&] { resolved(schema, yaml, path); });
}

TEST(Resolve, FillsDefaultsInAndOrdersKeys) {
    EXPECT_EQ(flow(partition(), "{clients: 5, alpha: 0.10}"), "{alpha: 0.1, clients: 5, min_size: 10}");
}

TEST(Resolve, KeepsPlacesAndSetsPaths) {
    const Value given = parse_yaml("x:\n  clients: 5\n", "f.yaml")["x"];
    const Value value = resolve(partition(), given, "data.partition");
    EXPECT_EQ(value["clients"].where(), "f.yaml:2:3: data.partition.clients");
    // A default stands where the map does that lacks it.
    EXPECT_EQ(value["alpha"].where(), "f.yaml:1:1: data.partition.alpha");
    EXPECT_EQ(value.where(), "f.yaml:1:1: data.partition");
}

TEST(Resolve, IsIdempotent) {
    const Value once = resolved(partition(), "{clients: 5}");
    EXPECT_EQ(resolve(partition(), once, ""), once);
    EXPECT_EQ(resolve(partition(), parse_yaml(to_yaml(once), "g"), ""), once);
}

TEST(Resolve, NamesAnUnknownKey) {
    EXPECT_EQ(refusal(partition(), "clients: 5\naplha: 1\n", "data.partition"),
              "f.yaml:2:1: data.partition.aplha: unknown key 'aplha'; did you mean 'alpha'? Valid keys here: "
              "alpha, "
              "clients, min_size");
    EXPECT_EQ(refusal(partition(), "{clients: 5, zebra: 1}"),
              "f.yaml:1:14: zebra: unknown key 'zebra'; valid keys here: alpha, clients, min_size");
    EXPECT_THAT(refusal(Schema(), "{zebra: 1}"), HasSubstr("no keys are allowed here"));
}

TEST(Resolve, NamesAMissingKey) {
    EXPECT_EQ(refusal(partition(), "alpha: 1\n", "data.partition"),
              "f.yaml:1:1: data.partition.clients: the key 'clients' is missing; it must be given (integer "
              ">= 1 and <= "
              "100, required: how many). For example `clients: 1`");
    EXPECT_THAT(message_of<UsageError>([] { resolve(partition(), Value(), "p"); }),
                HasSubstr("p.clients: the key"));
}

TEST(Resolve, ChecksRanges) {
    EXPECT_EQ(refusal(partition(), "{clients: 5, alpha: 0}"), "f.yaml:1:14: alpha: must be > 0, but is 0");
    EXPECT_EQ(refusal(partition(), "{clients: 101}"),
              "f.yaml:1:2: clients: must be >= 1 and <= 100, but is 101");
    EXPECT_THAT(refusal(partition(), "{clients: 0}"), HasSubstr("must be >= 1"));
    EXPECT_NO_THROW(resolved(partition(), "{clients: 1}"));
    EXPECT_NO_THROW(resolved(partition(), "{clients: 100}"));
    const Schema open{number("x", "").at_least(-1).below(1)};
    EXPECT_NO_THROW(resolved(open, "{x: -1}"));
    EXPECT_THAT(refusal(open, "{x: 1}"), HasSubstr("must be >= -1 and < 1, but is 1"));
    EXPECT_THAT(refusal(open, "{x: -1.1}"), HasSubstr("but is -1.1"));
}

TEST(Resolve, NamesAWrongType) {
    EXPECT_THAT(refusal(partition(), "{clients: five}"),
                HasSubstr("clients: expected an integer, but found 'five'"));
    EXPECT_THAT(refusal(partition(), "{clients: '5'}"), HasSubstr("found the quoted text '5'"));
    EXPECT_THAT(refusal(partition(), "{clients: [5]}"), HasSubstr("found a list of 1 item"));
    EXPECT_THAT(
        refusal(partition(), "{clients: }"),
        HasSubstr("expected an integer >= 1 and <= 100, but found nothing (null); for example `clients: 1`"));
    EXPECT_THAT(refusal(partition(), "{clients: 5, alpha: null}"), HasSubstr("alpha: expected a number > 0"));
    EXPECT_EQ(refusal(partition(), "[1]", "data"),
              "f.yaml:1:1: data: expected a map with the keys alpha, clients, min_size, but found a list of "
              "1 item");
    const Schema flags{boolean("flag", "")};
    EXPECT_THAT(refusal(flags, "{flag: 1}"), HasSubstr("expected true or false, but found '1'"));
    EXPECT_THAT(refusal(flags, "{flag: {}}"), HasSubstr("an empty map"));
}

TEST(Resolve, WritesScalarsAnew) {
    const Schema schema{boolean("b", ""), integer("i", ""), number("n", ""), text("t", ""),
                        choice("c", {"on", "x"}, "")};
    EXPECT_EQ(flow(schema, "{b: Yes, i: +5, n: 1e3, t: 5, c: on}"),
              "{b: true, i: 5, n: 1000, t: \"5\", c: \"on\"}");
}

TEST(Resolve, Choices) {
    const Schema schema{choice("mode", {"elect", "attenuate"}, "").by_default("elect")};
    EXPECT_EQ(flow(schema, "{}"), "{mode: elect}");
    EXPECT_EQ(refusal(schema, "{mode: elct}"),
              "f.yaml:1:2: mode: must be one of elect, attenuate, but is 'elct'; did you mean 'elect'?");
    EXPECT_THAT(refusal(schema, "{mode: [elect]}"), HasSubstr("found a list"));
}

TEST(Resolve, Lists) {
    const Schema schema{integers("sizes", "").at_least(1).at_least_items(2),
                        numbers("rates", "").below(1).by_default("[]")};
    EXPECT_EQ(flow(schema, "{sizes: [1, 2], rates: [0.50]}"), "{sizes: [1, 2], rates: [0.5]}");
    EXPECT_EQ(flow(schema, "{sizes: [1, 2]}"), "{sizes: [1, 2], rates: []}");
    EXPECT_EQ(refusal(schema, "{sizes: [1]}"), "f.yaml:1:2: sizes: must have at least 2 items, but has 1");
    EXPECT_EQ(refusal(schema, "{sizes: [1, 0]}"), "f.yaml:1:13: sizes[1]: must be >= 1, but is 0");
    EXPECT_THAT(refusal(schema, "{sizes: [1, x]}"), HasSubstr("sizes[1]: expected an integer"));
    EXPECT_THAT(refusal(schema, "{sizes: [1, ]}"), HasSubstr("at least 2 items"));
    EXPECT_THAT(refusal(schema, "{sizes: [1, null]}"),
                HasSubstr("sizes[1]: expected an integer, but found nothing"));
    EXPECT_THAT(refusal(schema, "{sizes: [1, 2], rates: 3}"),
                HasSubstr("expected a list of numbers < 1, but found '3'"));
}

TEST(Resolve, NullableKeysStayVisible) {
    const Schema schema{integer("limit", "").optional(), text("name", "").optional().by_default("x"),
                        plugin("p", "fruit", "").optional(), object("o", {integer("i", "")}, "").optional()};
    const Value value = resolved(schema, "{}");
    EXPECT_EQ(to_flow(value), "{limit: null, name: x, p: null, o: null}");
    EXPECT_EQ(value["limit"].path(), "limit");
    EXPECT_EQ(flow(schema, "{limit: null, name: null, p: ~, o: }"),
              "{limit: null, name: null, p: null, o: null}");
    EXPECT_EQ(flow(schema, "{limit: 3, o: {i: 1}}"), "{limit: 3, name: x, p: null, o: {i: 1}}");
}

TEST(Resolve, EmptyTextDefaults) {
    const Schema schema{text("a", "").by_default(""), text("b", "").by_default("\"\""),
                        text("c", "").by_default("null x")};
    EXPECT_EQ(flow(schema, "{}"), "{a: \"\", b: \"\", c: null x}");
}

TEST(Resolve, Objects) {
    const std::vector<Option> fields{integer("every", "").by_default(1), text("name", "")};
    const Schema schema{object("one", {boolean("x", "").by_default(true)}, "").by_default("{}"),
                        objects("many", fields, "").by_default("[]")};
    EXPECT_EQ(flow(schema, "{}"), "{one: {x: true}, many: []}");
    EXPECT_EQ(flow(schema, "{one: }"), "{one: {x: true}, many: []}");
    EXPECT_EQ(flow(schema, "{many: [{name: a}, {name: b, every: 2}]}"),
              "{one: {x: true}, many: [{every: 1, name: a}, {every: 2, name: b}]}");
    EXPECT_THAT(refusal(schema, "{one: 3}"), HasSubstr("one: expected a map, but found '3'"));
    EXPECT_THAT(refusal(schema, "{many: {name: a}}"), HasSubstr("expected a list of maps"));
    EXPECT_THAT(refusal(schema, "{many: [{name: a}, {nam: b}]}"),
                HasSubstr("many[1].nam: unknown key 'nam'; did you mean"));
    EXPECT_THAT(refusal(schema, "{many: [{}]}"), HasSubstr("many[0].name: the key 'name' is missing"));
}

TEST(Resolve, IgnoredKeysPassThroughUnchecked) {
    const Value value = resolve(partition(), parse_yaml("{clients: 1, kind: x, extra: [1]}", "f"), "",
                                {"kind", "extra", "other"});
    EXPECT_EQ(to_flow(value), "{kind: x, extra: [1], alpha: 0.5, clients: 1, min_size: 10}");
}

TEST(ResolvePlugin, AcceptsEveryForm) {
    const Schema schema{plugin("fruit", "fruit", "", "kind")};
    const std::string apple = "{fruit: {kind: apple, colour: red, weight: 1}}";
    EXPECT_EQ(flow(schema, "{fruit: apple}"), apple);
    EXPECT_EQ(flow(schema, "{fruit: 'apple'}"), apple);
    EXPECT_EQ(flow(schema, "{fruit: {kind: apple}}"), apple);
    EXPECT_EQ(flow(schema, "{fruit: {colour: red, kind: apple}}"), apple);
    EXPECT_EQ(flow(schema, "{fruit: {apple: }}"), apple);
    EXPECT_EQ(flow(schema, "{fruit: {apple: {colour: red}}}"), apple);
    EXPECT_EQ(flow(schema, "{fruit: {apple: {weight: 2.0}}}"),
              "{fruit: {kind: apple, colour: red, weight: 2}}");
}

TEST(ResolvePlugin, UsesItsSelector) {
    const Schema schema{plugin("fruit", "fruit", "", "scheme").by_default("apple")};
    const Value value = resolved(schema, "{}");
    EXPECT_EQ(to_flow(value), "{fruit: {scheme: apple, colour: red, weight: 1}}");
    EXPECT_EQ(value["fruit"]["colour"].path(), "fruit.colour");
    EXPECT_EQ(flow(schema, "{fruit: {scheme: apple, weight: 3}}"),
              "{fruit: {scheme: apple, colour: red, weight: 3}}");
    EXPECT_THAT(refusal(schema, "{fruit: {kind: apple}}"), HasSubstr("a map {scheme: name, option: value}"));
}

TEST(ResolvePlugin, Lists) {
    const Schema schema{plugins("basket", "fruit", "")};
    const Value value =
        resolved(schema, "basket:\n  - apple\n  - pear: {ripe: yes}\n  - {kind: pear, ripe: no}\n");
    EXPECT_EQ(to_flow(value),
              "{basket: [{kind: apple, colour: red, weight: 1}, {kind: pear, ripe: true}, "
              "{kind: pear, ripe: false}]}");
    EXPECT_EQ(value["basket"].items()[1]["ripe"].where(), "f.yaml:3:12: basket[1].ripe");
    EXPECT_EQ(resolve(schema, value, ""), value);
    EXPECT_THAT(refusal(schema, "{basket: apple}"),
                HasSubstr("expected a list of fruits, but found 'apple'"));
    EXPECT_THAT(refusal(schema, "{basket: [null]}"), HasSubstr("basket[0]: expected a fruit: its name"));
}

TEST(ResolvePlugin, NamesAnUnknownOne) {
    const Schema schema{plugins("basket", "fruit", ""), plugin("one", "fruit", "").by_default("apple")};
    EXPECT_EQ(refusal(schema, "basket: [aple]"),
              "f.yaml:1:10: basket[0]: unknown fruit 'aple'; did you mean 'apple'? Valid: apple, pear");
    EXPECT_THAT(refusal(schema, "{basket: [], one: {kind: zebra}}"),
                HasSubstr("one.kind: unknown fruit 'zebra'; valid: apple, pear"));
    EXPECT_THAT(refusal(schema, "basket: [{aple: {colour: red}}]"), HasSubstr("unknown fruit 'aple'"));
}

TEST(ResolvePlugin, ExplainsMalformedOnes) {
    const Schema schema{plugins("basket", "fruit", "")};
    EXPECT_THAT(
        refusal(schema, "basket:\n  - pear:\n    ripe: yes\n"),
        HasSubstr(
            "basket[0]: the options of 'pear' must stand below it: write {pear: {option: value}} or {kind: "
            "pear, option: value}"));
    EXPECT_THAT(refusal(schema, "basket: [{pear: 3}]"), HasSubstr("must stand below it"));
    EXPECT_THAT(refusal(schema, "basket: [{ripe: yes}]"),
                AllOf(HasSubstr("expected a fruit: its name, or a map {kind: name, option: value}"),
                      HasSubstr("Valid names: apple, pear")));
    EXPECT_THAT(refusal(schema, "basket: [{}]"), HasSubstr("an empty map"));
    EXPECT_THAT(refusal(schema, "basket: [[apple]]"), HasSubstr("a list of 1 item"));
    EXPECT_THAT(refusal(schema, "basket: [{pear: {kind: apple}}]"), HasSubstr("given twice"));
    EXPECT_THAT(refusal(schema, "basket: [{kind: [apple]}]"), HasSubstr("basket[0].kind: expected a text"));
    EXPECT_THAT(refusal(schema, "basket: [{kind: pear, colour: red}]"),
                HasSubstr("basket[0].colour: unknown key 'colour'; valid keys here: kind, ripe"));
    EXPECT_THAT(refusal(schema, "basket: [pear]"), HasSubstr("basket[0].ripe: the key 'ripe' is missing"));
}

TEST(ResolvePlugin, Alone) {
    const Value value = resolve_plugin("fruit", "kind", Value::of("apple"), "x");
    EXPECT_EQ(to_flow(value), "{kind: apple, colour: red, weight: 1}");
    EXPECT_EQ(value["weight"].path(), "x.weight");
    EXPECT_EQ(message_of<UsageError>([] { resolve_plugin("no_such", "kind", Value::of("a"), "x"); }),
              "x: unknown no_such 'a'; this program has none");
}

TEST(Describe, ReadsLikeASentence) {
    EXPECT_EQ(number("lr", "").above(0).by_default(0.01).describe(), "number > 0, default 0.01");
    EXPECT_EQ(integer("n", "").describe(), "integer, required");
    EXPECT_EQ(integer("n", "").optional().describe(), "integer, optional");
    EXPECT_EQ(boolean("b", "").by_default(false).describe(), "true or false, default false");
    EXPECT_EQ(integer("n", "").by_default(3).describe(), "integer, default 3");
    EXPECT_EQ(choice("c", {"a", "b"}, "").by_default("a").describe(), "one of a, b, default a");
    EXPECT_EQ(numbers("c", "").at_least(0).at_most(1).at_least_items(2).describe(),
              "list of numbers >= 0 and <= 1, at least 2 items, required");
    EXPECT_EQ(text("t", "").by_default("").describe(), "text, default \"\"");
    EXPECT_EQ(plugin("p", "stage", "").by_default("mean").describe(), "stage, default mean");
    EXPECT_EQ(plugins("p", "stage", "").describe(), "list of stages, required");
    EXPECT_EQ(object("o", {}, "").by_default("{}").describe(), "map, default {}");
    EXPECT_EQ(objects("o", {}, "").optional().by_default("[]").describe(),
              "list of maps, default [], or null");
}

TEST(Missing, TheExampleIsValid) {
    const std::vector<Option> all{boolean("o", ""),
                                  integer("o", "").above(2),
                                  integer("o", "").above(0.5).below(2),
                                  number("o", "").above(0).below(0.1),
                                  number("o", "").below(0),
                                  number("o", "").at_most(-3),
                                  text("o", ""),
                                  choice("o", {"x", "y"}, ""),
                                  integers("o", "").at_least(5).at_least_items(3),
                                  numbers("o", ""),
                                  object("o", {integer("a", ""), text("b", "").by_default("z")}, ""),
                                  objects("o", {choice("a", {"q"}, "")}, ""),
                                  plugin("o", "fruit", "", "scheme"),
                                  plugins("o", "fruit", "").at_least_items(1),
                                  plugin("o", "needy", "")};
    for (const auto& option : all) {
        const Schema schema(std::vector<Option>{option});
        const std::string message = refusal(schema, "{}");
        const auto start = message.find("For example `");
        ASSERT_NE(start, std::string::npos);
        const std::string example = message.substr(start + 13, message.size() - start - 14);
        EXPECT_NO_THROW(resolved(schema, example)) << example;
    }
}

}  // namespace
}  // namespace thalweg::core::schema_test
