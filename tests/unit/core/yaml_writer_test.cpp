#include <gtest/gtest.h>

#include "expect_error.hpp"
#include "thalweg/core/random.hpp"
#include "thalweg/core/value.hpp"

namespace thalweg::core::yaml_writer_test {
namespace {

TEST(ToYaml, IsReadable) {
    const std::string text = R"(name: one-valley
seed: 1
data:
  dataset:
    name: synthetic
    path: null
    inner: {a: 1}
  partition: {scheme: dirichlet, alpha: 0.5, clients: 10}
  holdout: 1000
model:
  kind: mlp
  hidden: [256, 256]
server:
  fusion:
    - {kind: merge_many, sweeps: 3}
    - kind: repair
      deep:
        inner: {a: [1, 2]}
    - mean
  empty: {}
  none: []
)";
    const Value value = parse_yaml(text, "f");
    EXPECT_EQ(to_yaml(value), text);
}

TEST(ToYaml, BreaksLongLines) {
    std::vector<std::int64_t> many(60, 1000);
    const Value value = Value::map({{"a", Value::map({{"b", Value::of(many)}})}, {"c", Value::of(many)}});
    const std::string text = to_yaml(value);
    EXPECT_EQ(parse_yaml(text, "f"), value);
    for (std::size_t at = 0; at < text.size();) {
        const auto end = text.find('\n', at);
        EXPECT_LE(end - at, 100U);
        at = end + 1;
    }
}

TEST(ToFlow, IsOneLine) {
    EXPECT_EQ(to_flow(parse_yaml("kind: mlp\nhidden:\n  - 200\n  - 200\n", "f")),
              "{kind: mlp, hidden: [200, 200]}");
    EXPECT_EQ(to_flow(Value()), "null");
    EXPECT_EQ(to_flow(Value::of("two\nlines")), "\"two\\nlines\"");
    EXPECT_EQ(to_flow(Value::list()), "[]");
    EXPECT_EQ(to_flow(Value::map()), "{}");
}

TEST(ToFlow, QuotesTextsThatWouldBeReadOtherwise) {
    for (const char* text : {"5", "-1.5", "1e3", "true", "No", "off", "null", "~", "", ".inf", "nan", "0x1F",
                             "010", "2024-01-02", "12:30", "1_000"}) {
        EXPECT_EQ(to_flow(Value::scalar(text, true)), std::string("\"") + text + "\"");
    }
    for (const char* text :
         {"relu", "one-valley", "runs/x.pt", "../a", "a b", "v1.2", "c10", "größe", "-x", "a(b)"}) {
        EXPECT_EQ(to_flow(Value::scalar(text, true)), text);
    }
    EXPECT_EQ(to_flow(Value::of(5)), "5");
    EXPECT_EQ(to_flow(Value::of(true)), "true");
    EXPECT_EQ(to_flow(Value::of("null")), "\"null\"");
}

TEST(ToYaml, TextsComeBackUnchanged) {
    const std::vector<std::string> texts{"",
                                         " ",
                                         " a",
                                         "a ",
                                         "- a",
                                         "-",
                                         "--- x",
                                         "...",
                                         "a: b",
                                         "a #b",
                                         "#",
                                         "[x]",
                                         "{x}",
                                         "a,b",
                                         "'",
                                         "\"",
                                         "\\",
                                         "it's",
                                         "tab\t",
                                         "new\nline",
                                         "\r\n",
                                         "\x01\x04",
                                         "\x7f",
                                         "&a",
                                         "*a",
                                         "!a",
                                         "|",
                                         ">",
                                         "%",
                                         "@",
                                         "`",
                                         "?",
                                         "? a",
                                         ":",
                                         "a:",
                                         "<<",
                                         "=",
                                         "null",
                                         "Null",
                                         "~",
                                         "é ü 漢",
                                         "\u2028 x",
                                         "\u0085 x",
                                         "\xef\xbb\xbf"
                                         "bom",
                                         "C:\\x",
                                         "http://a/b?c=d&e",
                                         "1e5",
                                         ".5",
                                         "+3",
                                         "...a",
                                         "a\n\n b",
                                         std::string("nul\0nul", 7)};
    for (const auto& text : texts) {
        for (const bool quoted : {false, true}) {
            const Value inner = Value::scalar(text, quoted);
            const Value value = Value::map({{"a", inner},
                                            {"key " + text, Value::of(1)},
                                            {"l", Value::list({inner, Value::list({inner})})},
                                            {"m", Value::map({{"x", Value::map({{text, inner}})}})}});
            EXPECT_EQ(parse_yaml(to_yaml(value), "f"), value) << to_yaml(value);
            EXPECT_EQ(parse_yaml(to_flow(value), "f"), value) << to_flow(value);
            EXPECT_EQ(parse_yaml(to_yaml(inner), "f"), inner) << to_yaml(inner);
        }
    }
}

Value random_value(Random& random, int depth) {
    const auto pick = random.below(depth > 0 ? 5 : 3);
    if (pick == 0) return Value();
    if (pick == 1) return Value::of(random.normal());
    if (pick == 2) {
        std::string text;
        for (auto i = random.below(12); i > 0; --i) text += static_cast<char>(32 + random.below(95));
        return Value::scalar(text, random.below(2) == 0);
    }
    Value value = pick == 3 ? Value::list() : Value::map();
    for (auto i = random.below(5); i > 0; --i) {
        if (pick == 3) {
            value.items().push_back(random_value(random, depth - 1));
        } else {
            value.set("k" + std::to_string(random.below(100)), random_value(random, depth - 1));
        }
    }
    return value;
}

TEST(ToYaml, AnyStructureComesBackUnchanged) {
    Random random(1, "structures");
    for (int trial = 0; trial < 3000; ++trial) {
        const Value value = random_value(random, 5);
        ASSERT_EQ(parse_yaml(to_yaml(value), "f"), value) << to_yaml(value);
        ASSERT_EQ(parse_yaml(to_flow(value), "f"), value) << to_flow(value);
    }
}

TEST(ToYaml, TheDeepestComesBack) {
    Value deep = Value::of(1);
    for (int i = 0; i < 32; ++i) deep = Value::list({Value::map({{"a", deep}})});
    EXPECT_EQ(parse_yaml(to_yaml(deep), "f"), deep);
}

}  // namespace
}  // namespace thalweg::core::yaml_writer_test
