#include <gtest/gtest.h>

#include "expect_error.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/value.hpp"

namespace thalweg::core::override_test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using thalweg::testing::message_of;

Value config() {
    return parse_yaml(
        "seed: 1\nmodel: {kind: mlp, hidden: [10, 20]}\nserver: {fusion: [mean, {repair: {a: 1}}]}\n",
        "f.yaml");
}

Value overridden(const std::string& assignment) {
    Value root = config();
    apply_override(root, assignment);
    return root;
}

std::string refusal(const std::string& assignment) {
    return message_of<UsageError>([&] { overridden(assignment); });
}

TEST(Override, ReplacesAValue) {
    const Value root = overridden("seed=7");
    EXPECT_EQ(root["seed"].as_int(), 7);
    EXPECT_EQ(root["seed"].where(), "command line: seed");
    EXPECT_EQ(root["model"].where(), "f.yaml:2:1: model");
}

TEST(Override, TakesYaml) {
    EXPECT_EQ(to_flow(overridden("model.hidden=[5, 6]")["model"]["hidden"]), "[5, 6]");
    const Value root = overridden("model={kind: cnn, deep: {x: 1}}");
    EXPECT_EQ(root["model"]["deep"]["x"].where(), "command line: model.deep.x");
    EXPECT_TRUE(overridden("seed=null")["seed"].is_null());
    EXPECT_TRUE(overridden("seed=")["seed"].is_null());
    EXPECT_TRUE(overridden("seed='5'")["seed"].quoted());
    EXPECT_EQ(overridden("name=a=b")["name"].as_text(), "a=b");
}

TEST(Override, MakesMapsOnTheWay) {
    const Value root = overridden("a.b.c=1");
    EXPECT_EQ(root["a"]["b"]["c"].as_int(), 1);
    EXPECT_EQ(root["a"]["b"].where(), "command line: a.b");
    Value empty;
    apply_override(empty, "x.y=2");
    EXPECT_EQ(to_flow(empty), "{x: {y: 2}}");
}

TEST(Override, ReachesListItems) {
    EXPECT_EQ(to_flow(overridden("model.hidden[1]=7")["model"]["hidden"]), "[10, 7]");
    EXPECT_EQ(to_flow(overridden("model.hidden.0=7")["model"]["hidden"]), "[7, 20]");
    EXPECT_EQ(to_flow(overridden("server.fusion[1].repair.a=2")["server"]),
              "{fusion: [mean, {repair: {a: 2}}]}");
    EXPECT_EQ(overridden("server.fusion[1].repair.b=2")["server"]["fusion"].items()[1]["repair"]["b"].where(),
              "command line: server.fusion[1].repair.b");
}

TEST(Override, RefusesWhatCannotBe) {
    EXPECT_EQ(refusal("seed"), "command line: 'seed': expected key.path=value");
    EXPECT_THAT(refusal("=1"), HasSubstr("key is empty"));
    EXPECT_THAT(refusal("a..b=1"), HasSubstr("key is empty"));
    EXPECT_THAT(refusal("seed.x=1"), HasSubstr("'seed' is '1', which has no keys below it"));
    EXPECT_THAT(refusal("model.hidden[2]=1"),
                HasSubstr("'model.hidden' is a list of 2 items, there is no item '2'; "
                          "they are numbered from 0 to 1"));
    EXPECT_THAT(refusal("model.hidden.x=1"), HasSubstr("there is no item 'x'"));
    EXPECT_THAT(refusal("model.hidden[99999999999999999999]=1"), HasSubstr("there is no item"));
    std::string deep = "a";
    for (int i = 0; i < 64; ++i) deep += ".a";
    EXPECT_THAT(refusal(deep + "=1"), HasSubstr("nested deeper"));
    EXPECT_THAT(refusal("model[0]=1"), HasSubstr("'model' is not a list"));
    EXPECT_THAT(refusal("new.list[0]=1"), HasSubstr("'new.list' is not a list"));
    EXPECT_THAT(refusal("[0]=1"), HasSubstr("key is empty"));
    EXPECT_THAT(refusal("model.hidden[-1]=1"), HasSubstr("brackets"));
    EXPECT_THAT(refusal("model.hidden[1=1"), HasSubstr("brackets"));
    EXPECT_THAT(refusal("model.hidden[1]x=1"), HasSubstr("a dot must follow"));
    EXPECT_THAT(refusal("seed=[1"),
                HasSubstr("command line: seed:1:1: a key must be a word, not a list or a map; or is the "
                          "bracket that opens here not closed?"));
    EXPECT_THAT(refusal("seed={a: 1, a: 2}"), HasSubstr("given twice"));
}

TEST(Override, ARefusedOneChangesNothing) {
    Value root = config();
    EXPECT_THROW(apply_override(root, "new.list[3].x=1"), UsageError) << to_flow(root);
    EXPECT_THROW(apply_override(root, "seed.x=1"), UsageError);
    EXPECT_EQ(root, config());
}

TEST(Override, ComplaintsLeadToWhereItStands) {
    const Value written =
        parse_yaml("changes:\n- seed=-1\n- nonsense\n- 'new: [='\n- 'new=[1'", "study.yaml");
    const auto& changes = written["changes"].items();
    Value root = config();
    apply_override(root, changes[0]);
    EXPECT_EQ(root["seed"].where(), "study.yaml:2:3: seed");
    for (std::size_t i = 1; i < changes.size(); ++i) {
        EXPECT_THAT(message_of<UsageError>([&] { apply_override(root, changes[i]); }),
                    HasSubstr("study.yaml:" + std::to_string(i + 2) + ":3"));
    }
}

TEST(Differences, NamesEveryChange) {
    const Value before = parse_yaml("{a: 1, b: {c: [1, 2], d: x}, l: [{k: 1}, {k: 2}], gone: 1}", "f");
    const Value after =
        parse_yaml("{b: {d: x, c: [1, 3]}, a: 1, l: [{k: 1}, {k: 5}, {n: 1}], new: {z: 1}}", "g");
    EXPECT_THAT(differences(before, after),
                ElementsAre("b.c: [1, 2] → [1, 3]", "l[1].k: 2 → 5", "l[2]: (absent) → {n: 1}",
                            "gone: 1 → (absent)", "new: (absent) → {z: 1}"));
    EXPECT_TRUE(differences(before, before).empty());
    EXPECT_THAT(differences(parse_yaml("{a: null}", "f"), parse_yaml("{a: 1}", "f")),
                ElementsAre("a: null → 1"));
}

}  // namespace
}  // namespace thalweg::core::override_test
