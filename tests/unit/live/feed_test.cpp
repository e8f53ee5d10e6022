#include "thalweg/live/feed.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "thalweg/live/control.hpp"

namespace thalweg::live::feed_test {
namespace {

using ::testing::HasSubstr;

std::vector<std::string> texts(const Feed::News& news) {
    std::vector<std::string> all;
    for (const auto& [sequence, text] : news.rounds) all.push_back(*text);
    return all;
}

TEST(Feed, AReaderGetsEachRoundOnceAndTheNewestState) {
    Feed feed;
    Feed::Cursor cursor;
    feed.add_round({{"round", 1}});
    feed.add_round({{"round", 2}});
    feed.progress({{"done", 1}});
    feed.progress({{"done", 2}});
    auto news = feed.news(cursor, 1000);
    EXPECT_TRUE(news.reset);
    EXPECT_THAT(texts(news), ::testing::ElementsAre(R"({"round":1})", R"({"round":2})"));
    EXPECT_THAT(news.state, HasSubstr(R"("progress":{"done":2})"));
    news = feed.news(cursor, 1000);
    EXPECT_FALSE(news.reset);
    EXPECT_TRUE(news.rounds.empty());
    EXPECT_EQ(news.state, "");
}

TEST(Feed, AReaderLearnsThatTheRunWasDescribed) {
    Feed feed;
    Feed::Cursor cursor;
    EXPECT_EQ(Json::parse(feed.news(cursor, 1000).state)["described"], 0);
    feed.describe({{"name", "river"}});
    EXPECT_EQ(Json::parse(feed.news(cursor, 1000).state)["described"], 1);
}

TEST(Feed, PiecesAreLimitedButNeverEmpty) {
    Feed feed;
    for (int i = 1; i <= 3; ++i) feed.add_round({{"round", i}, {"text", std::string(100, 'x')}});
    Feed::Cursor cursor;
    for (int i = 1; i <= 3; ++i) {
        const auto news = feed.news(cursor, 1);
        ASSERT_EQ(news.rounds.size(), 1U);
        EXPECT_EQ(news.more, i < 3);
    }
}

TEST(Feed, HistoryIsBoundedAndTheOldestGo) {
    Feed feed(1000);
    for (int i = 1; i <= 100; ++i) feed.add_round({{"round", i}, {"text", std::string(80, 'x')}});
    EXPECT_LE(feed.history_bytes(), 1000U);
    Feed::Cursor cursor;
    const auto news = feed.news(cursor, 10000);
    EXPECT_THAT(*news.rounds.back().second, HasSubstr("\"round\":100"));
    EXPECT_EQ(news.rounds.back().first, 99U);
    EXPECT_THAT(feed.state(), HasSubstr("\"recorded\":100"));
    EXPECT_EQ(feed.rounds(100, 10000).find("\"round\":99"), std::string::npos);
    // One round that is larger than all is kept: it is the newest.
    feed.add_round({{"round", 101}, {"text", std::string(2000, 'x')}});
    EXPECT_THAT(feed.state(), HasSubstr("\"round\":101"));
}

TEST(Feed, ACursorBeyondTheEndStartsOver) {
    Feed feed;
    feed.add_round({{"round", 1}});
    Feed::Cursor cursor;
    feed.news(cursor, 1000);
    cursor.next = 7;
    EXPECT_TRUE(feed.news(cursor, 1000).reset);
}

TEST(Feed, NoTextBreaksItsFrame) {
    Feed feed;
    feed.add_round(
        {{"round", 1}, {"text", "a\n\ndata: b\xff"}, {"x", std::numeric_limits<double>::quiet_NaN()}});
    Feed::Cursor cursor;
    const auto text = texts(feed.news(cursor, 1000)).front();
    EXPECT_EQ(text.find('\n'), std::string::npos);
    EXPECT_EQ(Json::parse(text)["x"], nullptr);
}

TEST(RoundSummary, LeavesOutWhatThePageDoesNotShow) {
    Json line = {{"round", 3},
                 {"train", {{"loss", 0.5}}},
                 {"test", {{"loss", 0.6}, {"accuracy", 0.9}}},
                 {"clients", Json::array({{{"client", 1}}})},
                 {"fusion", {{"stages", Json::array({{{"name", "mean"}, {"seconds", 0.1}, {"bytes", 7}}})}}},
                 {"seconds", {{"total", 1.0}, {"ranks", {0.5, 0.6}}}}};
    for (int i = 0; i < 1000; ++i) line["cohort"].push_back(i);
    const Json summary = round_summary(line);
    EXPECT_EQ(summary["cohort"].size(), 200U);
    EXPECT_EQ(summary["cohort_size"], 1000);
    EXPECT_EQ(summary["stages"][0], (Json{{"name", "mean"}, {"seconds", 0.1}}));
    EXPECT_EQ(summary["seconds"]["ranks"][1], 0.6);
    EXPECT_FALSE(summary.contains("clients"));
    // A line of another program's making is no reason to fail.
    EXPECT_EQ(round_summary({{"round", 1}, {"fusion", 3}, {"cohort", "x"}})["round"], 1);
    EXPECT_EQ(round_summary({{"round", 1}, {"fusion", {{"stages", 3}}}})["stages"].size(), 0U);
}

TEST(Control, AStoppedRunIsNotPaused) {
    Control control;
    control.pause();
    control.stop();
    EXPECT_FALSE(control.pause_requested());
    EXPECT_TRUE(control.json()["stop"].get<bool>());
    control.checkpoint();
    control.checkpoint_done();
    EXPECT_FALSE(control.checkpoint_requested());
}

TEST(Control, AnEndedRunHasNothingLeftToDo) {
    Control control;
    control.pause();
    control.checkpoint();
    control.end();
    EXPECT_TRUE(control.has_ended());
    Json told;
    control.tell([&](const Json& now) { told = now; });
    EXPECT_EQ(told, (Json{{"live", true}, {"pause", false}, {"checkpoint", false}, {"stop", false}}));
}

}  // namespace
}  // namespace thalweg::live::feed_test
