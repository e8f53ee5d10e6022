#include "thalweg/live/follow.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "thalweg/core/error.hpp"
#include "thalweg/core/files.hpp"
#include "thalweg/core/interrupt.hpp"
#include "thalweg/record/run_folder.hpp"

namespace thalweg::live::follow_test {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class Following : public ::testing::Test {
  protected:
    fs::path folder_ = fs::temp_directory_path() / ("thalweg-follow-" + std::to_string(::getpid()));
    Feed feed_;
    Feed::Cursor cursor_;

    void SetUp() override {
        fs::remove_all(folder_);
        fs::create_directories(folder_);
    }
    void TearDown() override { fs::remove_all(folder_); }
    void add(const std::string& text) {
        std::ofstream(folder_ / "rounds.jsonl", std::ios::app | std::ios::binary) << text;
    }
    void configure() {
        core::write_atomically(folder_ / "config.yaml", std::string("name: river\nserver: {rounds: 3}\n"));
    }
    std::size_t news() { return feed_.news(cursor_, 1 << 20).rounds.size(); }
};

TEST_F(Following, AMissingFolderIsAnErrorAndAnEmptyOneIsWaitedFor) {
    EXPECT_THROW(Follower(folder_ / "none", feed_), core::UsageError);
    Follower follower(folder_, feed_);
    follower.look();
    EXPECT_THAT(feed_.state(), HasSubstr("waiting for the first round"));
    const auto writer = record::RunFolder::create(folder_);
    configure();
    follower.look();
    EXPECT_THAT(feed_.state(), HasSubstr("waiting for the first round"));
    EXPECT_THAT(feed_.state(), HasSubstr("\"name\":\"river\""));
    EXPECT_THAT(feed_.state(), HasSubstr("\"rounds\":3"));
}

TEST_F(Following, TheRecordIsReadAsItGrowsAndATornLineIsLeftForLater) {
    configure();
    const auto writer = record::RunFolder::open(folder_);
    add("{\"round\":1,\"seconds\":{\"total\":2.0}}\n{\"rou");
    Follower follower(folder_, feed_);
    follower.look();
    EXPECT_EQ(news(), 1U);
    EXPECT_THAT(feed_.state(), HasSubstr("\"seconds_left\":4.0"));
    add("nd\":2}\n");
    follower.look();
    EXPECT_EQ(news(), 1U);
    add("{\"round\":3}\n");
    follower.look();
    EXPECT_EQ(news(), 1U);
    EXPECT_THAT(feed_.state(), HasSubstr("following"));  // its final model is not there yet
    core::write_atomically(folder_ / "final.pt", std::string("x"));
    follower.look();
    EXPECT_THAT(feed_.state(), HasSubstr("finished"));
}

TEST_F(Following, ARunThatNobodyWritesHasStoppedUntilItGoesOn) {
    configure();
    add("{\"round\":1,\"seconds\":{\"total\":2.0}}\n{\"round\":2}\n");
    Follower follower(folder_, feed_);
    const auto stopped = [&] {
        follower.look();
        return testing::Value(feed_.state(), AllOf(HasSubstr("\"stopped\""), HasSubstr("after round 2"),
                                                   HasSubstr("\"seconds_left\":null")));
    };
    EXPECT_TRUE(stopped());  // there never was a lock
    {
        const auto writer = record::RunFolder::open(folder_);
        EXPECT_FALSE(stopped());
        EXPECT_THAT(feed_.state(), HasSubstr("following"));
        EXPECT_THAT(feed_.state(), HasSubstr("\"seconds_left\":2.0"));
    }
    EXPECT_TRUE(stopped());
    EXPECT_TRUE(stopped());  // and the reader keeps nobody out
    const auto next = record::RunFolder::open(folder_);
    EXPECT_FALSE(stopped());
}

TEST_F(Following, ARecordThatGrowsWithoutALockIsWrittenElsewhere) {
    configure();
    add("{\"round\":1,\"seconds\":{\"total\":2.0}}\n");
    Follower follower(folder_, feed_);
    follower.look();
    EXPECT_THAT(feed_.state(), HasSubstr("\"stopped\""));
    add("{\"round\":2,\"seconds\":{\"total\":2.0}}\n");
    for (int look = 0; look < 3; ++look) follower.look();
    EXPECT_THAT(feed_.state(), HasSubstr("following"));
}

TEST_F(Following, AnInterruptEndsTheReading) {
    configure();
    add("{\"round\":1}\n");
    Follower follower(folder_, feed_);
    core::request_interrupt();
    follower.look();
    core::clear_interrupt();
    EXPECT_EQ(news(), 0U);
    follower.look();
    EXPECT_EQ(news(), 1U);
}

TEST_F(Following, AResumedRunIsReadAnew) {
    configure();
    add("{\"round\":1}\n{\"round\":2}\n");
    Follower follower(folder_, feed_);
    follower.look();
    EXPECT_EQ(news(), 2U);
    core::write_atomically(folder_ / "rounds.jsonl", std::string("{\"round\":1}\n"));
    follower.look();
    const auto again = feed_.news(cursor_, 1 << 20);
    EXPECT_TRUE(again.reset);
    EXPECT_EQ(again.rounds.size(), 1U);
    fs::remove(folder_ / "rounds.jsonl");
    follower.look();
    EXPECT_TRUE(feed_.news(cursor_, 1 << 20).reset);
}

TEST_F(Following, ADamagedLineIsSkippedWithAWarning) {
    configure();
    add("{\"round\":1}\nnonsense\n[1]\n{\"round\":\"x\"}\n{\"round\":2,\"seconds\":3}\n");
    ::testing::internal::CaptureStderr();
    Follower follower(folder_, feed_);
    follower.look();
    EXPECT_THAT(::testing::internal::GetCapturedStderr(), HasSubstr("rounds.jsonl:2"));
    EXPECT_EQ(news(), 2U);
}

TEST_F(Following, ALineThatIsTooLongIsSkippedWithAWarning) {
    configure();
    const std::string text(300, 'x');
    add("{\"round\":1}\n{\"round\":2,\"text\":\"" + text + text + text);
    ::testing::internal::CaptureStderr();
    Follower follower(folder_, feed_, 100);
    follower.look();
    EXPECT_EQ(news(), 1U);
    add(text + "\"}\n{\"round\":3}\n");
    follower.look();
    follower.look();
    EXPECT_EQ(news(), 1U);
    const auto said = ::testing::internal::GetCapturedStderr();
    EXPECT_THAT(said, HasSubstr("rounds.jsonl:2: this line is too long"));
    EXPECT_EQ(said.find("left out"), said.rfind("left out"));
}

TEST_F(Following, ALineThatIsLongerThanAPieceIsRead) {
    configure();
    add("{\"round\":1,\"text\":\"" + std::string(std::size_t{9} << 20, 'x') + "\"}\n{\"round\":2}\n");
    Follower follower(folder_, feed_);
    follower.look();
    EXPECT_EQ(news(), 2U);
}

TEST_F(Following, AConfigurationThatCannotBeReadIsNoReasonToEnd) {
    core::write_atomically(folder_ / "config.yaml", std::string("name: [\n"));
    add("{\"round\":1}\n");
    ::testing::internal::CaptureStderr();
    Follower follower(folder_, feed_);
    follower.look();
    EXPECT_THAT(::testing::internal::GetCapturedStderr(), HasSubstr("config.yaml"));
    EXPECT_EQ(news(), 1U);
}

}  // namespace
}  // namespace thalweg::live::follow_test
