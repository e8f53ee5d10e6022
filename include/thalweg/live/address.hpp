#pragma once

#include <cstdint>
#include <string>

namespace thalweg::live {

/// Where the live page listens.
struct Address {
    std::string host = "127.0.0.1";  ///< an IP address, without brackets
    std::uint16_t port = 0;          ///< 0: the system chooses one
    bool is_loopback() const;
    std::string text() const;  ///< 127.0.0.1:8080, [::1]:8080
    std::string url() const;   ///< http://127.0.0.1:8080/
};

/// `127.0.0.1:8080`, `[::1]:8080`, `localhost:8080`, or a port alone, which means 127.0.0.1. UsageError for anything
/// else: names other than localhost are refused, because what they stand for can change.
Address parse_address(const std::string& text);

/// UsageError unless `token` is empty or 16 to 256 letters, digits and -._~ (it stands in an address and a cookie).
void require_token(const std::string& token);

/// UsageError for an address that other machines reach when there is no token.
void require_guarded(const Address& address, const std::string& token);

/// `given`, or the environment variable THALWEG_TOKEN when that is empty.
std::string token_or_environment(const std::string& given);

}  // namespace thalweg::live
