#include "thalweg/record/run_folder.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <limits>

#include "thalweg/core/error.hpp"
#include "thalweg/core/files.hpp"

namespace thalweg::record::run_folder_test {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class RunFolderTest : public ::testing::Test {
  protected:
    RunFolderTest() {
        std::string name = (fs::temp_directory_path() / "thalweg-record-XXXXXX").string();
        root_ = ::mkdtemp(name.data());
    }
    ~RunFolderTest() override { fs::remove_all(root_); }

    static void write(const fs::path& path, const std::string& text) {
        std::ofstream(path, std::ios::binary) << text;
    }
    /// The message of the error that `act` throws.
    template <class Error, class Act>
    static std::string message(Act&& act) {
        try {
            act();
        } catch (const Error& error) {
            return error.what();
        }
        ADD_FAILURE() << "nothing was thrown";
        return {};
    }

    fs::path root_;
};

Json round_line(int round) {
    Json line;
    line["round"] = round;
    line["test"]["loss"] = 1.0 / round;
    return line;
}

TEST_F(RunFolderTest, CreatesParentsAndKeepsConfigAndManifest) {
    const auto folder = RunFolder::create(root_ / "a" / "b");
    folder.write_config("name: x\n");
    Json manifest;
    manifest["seed"] = 7;
    manifest["blas"] = "OpenBLAS";
    folder.write_manifest(manifest);
    EXPECT_EQ(folder.read_config(), "name: x\n");
    EXPECT_EQ(core::read_file(folder.path() / "manifest.json"),
              "{\n  \"seed\": 7,\n  \"blas\": \"OpenBLAS\"\n}\n");
    EXPECT_EQ(folder.checkpoint_path(12), root_ / "a" / "b" / "checkpoints" / "round-00012.pt");
}

TEST_F(RunFolderTest, AResumedProcessIsAddedToTheManifest) {
    const auto folder = RunFolder::create(root_);
    folder.write_manifest({{"version", "1"}});
    folder.extend_manifest({{"version", "2"}});
    folder.extend_manifest({{"version", "3"}});
    const auto manifest = Json::parse(core::read_file(root_ / "manifest.json"));
    EXPECT_EQ(manifest, Json::parse(R"({"version": "1", "resumed": [{"version": "2"}, {"version": "3"}]})"));
    core::write_atomically(root_ / "manifest.json", std::string("[]"));
    EXPECT_THROW(folder.extend_manifest({{"version", "4"}}), core::RunError);
}

TEST_F(RunFolderTest, HalfWrittenFilesAreSweptAway) {
    const auto folder = RunFolder::create(root_);
    folder.write_config("name: a\n");
    core::write_atomically(folder.checkpoint_path(1), std::string("model"));
    core::write_atomically(root_ / "checkpoints" / "round-00002.pt.part", std::string("mod"));
    core::write_atomically(root_ / "final.pt.part", std::string("mod"));
    folder.sweep();
    EXPECT_FALSE(std::filesystem::exists(root_ / "checkpoints" / "round-00002.pt.part"));
    EXPECT_FALSE(std::filesystem::exists(root_ / "final.pt.part"));
    EXPECT_EQ(folder.checkpoints(), std::vector<std::int64_t>{1});
    EXPECT_EQ(folder.read_config(), "name: a\n");
}

TEST_F(RunFolderTest, RefusesAFolderThatHoldsARun) {
    { const auto failed_early = RunFolder::create(root_ / "run"); }
    {
        const auto folder = RunFolder::create(root_ / "run");  // nothing was recorded yet
        folder.append_round(round_line(1));
    }
    const auto text = message<core::UsageError>([&] { RunFolder::create(root_ / "run"); });
    EXPECT_THAT(text, HasSubstr((root_ / "run").string() + " already holds a run; --resume goes on with it"));
    fs::remove(root_ / "run" / "rounds.jsonl");
    write(root_ / "run" / "checkpoints" / "round-00001.pt", "x");
    EXPECT_THROW(RunFolder::create(root_ / "run"), core::UsageError);
    // The first round was measured, and the process killed before the round's own line.
    RunFolder::create(root_ / "killed").append_analysis(round_line(1));
    EXPECT_THROW(RunFolder::create(root_ / "killed"), core::UsageError);
}

TEST_F(RunFolderTest, OneProcessAtATimeRecords) {
    {
        const auto folder = RunFolder::create(root_ / "run");
        folder.write_config("name: x\n");
        for (const auto& text : {message<core::UsageError>([&] { RunFolder::create(root_ / "run"); }),
                                 message<core::UsageError>([&] { RunFolder::open(root_ / "run"); })}) {
            EXPECT_THAT(text, HasSubstr("another process is running there"));
        }
        EXPECT_EQ(is_recorded_into(root_ / "run"), true);
    }
    EXPECT_EQ(is_recorded_into(root_ / "run"), false);
    EXPECT_EQ(is_recorded_into(root_ / "none"), false);
    EXPECT_NO_THROW(RunFolder::open(root_ / "run"));
}

TEST_F(RunFolderTest, OpenSaysWhatIsMissing) {
    EXPECT_THAT(message<core::UsageError>([&] { RunFolder::open(root_ / "none"); }),
                HasSubstr("no such folder"));
    EXPECT_THAT(message<core::UsageError>([&] { RunFolder::open(root_); }), HasSubstr("config.yaml"));
}

TEST_F(RunFolderTest, UnwritablePlacesAreNamed) {
    write(root_ / "file", "x");
    EXPECT_THAT(message<core::RunError>([&] { RunFolder::create(root_ / "file" / "run"); }),
                HasSubstr((root_ / "file" / "run").string()));
    const auto folder = RunFolder::create(root_ / "run");
    fs::create_directory(folder.path() / "rounds.jsonl");
    EXPECT_THAT(message<core::RunError>([&] { folder.append_round(round_line(1)); }),
                ::testing::AllOf(HasSubstr("rounds.jsonl"), HasSubstr("directory")));
}

TEST_F(RunFolderTest, CheckpointsAreListedByNumberAndPruned) {
    const auto folder = RunFolder::create(root_);
    for (const int round : {3, 100000, 12, 7}) write(folder.checkpoint_path(round), "x");
    write(folder.checkpoint_path(13).string() + ".part", "half");
    write(root_ / "checkpoints" / "round-x.pt", "other");
    write(root_ / "checkpoints" / "round-.pt", "other");
    EXPECT_THAT(folder.checkpoints(), ElementsAre(3, 7, 12, 100000));
    folder.prune_checkpoints(0);
    EXPECT_EQ(folder.checkpoints().size(), 4u);
    folder.prune_checkpoints(9);
    EXPECT_EQ(folder.checkpoints().size(), 4u);
    folder.prune_checkpoints(2);
    EXPECT_THAT(folder.checkpoints(), ElementsAre(12, 100000));
    EXPECT_TRUE(fs::exists(root_ / "checkpoints" / "round-x.pt"));
}

TEST_F(RunFolderTest, RoundsAreAppendedAndRead) {
    const auto folder = RunFolder::create(root_);
    EXPECT_TRUE(folder.read_rounds().empty());
    Json second = round_line(2);
    second["note"] = "bad \xff byte";
    second["train"]["loss"] = std::numeric_limits<double>::quiet_NaN();
    folder.append_round(round_line(1));
    folder.append_round(second);
    const auto rounds = folder.read_rounds();
    ASSERT_EQ(rounds.size(), 2u);
    EXPECT_EQ(rounds[0], round_line(1));
    EXPECT_TRUE(rounds[1]["train"]["loss"].is_null());
    EXPECT_EQ(rounds[1]["test"]["loss"], 0.5);
    EXPECT_THAT(core::read_file(root_ / "rounds.jsonl"), ::testing::StartsWith("{\"round\":1,\"test\""));
}

TEST_F(RunFolderTest, TruncationDropsLaterRoundsAndKeepsTheOthersToTheByte) {
    const auto folder = RunFolder::create(root_);
    folder.truncate_rounds(3);  // nothing there: nothing to do
    EXPECT_FALSE(fs::exists(root_ / "rounds.jsonl"));
    write(root_ / "rounds.jsonl", "{ \"round\": 1 }\n{\"round\":2}\n{\"round\":3}\n{\"rou");
    EXPECT_EQ(folder.read_rounds().size(), 3u);
    folder.truncate_rounds(2);
    EXPECT_EQ(core::read_file(root_ / "rounds.jsonl"), "{ \"round\": 1 }\n{\"round\":2}\n");
    folder.append_round(round_line(3));
    EXPECT_EQ(folder.read_rounds().size(), 3u);
    folder.truncate_rounds(0);
    EXPECT_EQ(core::read_file(root_ / "rounds.jsonl"), "");
}

TEST_F(RunFolderTest, WhatWasMeasuredIsKeptAndDroppedWithItsRounds) {
    const auto folder = RunFolder::create(root_);
    for (const int round : {1, 2, 4}) folder.append_analysis({{"round", round}, {"barrier", 0.5}});
    folder.append_round(round_line(4));
    EXPECT_EQ(folder.read_analysis().size(), 3u);
    folder.truncate_rounds(2);
    EXPECT_EQ(folder.read_analysis().size(), 2u);
    EXPECT_TRUE(folder.read_rounds().empty());
}

TEST_F(RunFolderTest, ALastLineThatLacksOnlyItsNewlineIsWhole) {
    const auto folder = RunFolder::create(root_);
    write(root_ / "rounds.jsonl", "{\"round\":1}\n{\"round\":2}");
    folder.truncate_rounds(2);
    EXPECT_EQ(core::read_file(root_ / "rounds.jsonl"), "{\"round\":1}\n{\"round\":2}\n");
}

TEST_F(RunFolderTest, ATornNumberIsNotTakenForALine) {
    const auto folder = RunFolder::create(root_);
    write(root_ / "rounds.jsonl", "{\"round\":1}\n12");
    EXPECT_EQ(folder.read_rounds().size(), 1u);
}

TEST_F(RunFolderTest, DamagedLinesAreNamedByFileAndLine) {
    const auto folder = RunFolder::create(root_);
    write(root_ / "rounds.jsonl", "{\"round\":1}\nrubbish\n{\"round\":3}\n");
    const auto place = (root_ / "rounds.jsonl").string() + ":2";
    EXPECT_THAT(message<core::RunError>([&] { folder.read_rounds(); }), HasSubstr(place));
    EXPECT_THAT(message<core::RunError>([&] { folder.truncate_rounds(9); }), HasSubstr(place));
    write(root_ / "rounds.jsonl", "{\"round\":1}\n{\"round\":\"two\"}\n");
    EXPECT_THAT(message<core::RunError>([&] { folder.truncate_rounds(9); }), HasSubstr(place));
}

TEST_F(RunFolderTest, AFullDiskLeavesTheFileAsItWas) {
    const auto folder = RunFolder::create(root_);
    folder.append_round(round_line(1));
    const auto before = core::read_file(root_ / "rounds.jsonl");
    // A limit on the size of files acts like a full disk: the first part of the line is still written.
    rlimit old{};
    ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &old), 0);
    const auto handler = std::signal(SIGXFSZ, SIG_IGN);
    const rlimit low{before.size() + 5, old.rlim_max};
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &low), 0);
    std::string text;
    try {
        folder.append_round(round_line(2));
    } catch (const core::RunError& error) {
        text = error.what();
    }
    ::setrlimit(RLIMIT_FSIZE, &old);
    std::signal(SIGXFSZ, handler);
    EXPECT_THAT(text, ::testing::AllOf(HasSubstr("cannot write"), HasSubstr("rounds.jsonl")));
    EXPECT_EQ(core::read_file(root_ / "rounds.jsonl"), before);
}

}  // namespace
}  // namespace thalweg::record::run_folder_test
