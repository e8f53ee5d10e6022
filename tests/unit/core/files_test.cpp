#include "thalweg/core/files.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>
#include <zlib.h>

#include <csignal>
#include <cstdio>
#include <fstream>

#include "expect_error.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/core/random.hpp"

namespace thalweg::core::files_test {
namespace {

using ::testing::HasSubstr;
using thalweg::testing::message_of;
namespace fs = std::filesystem;

class Files : public ::testing::Test {
  protected:
    void SetUp() override {
        folder_ = fs::temp_directory_path() / ("thalweg_files_" + std::to_string(::getpid()));
        fs::remove_all(folder_);
        fs::create_directories(folder_);
    }
    void TearDown() override { fs::remove_all(folder_); }

    /// What `work` makes of a file with this content.
    fs::path with(const std::string& content) const {
        const auto path = folder_ / "given";
        std::ofstream(path, std::ios::binary) << content;
        return path;
    }

    fs::path folder_;
};

std::string gzip(const std::string& content) {
    z_stream stream = {};
    deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
    std::string zipped(deflateBound(&stream, content.size()), '\0');
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(content.data()));
    stream.avail_in = static_cast<uInt>(content.size());
    stream.next_out = reinterpret_cast<Bytef*>(zipped.data());
    stream.avail_out = static_cast<uInt>(zipped.size());
    EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
    zipped.resize(stream.total_out);
    deflateEnd(&stream);
    return zipped;
}

std::string unzipped(const fs::path& path, std::size_t limit = 1 << 24) {
    const auto bytes = read_maybe_gzip(path, limit);
    return {bytes.begin(), bytes.end()};
}

std::string noise(std::size_t size) {
    Random random(1, "noise");
    std::string text(size, '\0');
    for (auto& c : text) c = static_cast<char>(random.below(256));
    return text;
}

TEST_F(Files, WritesAndReadsBack) {
    const auto path = folder_ / "a.bin";
    for (const std::string& content : {std::string("hello"), std::string(), noise(300000)}) {
        write_atomically(path, content);
        const auto read = read_file(path);
        EXPECT_EQ(read, content);
        EXPECT_LE(read.capacity(), std::max<std::size_t>(content.size() + 1, 1 << 17))
            << "memory for nothing";
        EXPECT_FALSE(fs::exists(folder_ / "a.bin.part"));
    }
    const std::vector<std::byte> bytes(5, std::byte{7});
    write_atomically(path, bytes);
    EXPECT_EQ(read_file(path), std::string(5, '\7'));
}

TEST_F(Files, AWriteThatFailsNamesPathAndReason) {
    EXPECT_EQ(message_of<RunError>([&] { write_atomically(folder_ / "no" / "a", std::string("x")); }),
              "cannot write '" + (folder_ / "no" / "a").string() + "': No such file or directory");
    EXPECT_FALSE(fs::exists(folder_ / "no"));
    fs::create_directories(folder_ / "full" / "below");
    EXPECT_THAT(message_of<RunError>([&] { write_atomically(folder_ / "full", std::string("x")); }),
                HasSubstr("Is a directory"));
    EXPECT_FALSE(fs::exists(folder_ / "full.part"));
}

TEST_F(Files, ALinkIsFollowedAndADeviceLeftAlone) {
    fs::create_directories(folder_);
    write_atomically(folder_ / "file", std::string("old"));
    fs::create_symlink(folder_ / "file", folder_ / "link");
    write_atomically(folder_ / "link", std::string("new"));
    EXPECT_TRUE(fs::is_symlink(folder_ / "link"));
    EXPECT_EQ(read_file(folder_ / "file"), "new");
    EXPECT_THAT(message_of<RunError>([&] { write_atomically("/dev/null", std::string("x")); }),
                HasSubstr("not an ordinary file"));
    EXPECT_TRUE(fs::is_character_file("/dev/null"));
}

TEST_F(Files, AFullDiskLeavesTheOldFile) {
    const auto path = folder_ / "a";
    write_atomically(path, std::string("old"));
    rlimit before = {};
    getrlimit(RLIMIT_FSIZE, &before);
    rlimit small = before;
    small.rlim_cur = 1000;
    const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    const std::string message = message_of<RunError>([&] { write_atomically(path, std::string(5000, 'x')); });
    setrlimit(RLIMIT_FSIZE, &before);
    std::signal(SIGXFSZ, old_handler);
    EXPECT_EQ(message, "cannot write '" + path.string() + "': File too large");
    EXPECT_EQ(read_file(path), "old");
    EXPECT_FALSE(fs::exists(folder_ / "a.part"));
}

TEST_F(Files, AReadThatFailsNamesPathAndReason) {
    EXPECT_EQ(message_of<RunError>([&] { read_file(folder_ / "no"); }),
              "cannot read '" + (folder_ / "no").string() + "': No such file or directory");
    EXPECT_THAT(message_of<RunError>([&] { read_file(folder_); }), HasSubstr("Is a directory"));
}

TEST_F(Files, ReadsWhatHasNoSize) {
    EXPECT_THAT(read_file("/proc/self/status"), HasSubstr("Pid:"));
}

TEST_F(Files, ReadsPlainAndZipped) {
    const std::string text = "some text, " + std::string(200000, 'x') + noise(100000);
    EXPECT_EQ(unzipped(with(text)), text);
    EXPECT_EQ(unzipped(with(gzip(text))), text);
    EXPECT_EQ(unzipped(with("")), "");
    EXPECT_EQ(unzipped(with("\x1f")), "\x1f");
    EXPECT_EQ(unzipped(with(gzip(""))), "");
}

TEST_F(Files, ReadsConcatenatedMembersAndPadding) {
    EXPECT_EQ(unzipped(with(gzip("one ") + gzip("") + gzip("two"))), "one two");
    EXPECT_EQ(unzipped(with(gzip("one") + std::string(512, '\0'))), "one");
    EXPECT_THAT(message_of<RunError>([&] { unzipped(with(gzip("one") + "rest")); }),
                HasSubstr("something else follows"));
}

TEST_F(Files, EveryTruncationIsNoticed) {
    const std::string zipped = gzip("some text that is long enough, " + noise(50));
    for (std::size_t length = 2; length < zipped.size(); ++length) {
        EXPECT_THAT(message_of<RunError>([&] { unzipped(with(zipped.substr(0, length))); }),
                    HasSubstr("truncated"))
            << length;
    }
}

TEST_F(Files, DamageIsNoticed) {
    const std::string zipped = gzip(noise(2000));
    int noticed = 0;
    // From the first byte that counts: the header holds a date, byte 10 unused bits.
    for (std::size_t at = 11; at < zipped.size(); at += 7) {
        std::string damaged = zipped;
        damaged[at] = static_cast<char>(damaged[at] ^ 0x10);
        try {
            unzipped(with(damaged));
        } catch (const RunError&) {
            ++noticed;
        }
    }
    EXPECT_EQ(noticed, static_cast<int>((zipped.size() - 11 + 6) / 7));
}

TEST_F(Files, TheLimitHolds) {
    const std::string text(100000, 'x');
    for (const auto& content :
         {text, gzip(text), noise(100000), gzip(noise(100000)), gzip(text.substr(1)) + gzip("x")}) {
        const auto path = with(content);
        EXPECT_EQ(unzipped(path, 100000).size(), 100000U);
        EXPECT_THAT(message_of<RunError>([&] { unzipped(path, 99999); }), HasSubstr("99999 bytes"));
        EXPECT_THROW(unzipped(path, 0), RunError);
    }
    EXPECT_EQ(unzipped(with(gzip("")), 0), "");
    const auto bomb = with(gzip(std::string(std::size_t{1} << 26, '\0')));
    EXPECT_THROW(unzipped(bomb, 1000), RunError);
}

TEST_F(Files, Crc32IsTheUsualOne) {
    const std::string text = "123456789";
    EXPECT_EQ(crc32(std::as_bytes(std::span(text))), 0xCBF43926U);
    EXPECT_EQ(crc32({}), 0U);
}

}  // namespace
}  // namespace thalweg::core::files_test
