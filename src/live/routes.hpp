#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "thalweg/live/control.hpp"
#include "thalweg/live/feed.hpp"

namespace thalweg::live {

/// What of a request decides the answer. Empty: the header is not there.
struct Request {
    std::string method = "GET";
    std::string target = "/";
    std::string host;
    std::string origin;
    std::string fetch_site;  ///< Sec-Fetch-Site
    std::string authorization;
    std::string cookie;
    std::string last_event_id;
    bool asked = false;  ///< has X-Thalweg, which no other site's page can send
};

struct Reply {
    unsigned status = 200;
    std::string type = "text/plain; charset=utf-8";
    std::string body{};
    std::string_view embedded{};  ///< instead of `body`: lives as long as the program
    std::vector<std::pair<std::string, std::string>> headers{};
    bool is_stream = false;  ///< server-sent events from `cursor` on
    Feed::Cursor cursor{};
    std::string_view content() const { return embedded.empty() ? std::string_view(body) : embedded; }
};

/// Equal, in a time that depends on the length of `given` alone.
bool equal_in_constant_time(std::string_view given, std::string_view secret);
/// localhost, 127.x.y.z or [::1], with or without a port: what a browser calls a page of this machine. Any other name may
/// have been pointed here by somebody else's name server.
bool names_loopback(std::string_view host);
/// The Origin of a page that was loaded from `host`.
bool same_origin(std::string_view origin, std::string_view host);

/// Who may do what, and what is where. Used by the server's thread alone.
class Routes {
  public:
    Routes(Feed& feed, Control* control, std::string token);
    /// The cookie's name has the port in it, since browsers send cookies to all ports of a host.
    void set_port(unsigned port) { cookie_ = "thalweg_" + std::to_string(port); }
    Reply answer(const Request& request) const;

  private:
    bool is_known(const Request& request) const;
    std::optional<Reply> refusal(const Request& request, std::string_view path, std::string_view query) const;
    Reply read(const Request& request, std::string_view path, std::string_view query) const;
    Reply act(const Request& request, std::string_view action) const;

    Feed& feed_;
    Control* control_;
    std::string token_, cookie_;
};

Reply problem(unsigned status, const std::string& message);
std::string_view reason(unsigned status);

}  // namespace thalweg::live
