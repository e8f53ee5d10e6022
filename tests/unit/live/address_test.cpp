#include "thalweg/live/address.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>

#include "../../../src/live/routes.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/record/stopwatch.hpp"

namespace thalweg::live::address_test {
namespace {

TEST(Address, IsReadInItsUsualForms) {
    EXPECT_EQ(parse_address("127.0.0.1:8080").text(), "127.0.0.1:8080");
    EXPECT_EQ(parse_address("localhost:1").text(), "127.0.0.1:1");
    EXPECT_EQ(parse_address("8080").text(), "127.0.0.1:8080");
    EXPECT_EQ(parse_address("[::1]:65535").url(), "http://[::1]:65535/");
    EXPECT_EQ(parse_address("0.0.0.0:0").text(), "0.0.0.0:0");
    for (const char* loopback : {"127.0.0.1:1", "127.9.9.9:1", "[::1]:1"})
        EXPECT_TRUE(parse_address(loopback).is_loopback()) << loopback;
    for (const char* other : {"0.0.0.0:1", "[::]:1", "10.0.0.1:1"})
        EXPECT_FALSE(parse_address(other).is_loopback()) << other;
}

TEST(Address, AnythingElseIsRefused) {
    for (const char* text :
         {"", ":", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1: 80",
          "example.org:80", "::1:80", "[127.0.0.1]:80", "127.1:80", "[::1:80", "80x"})
        EXPECT_THROW(parse_address(text), core::UsageError) << text;
}

TEST(Token, IsLongAndFitsIntoAnAddress) {
    require_token("");
    require_token("0123456789abcdef");
    for (const std::string& bad :
         {std::string("short"), std::string(257, 'x'), std::string("0123456789 abcdef"),
          std::string("0123456789abcdef;"), std::string("0123456789abcd\r\n")})
        EXPECT_THROW(require_token(bad), core::UsageError) << bad;
    require_guarded({.host = "127.0.0.1"}, "");
    require_guarded({.host = "0.0.0.0"}, "0123456789abcdef");
    EXPECT_THROW(require_guarded({.host = "0.0.0.0"}, ""), core::UsageError);
    EXPECT_THROW(require_guarded({.host = "::"}, ""), core::UsageError);
    ::setenv("THALWEG_TOKEN", "fedcba9876543210", 1);
    EXPECT_EQ(token_or_environment(""), "fedcba9876543210");
    EXPECT_EQ(token_or_environment("given"), "given");
    ::unsetenv("THALWEG_TOKEN");
    EXPECT_EQ(token_or_environment(""), "");
}

TEST(Token, ComparisonIsRight) {
    EXPECT_TRUE(equal_in_constant_time("secret", "secret"));
    for (const char* other : {"", "secre", "secrets", "Secret", "secreT", "secretsecret"})
        EXPECT_FALSE(equal_in_constant_time(other, "secret")) << other;
    EXPECT_FALSE(equal_in_constant_time("x", ""));
}

TEST(Token, ComparisonTakesAsLongWhereverTheFirstDifferenceIs) {
    const std::string secret(4096, 's');
    std::string early = secret, late = secret;
    early.front() = late.back() = 'x';
    const auto fastest = [&](const std::string& given) {
        double best = 1;
        for (int i = 0; i < 200; ++i) {
            const record::Stopwatch watch;
            bool equal = false;
            for (int j = 0; j < 10; ++j) equal |= equal_in_constant_time(given, secret);
            EXPECT_FALSE(equal);
            best = std::min(best, watch.seconds());
        }
        return best;
    };
    // A comparison that stops at the first difference would be a thousand times faster for the early one.
    EXPECT_GT(fastest(early), 0.5 * fastest(late));
}

TEST(Hosts, OnlyLoopbackNamesAreOurs) {
    for (const char* ours : {"localhost", "LocalHost:80", "127.0.0.1", "127.3.2.1:99", "[::1]", "[::1]:8080"})
        EXPECT_TRUE(names_loopback(ours)) << ours;
    for (const char* other :
         {"", "localhost.", "localhost.evil", "127.0.0.1.nip.io", "127.evil", "[::1]x", "[::1", "10.0.0.1"})
        EXPECT_FALSE(names_loopback(other)) << other;
}

TEST(Origins, AreComparedWithTheHostThatWasAsked) {
    EXPECT_TRUE(same_origin("http://localhost:8080", "localhost:8080"));
    EXPECT_TRUE(same_origin("https://Sim.example", "sim.example"));
    for (const char* other : {"http://localhost:8081", "http://localhost", "null", "", "ftp://localhost:8080",
                              "http://localhost:8080.evil"})
        EXPECT_FALSE(same_origin(other, "localhost:8080")) << other;
}

}  // namespace
}  // namespace thalweg::live::address_test
