#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>
#include <filesystem>

#include "expect_error.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/files.hpp"
#include "thalweg/core/random.hpp"
#include "thalweg/core/value.hpp"

namespace thalweg::core::yaml_test {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;
using thalweg::testing::message_of;

std::string refusal(const std::string& text) {
    return message_of<UsageError>([&] { static_cast<void>(parse_yaml(text, "f.yaml")); });
}

TEST(ParseYaml, ReadsAConfiguration) {
    const Value root = parse_yaml(R"(# a comment
name: one-valley
seed: 1
model: {kind: mlp, hidden: [256, 256], "norm": 'none'}
empty:
server:
  fusion:
    - merge_many
    - mean: {weights: samples}
  text: |
    two
    lines
)",
                                  "f.yaml");
    EXPECT_EQ(root["name"].as_text(), "one-valley");
    EXPECT_EQ(root["model"]["hidden"].as_ints(), (std::vector<std::int64_t>{256, 256}));
    EXPECT_TRUE(root["model"]["norm"].quoted());
    EXPECT_FALSE(root["model"]["kind"].quoted());
    EXPECT_TRUE(root["empty"].is_null());
    EXPECT_EQ(root["server"]["fusion"].items()[1]["mean"]["weights"].as_text(), "samples");
    EXPECT_EQ(root["server"]["fusion"].items()[1]["mean"]["weights"].where(),
              "f.yaml:9:14: server.fusion[1].mean.weights");
    EXPECT_EQ(root["server"]["text"].as_text(), "two\nlines\n");
    EXPECT_EQ(root.file(), "f.yaml");
    EXPECT_EQ(root.path(), "");
}

TEST(ParseYaml, AnEmptyDocumentIsAnEmptyMap) {
    for (const char* text : {"", "\n", "   ", "# nothing, not even null\n", "---\n", "---\n# ~\n",
                             "---\n...\n", "\xEF\xBB\xBF"}) {
        const Value root = parse_yaml(text, "f.yaml");
        EXPECT_TRUE(root.is_map()) << text;
        EXPECT_EQ(root.file(), "f.yaml") << text;
    }
    for (const char* text : {"null", "~", "--- null", "# x\nnull"})
        EXPECT_TRUE(parse_yaml(text, "f").is_null()) << text;
}

TEST(ParseYaml, KnowsNullFromText) {
    const Value root = parse_yaml("{a: null, b: ~, c: 'null', d: \"~\", e: , f: Null, g: nULL}", "f");
    for (const char* key : {"a", "b", "e", "f"}) EXPECT_TRUE(root[key].is_null()) << key;
    for (const char* key : {"c", "d", "g"}) EXPECT_TRUE(root[key].is_scalar()) << key;
}

TEST(ParseYaml, RefusesDuplicateKeys) {
    EXPECT_EQ(refusal("a: 1\nb:\n  c: 1\n  c: 2\n"),
              "f.yaml:4:3: the key 'c' is given twice, first in line 3");
    EXPECT_THAT(refusal("{a: 1, \"a\": 2}"), HasSubstr("f.yaml:1:8: the key 'a' is given twice"));
    EXPECT_NO_THROW(static_cast<void>(parse_yaml("[{a: 1}, {a: 2}]", "f")));
}

TEST(ParseYaml, RefusesAnchorsAliasesAndTags) {
    EXPECT_THAT(refusal("a: &x 1\n"), StartsWith("f.yaml:1:4: anchors"));
    EXPECT_THAT(refusal("a: &x [1]\nb: *x\n"), HasSubstr("anchors"));
    EXPECT_THAT(refusal("a: &x\n"), HasSubstr("anchors"));
    EXPECT_THAT(refusal("a: *x\n"), StartsWith("f.yaml:1:4: "));
    EXPECT_THAT(refusal("a: !!str 1\n"), StartsWith("f.yaml:1:4: tags (tag:yaml.org,2002:str)"));
    EXPECT_THAT(refusal("a: !thing {b: 1}\n"), HasSubstr("tags"));
    EXPECT_THAT(refusal("a: ! [1]\n"), HasSubstr("tags"));
    EXPECT_THAT(refusal("!!map {a: 1}\n"), HasSubstr("tags"));
    EXPECT_THAT(refusal("a: !!null\n"), HasSubstr("tags"));
}

TEST(ParseYaml, RefusesKeysThatAreNotWords) {
    EXPECT_THAT(refusal("[a, b]: 1\n"), StartsWith("f.yaml:1:1: a key must be a word"));
    EXPECT_THAT(refusal("? {a: b}\n: 1\n"), HasSubstr("a key must be a word"));
    EXPECT_THAT(refusal("~: 1\n"), HasSubstr("a key must be a word"));
    EXPECT_THAT(refusal(": 1\n"), StartsWith("f.yaml:"));
}

TEST(ParseYaml, RefusesMoreThanOneDocument) {
    EXPECT_THAT(refusal("a: 1\n---\nb: 2\n"), StartsWith("f.yaml:2:1: the document ends before this"));
    EXPECT_THAT(refusal("a: 1\n---\n"), HasSubstr("only one document"));
    EXPECT_THAT(refusal("[1] ]"), StartsWith("f.yaml:"));
}

TEST(ParseYaml, SaysWhereTheSyntaxIsWrong) {
    EXPECT_THAT(refusal("a: [1, 2\n"), StartsWith("f.yaml:2:1: not valid YAML: "));
    EXPECT_THAT(refusal("a: 1\n b: 2\n"), StartsWith("f.yaml:2:"));
    EXPECT_THAT(refusal("[1, 2\n"), HasSubstr("is the bracket that opens here not closed?"));
    EXPECT_THAT(refusal("a: \"\\q\"\n"), HasSubstr("not valid YAML"));
    EXPECT_THAT(refusal("a:\n\t- b\n"), StartsWith("f.yaml:2:"));
}

TEST(ParseYaml, RefusesAnOpenQuote) {
    const std::string message = "not valid YAML: the quote that opens here is not closed";
    EXPECT_EQ(refusal("x: 1\na: 'open\nb: 2\n"), "f.yaml:2:4: " + message);
    EXPECT_EQ(refusal("é: 'it''s\n"), "f.yaml:1:5: " + message);
    EXPECT_EQ(refusal("\xEF\xBB\xBF"
                      "a: \"x\\\"\n"),
              "f.yaml:1:4: " + message);
    EXPECT_THAT(refusal("'open"), HasSubstr("not valid YAML"));
    EXPECT_THAT(refusal("a: ! x\n"), HasSubstr("tags (!)"));
    const Value root =
        parse_yaml("\xEF\xBB\xBFé: 'it''s'\r\nb: \"\\\"\"\r\n'c': |\n  'x\nd: >\n  \"y\n", "f");
    EXPECT_EQ(to_flow(root), "{é: \"it's\", b: \"\\\"\", c: \"'x\\n\", d: \"\\\"y\\n\"}");
}

TEST(ParseYaml, RefusesWhatIsNoText) {
    EXPECT_THAT(refusal(std::string("a: 1\nb: \x04 2\n")), StartsWith("f.yaml:2:4: a control character"));
    EXPECT_THAT(refusal(std::string("a: 1\0", 5)), HasSubstr("control character"));
    EXPECT_THAT(refusal(std::string("\xff\xfe"
                                    "a\0",
                                    4)),
                HasSubstr("UTF-8"));
    EXPECT_THAT(refusal("\x7f"
                        "ELF"),
                HasSubstr("control character"));
}

std::string nested(int depth, const std::string& open, const std::string& close) {
    std::string text;
    for (int i = 0; i < depth; ++i) text += open;
    for (int i = 0; i < depth; ++i) text += close;
    return text;
}

TEST(ParseYaml, LimitsTheDepth) {
    EXPECT_NO_THROW(static_cast<void>(parse_yaml(nested(64, "[", "]"), "f")));
    EXPECT_EQ(refusal(nested(65, "[", "]")), "f.yaml:1:65: nested deeper than 64 levels");
    for (const int depth : {65, 1000, 200000}) {
        EXPECT_THAT(refusal(nested(depth, "[", "]")), HasSubstr("nested deeper")) << depth;
        EXPECT_THAT(refusal(nested(depth, "{a: ", "}")), HasSubstr("nested deeper")) << depth;
        EXPECT_THAT(refusal(nested(depth, "[", "")), StartsWith("f.yaml:")) << depth;
        EXPECT_THAT(refusal(nested(depth, "- ", "")), StartsWith("f.yaml:")) << depth;
        EXPECT_THAT(refusal(nested(depth, "{", "")), StartsWith("f.yaml:")) << depth;
        EXPECT_THAT(refusal(nested(depth, "? ", "")), StartsWith("f.yaml:")) << depth;
        EXPECT_THAT(refusal(nested(depth, "[a: ", "")), StartsWith("f.yaml:")) << depth;
    }
    std::string block;
    for (std::size_t i = 0; i < 70; ++i) block += std::string(i, ' ') + "a:\n";
    EXPECT_THAT(refusal(block), HasSubstr("nested deeper"));
}

TEST(ParseYaml, LimitsTheSize) {
    const std::string filling(1 << 20, '#');
    EXPECT_NO_THROW(static_cast<void>(parse_yaml(filling, "f")));
    EXPECT_THAT(refusal(filling + "#"), HasSubstr("larger than 1 MiB"));
}

TEST(ParseYaml, ManyKeysAreReadInReasonableTime) {
    std::string text;
    for (int i = 0; text.size() < (1 << 20) - 20; ++i) text += "k" + std::to_string(i) + ":\n";
    const auto start = std::chrono::steady_clock::now();
    EXPECT_GT(parse_yaml(text, "f").fields().size(), 100000U);
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(30));
}

TEST(ParseYaml, NeverCrashesOnGarbage) {
    const std::string seed =
        "name: x\nmodel: {kind: mlp, hidden: [1, 2], s: 'it''s', t: \"a\\n\"}\nlist:\n  - a\n  - b: |\n      "
        "c\n";
    const std::string letters = "{}[]:,-?!&*|>'\"%@`# \n\t~ab01\\<=.\xc3\xa9";
    Random random(1, "garbage");
    int refused = 0;
    for (int trial = 0; trial < 20000; ++trial) {
        std::string text = trial % 2 == 0 ? seed : "";
        const auto edits = 1 + random.below(trial % 2 == 0 ? 4 : 40);
        for (std::int64_t edit = 0; edit < edits; ++edit) {
            const auto at =
                static_cast<std::size_t>(random.below(static_cast<std::int64_t>(text.size()) + 1));
            const char letter =
                letters[static_cast<std::size_t>(random.below(static_cast<std::int64_t>(letters.size())))];
            if (random.below(3) == 0 && at < text.size()) {
                text.erase(at, 1 + static_cast<std::size_t>(random.below(5)));
            } else {
                text.insert(at, 1, letter);
            }
        }
        try {
            const Value value = parse_yaml(text, "f.yaml");
            ASSERT_EQ(parse_yaml(to_yaml(value), "again"), value) << text << "\n----\n" << to_yaml(value);
            ASSERT_EQ(parse_yaml(to_flow(value), "again"), value) << text << "\n----\n" << to_flow(value);
        } catch (const UsageError& error) {
            ASSERT_THAT(error.what(), StartsWith("f.yaml:"));
            ++refused;
        }
    }
    EXPECT_GT(refused, 1000);
    EXPECT_LT(refused, 19900);
}

TEST(ReadYaml, NamesTheFile) {
    const auto path =
        std::filesystem::temp_directory_path() / ("thalweg_yaml_" + std::to_string(::getpid()) + ".yaml");
    write_atomically(path, std::string("a: 1\nb: [\n"));
    EXPECT_THAT(message_of<UsageError>([&] { static_cast<void>(read_yaml(path.string())); }),
                StartsWith(path.string() + ":3:1: not valid YAML"));
    write_atomically(path, std::string(2 << 20, ' '));
    EXPECT_THAT(message_of<UsageError>([&] { static_cast<void>(read_yaml(path.string())); }),
                HasSubstr("1 MiB"));
    std::filesystem::remove(path);
    EXPECT_EQ(message_of<UsageError>([] { static_cast<void>(read_yaml("no/such.yaml")); }),
              "cannot read 'no/such.yaml': No such file or directory");
    EXPECT_THAT(message_of<UsageError>([] { static_cast<void>(read_yaml("/tmp")); }),
                HasSubstr("Is a directory"));
}

}  // namespace
}  // namespace thalweg::core::yaml_test
