#include "thalweg/core/text.hpp"

#include <gtest/gtest.h>

namespace thalweg::core::text_test {
namespace {

TEST(Nearest, FindsTheTypo) {
    EXPECT_EQ(nearest("aplha", {"clients", "alpha", "min_size"}), "alpha");
    EXPECT_EQ(nearest("weigth_matching", {"mean", "weight_matching"}), "weight_matching");
    EXPECT_EQ(nearest("Mean", {"median", "mean"}), "mean");
}

TEST(Nearest, IsSilentWhenNothingIsClose) {
    EXPECT_EQ(nearest("zebra", {"alpha", "clients"}), "");
    EXPECT_EQ(nearest("x", {"lr", "ab"}), "");
    EXPECT_EQ(nearest("alpha", {}), "");
    EXPECT_EQ(nearest("", {"a"}), "");
}

TEST(Nearest, TakesTheFirstOfEquallyCloseAndAThirdOfLongWords) {
    EXPECT_EQ(nearest("cat", {"bat", "hat"}), "bat");
    EXPECT_EQ(nearest("abcdefghixyz", {"abcdefghijkl"}), "abcdefghijkl");  // 3 of 12
    EXPECT_EQ(nearest("abcdefgh9xyz", {"abcdefghijkl0"}), "");             // 5
}

TEST(Join, PutsTheSeparatorBetween) {
    EXPECT_EQ(join({}), "");
    EXPECT_EQ(join({"a"}), "a");
    EXPECT_EQ(join({"a", "b", "c"}), "a, b, c");
    EXPECT_EQ(join({"", "b"}, "+"), "+b");
}

TEST(ShapeText, LooksLikeAList) {
    EXPECT_EQ(shape_text({}), "[]");
    EXPECT_EQ(shape_text({784, 200}), "[784, 200]");
}

TEST(BytesText, PicksTheUnit) {
    EXPECT_EQ(bytes_text(0), "0 B");
    EXPECT_EQ(bytes_text(17), "17 B");
    EXPECT_EQ(bytes_text(999), "999 B");
    EXPECT_EQ(bytes_text(999.6), "1.0 kB");
    EXPECT_EQ(bytes_text(4000), "4.0 kB");
    EXPECT_EQ(bytes_text(999960), "1.0 MB");
    EXPECT_EQ(bytes_text(12.3e6), "12.3 MB");
    EXPECT_EQ(bytes_text(2.5e9), "2.5 GB");
    EXPECT_EQ(bytes_text(1e19), "10000.0 PB");
}

TEST(SecondsText, PicksTheUnit) {
    EXPECT_EQ(seconds_text(0), "0.0 ms");
    EXPECT_EQ(seconds_text(0.0042), "4.2 ms");
    EXPECT_EQ(seconds_text(0.83), "830 ms");
    EXPECT_EQ(seconds_text(0.9996), "1.0 s");
    EXPECT_EQ(seconds_text(12.4), "12.4 s");
    EXPECT_EQ(seconds_text(59.96), "1 min 0 s");
    EXPECT_EQ(seconds_text(200), "3 min 20 s");
    EXPECT_EQ(seconds_text(3599.7), "1 h 0 min");
    EXPECT_EQ(seconds_text(7500), "2 h 5 min");
    EXPECT_EQ(seconds_text(-2), "-2.0 s");
}

}  // namespace
}  // namespace thalweg::core::text_test
