#include "routes.hpp"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <map>

#include "thalweg/embedded/live.hpp"
#include "thalweg/record/json.hpp"

namespace thalweg::live {

namespace {

constexpr std::size_t most_round_bytes = std::size_t{1} << 20;

bool equal_ignoring_case(std::string_view a, std::string_view b) {
    const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c; };
    return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                      [&](char x, char y) { return lower(x) == lower(y); });
}

/// The value of `name` in `a=1&b=2` (separator '&') or `a=1; b=2` (';').
std::string_view field(std::string_view text, std::string_view name, char separator) {
    while (!text.empty()) {
        const auto end = std::min(text.find(separator), text.size());
        std::string_view part = text.substr(0, end);
        while (part.starts_with(' ')) part.remove_prefix(1);
        if (part.starts_with(name) && part.size() > name.size() && part[name.size()] == '=')
            return part.substr(name.size() + 1);
        text.remove_prefix(std::min(end + 1, text.size()));
    }
    return {};
}

struct Page {
    std::string_view type, content;
};

const std::map<std::string_view, Page>& pages() {
    static const std::map<std::string_view, Page> all = {
        {"/", {"text/html; charset=utf-8", embedded::live::index_html}},
        {"/live.css", {"text/css; charset=utf-8", embedded::live::live_css}},
        {"/live.js", {"text/javascript; charset=utf-8", embedded::live::live_js}},
        {"/chart.js", {"text/javascript; charset=utf-8", embedded::live::chart_js}},
    };
    return all;
}

Reply json(unsigned status, std::string text) {
    return {.status = status, .type = "application/json", .body = std::move(text)};
}

}  // namespace

std::string_view reason(unsigned status) {
    switch (status) {
        case 200:
            return "OK";
        case 303:
            return "See Other";
        case 400:
            return "Bad Request";
        case 401:
            return "Unauthorized";
        case 403:
            return "Forbidden";
        case 404:
            return "Not Found";
        case 405:
            return "Method Not Allowed";
        case 409:
            return "Conflict";
        case 413:
            return "Content Too Large";
        case 421:
            return "Misdirected Request";
        case 431:
            return "Request Header Fields Too Large";
        case 503:
            return "Service Unavailable";
        default:
            return "Error";
    }
}

Reply problem(unsigned status, const std::string& message) {
    return json(status, record::json_text(Json{{"error", message}}));
}

bool equal_in_constant_time(std::string_view given, std::string_view secret) {
    std::size_t difference = given.size() ^ secret.size();
    for (std::size_t i = 0; i < given.size(); ++i) {
        const char other = secret.empty() ? '\0' : secret[i % secret.size()];
        difference |= static_cast<std::size_t>(static_cast<unsigned char>(given[i] ^ other));
    }
    return difference == 0;
}

bool names_loopback(std::string_view host) {
    if (host.starts_with("[::1]")) return host.size() == 5 || host[5] == ':';
    const std::string_view name = host.substr(0, host.find(':'));
    if (equal_ignoring_case(name, "localhost")) return true;
    if (!name.starts_with("127.")) return false;
    // Not 127.0.0.1.example.org: digits and three dots.
    return std::count(name.begin(), name.end(), '.') == 3 &&
           name.find_first_not_of("0123456789.") == std::string_view::npos;
}

bool same_origin(std::string_view origin, std::string_view host) {
    for (const std::string_view scheme : {"http://", "https://"}) {
        if (origin.starts_with(scheme)) return equal_ignoring_case(origin.substr(scheme.size()), host);
    }
    return false;
}

Routes::Routes(Feed& feed, Control* control, std::string token)
    : feed_(feed), control_(control), token_(std::move(token)) {}

bool Routes::is_known(const Request& request) const {
    constexpr std::string_view bearer = "Bearer ";
    const std::string_view given = request.authorization;
    if (given.size() > bearer.size() && equal_ignoring_case(given.substr(0, bearer.size()), bearer))
        return equal_in_constant_time(given.substr(bearer.size()), token_);
    const auto kept = field(request.cookie, cookie_, ';');
    return !kept.empty() && equal_in_constant_time(kept, token_);
}

std::optional<Reply> Routes::refusal(const Request& request, std::string_view path,
                                     std::string_view query) const {
    if (token_.empty()) {
        if (names_loopback(request.host)) return {};
        return problem(421, "this page answers to localhost and 127.0.0.1 only");
    }
    if (is_known(request)) return {};
    // The page's address may carry the token once; from then on the cookie does, and no history shows it.
    if (path == "/" && equal_in_constant_time(field(query, "token", '&'), token_)) {
        Reply reply{.status = 303};
        // Lax: with Strict the page that follows comes without the cookie when the link stood on another site. What acts
        // is guarded by its own header and origin.
        reply.headers = {{"Location", "/"},
                         {"Set-Cookie", cookie_ + "=" + token_ + "; Path=/; HttpOnly; SameSite=Lax"}};
        return reply;
    }
    Reply reply = problem(401, "this page needs its token: open /?token=…, or send Authorization: Bearer …");
    reply.headers = {{"WWW-Authenticate", "Bearer"}};
    return reply;
}

Reply Routes::answer(const Request& request) const {
    const std::string_view target = request.target;
    const std::string_view path = target.substr(0, target.find('?'));
    const std::string_view query = path.size() < target.size() ? target.substr(path.size() + 1) : "";
    if (request.host.empty()) return problem(400, "the request has no single Host");
    if (path.empty() || path.front() != '/') return problem(400, "the request's target is no path");
    if (auto refused = refusal(request, path, query)) return *refused;
    for (const std::string_view action : {"pause", "resume", "checkpoint", "stop"}) {
        if (path.starts_with("/api/") && path.substr(5) == action) return act(request, action);
    }
    return read(request, path, query);
}

Reply Routes::read(const Request& request, std::string_view path, std::string_view query) const {
    const auto page = pages().find(path);
    const bool is_api = path == "/api/state" || path == "/api/rounds" || path == "/api/events";
    if (page == pages().end() && !is_api) return problem(404, "there is nothing at this address");
    if (request.method != "GET" && request.method != "HEAD") {
        Reply reply = problem(405, "this address is to be read with GET");
        reply.headers = {{"Allow", "GET, HEAD"}};
        return reply;
    }
    if (page != pages().end())
        return {.type = std::string(page->second.type), .embedded = page->second.content};
    if (path == "/api/state") return json(200, feed_.state());
    if (path == "/api/events") {
        return {.type = "text/event-stream",
                .is_stream = request.method == "GET",
                .cursor = Feed::after(request.last_event_id)};
    }
    std::int64_t from = 1;
    if (const auto text = field(query, "from", '&'); !text.empty()) {
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), from);
        if (error != std::errc{} || end != text.data() + text.size())
            return problem(400, "from must be a round's number");
    }
    return json(200, feed_.rounds(from, most_round_bytes));
}

Reply Routes::act(const Request& request, std::string_view action) const {
    if (request.method != "POST") {
        Reply reply = problem(405, "an action is asked for with POST");
        reply.headers = {{"Allow", "POST"}};
        return reply;
    }
    // A page of another site can make a browser send a POST, but neither with our header nor with our Origin.
    const bool elsewhere = !request.origin.empty() && !same_origin(request.origin, request.host);
    const bool other_site = !request.fetch_site.empty() && request.fetch_site != "same-origin";
    if (elsewhere || other_site) return problem(403, "actions are taken from this page only");
    if (!request.asked && request.authorization.empty())
        return problem(403, "an action needs the header X-Thalweg: 1");
    if (control_ == nullptr) {
        return problem(
            409, "this page shows a run's folder; it cannot steer the run (record.serve of the run can)");
    }
    if (control_->has_ended()) return problem(409, "the run has ended");
    if (control_->stop_requested() && action != "stop")
        return problem(409, "the run is stopping: it ends with the round it is in");
    if (action == "pause") control_->pause();
    if (action == "resume") control_->resume();
    if (action == "checkpoint") control_->checkpoint();
    if (action == "stop") control_->stop();
    Json told;
    control_->tell([&](const Json& now) { feed_.control(told = now); });
    return json(200, told.dump());
}

}  // namespace thalweg::live
