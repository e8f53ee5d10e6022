#include "thalweg/live/address.hpp"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <optional>

#include "thalweg/core/error.hpp"

namespace thalweg::live {

namespace {

bool is_ipv4(const std::string& host) {
    in_addr parsed{};
    return ::inet_pton(AF_INET, host.c_str(), &parsed) == 1;
}
bool is_ipv6(const std::string& host) {
    in6_addr parsed{};
    return ::inet_pton(AF_INET6, host.c_str(), &parsed) == 1;
}

std::optional<std::uint16_t> parse_port(const std::string& text) {
    unsigned port = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
    if (text.empty() || error != std::errc{} || end != text.data() + text.size() || port > 65535) return {};
    return static_cast<std::uint16_t>(port);
}

}  // namespace

bool Address::is_loopback() const {
    in6_addr parsed{};
    if (::inet_pton(AF_INET6, host.c_str(), &parsed) == 1) return IN6_IS_ADDR_LOOPBACK(&parsed);
    return is_ipv4(host) && host.starts_with("127.");
}

std::string Address::text() const {
    const std::string shown = host.find(':') == std::string::npos ? host : "[" + host + "]";
    return shown + ":" + std::to_string(port);
}

std::string Address::url() const {
    return "http://" + text() + "/";
}

Address parse_address(const std::string& text) {
    const auto colon = text.rfind(':');
    Address address;
    const auto port = parse_port(colon == std::string::npos ? text : text.substr(colon + 1));
    std::string host = colon == std::string::npos ? "127.0.0.1" : text.substr(0, colon);
    if (host == "localhost") host = "127.0.0.1";
    const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
    if (bracketed) host = host.substr(1, host.size() - 2);
    if (!port || !(bracketed ? is_ipv6(host) : is_ipv4(host))) {
        throw core::UsageError(
            "'" + text +
            "' is no address for the live page; give ADDRESS:PORT with an IP address of "
            "this machine, as 127.0.0.1:8080, [::1]:8080, localhost:8080 or 8080 (port 0: a "
            "free one is chosen)");
    }
    address.host = host;
    address.port = *port;
    return address;
}

void require_token(const std::string& token) {
    if (token.empty()) return;
    const auto allowed = [](unsigned char c) {
        return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '-' ||
               c == '.' || c == '_' || c == '~';
    };
    if (token.size() >= 16 && token.size() <= 256 && std::all_of(token.begin(), token.end(), allowed)) return;
    throw core::UsageError(
        "the live page's token must be 16 to 256 letters, digits and -._~, since it stands in the page's "
        "address; `openssl rand -hex 16` makes one");
}

void require_guarded(const Address& address, const std::string& token) {
    require_token(token);
    if (!token.empty() || address.is_loopback()) return;
    throw core::UsageError(
        "the live page at " + address.text() +
        " could be read and steered by every machine that reaches this one, so it needs a "
        "token: set the environment variable THALWEG_TOKEN (or record.token, or --token of "
        "thalweg serve) to 16 characters or more, or use 127.0.0.1 (over ssh: ssh -L)");
}

std::string token_or_environment(const std::string& given) {
    const char* set = std::getenv("THALWEG_TOKEN");
    return given.empty() && set != nullptr ? std::string(set) : given;
}

}  // namespace thalweg::live
