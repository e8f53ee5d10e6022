#include "thalweg/report/events.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace thalweg::report::events_test {
namespace {

/// Bit by bit, as RFC 3720 defines CRC-32C.
std::uint32_t slow_crc32c(const std::string& data) {
    std::uint32_t crc = ~0U;
    for (const char c : data) {
        crc ^= static_cast<unsigned char>(c);
        for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ ((crc & 1) != 0 ? 0x82F63B78U : 0U);
    }
    return ~crc;
}

TEST(MaskedCrc, AgreesWithTheDefinition) {
    EXPECT_EQ(slow_crc32c("123456789"), 0xE3069283U);  // the check value of the catalogues
    for (const std::string& text : {std::string(), std::string("123456789"), std::string(1000, '\xff')}) {
        const std::uint32_t crc = slow_crc32c(text);
        EXPECT_EQ(masked_crc32c(text), (crc >> 15 | crc << 17) + 0xa282ead8U);
    }
}

TEST(RoundScalars, AreNamedByTheirPlace) {
    const auto line = record::Json::parse(
        R"({"round": 2, "cohort": [1], "train": {"loss": 0.5}, "test": {"loss": 1, "accuracy": 0.75},
            "seconds": {"total": 3}, "sign_consistency": {"client_global": 0.6}, "clients": [{"loss": 1}]})");
    const auto analysis = record::Json::parse(
        R"({"round": 2, "sign_consistency": {"client_global": 0.6, "by_client": {"0": {"fc1.weight": 0.7}}, "by_pair": {"0-1": {"before": 0.5}}},
            "valley": {"lambdas": [0, 1], "asymmetry": null}})");
    using ::testing::Pair;
    EXPECT_THAT(round_scalars(line, analysis),
                ::testing::UnorderedElementsAre(Pair("train/loss", 0.5), Pair("test/loss", 1.0),
                                                Pair("test/accuracy", 0.75), Pair("seconds/total", 3.0),
                                                Pair("sign_consistency/client_global", 0.6)));
}

}  // namespace
}  // namespace thalweg::report::events_test
