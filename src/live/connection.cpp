#include "connection.hpp"

#include <boost/asio/write.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/read.hpp>
#include <utility>

namespace thalweg::live {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using boost::system::error_code;

namespace {

constexpr std::size_t piece_bytes = std::size_t{64} << 10;
constexpr std::chrono::milliseconds leaving_time{500};

std::string head_of(const Reply& reply, bool keep) {
    std::string head = "HTTP/1.1 " + std::to_string(reply.status) + " " + std::string(reason(reply.status)) +
                       "\r\nContent-Type: " + reply.type + "\r\n";
    if (!reply.is_stream) head += "Content-Length: " + std::to_string(reply.content().size()) + "\r\n";
    for (const auto& [name, value] : reply.headers) head += name + ": " + value + "\r\n";
    head += keep ? "Connection: keep-alive\r\n" : "Connection: close\r\n";
    // Nothing from elsewhere, nothing inline, in nobody's frame.
    head +=
        "Cache-Control: no-store\r\n"
        "Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' "
        "data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n"
        "Cross-Origin-Opener-Policy: same-origin\r\nCross-Origin-Resource-Policy: same-origin\r\n"
        "Referrer-Policy: no-referrer\r\nX-Content-Type-Options: nosniff\r\nX-Frame-Options: DENY\r\n\r\n";
    return head;
}

/// The header's value when it stands there once, else nothing.
template <class Fields, class Name>
std::string single(const Fields& fields, Name name) {
    if (fields.count(name) != 1) return "";
    const auto value = fields[name];
    return {value.data(), value.size()};
}

Request request_of(const http::request<http::string_body>& message) {
    Request request;
    request.method = std::string(message.method_string().data(), message.method_string().size());
    request.target = std::string(message.target().data(), message.target().size());
    request.host = single(message, http::field::host);
    request.authorization = single(message, http::field::authorization);
    request.cookie = single(message, http::field::cookie);
    request.last_event_id = single(message, "Last-Event-ID");
    request.asked = message.count("X-Thalweg") > 0;
    // A header that stands there twice is nobody's honest origin.
    request.origin = message.count(http::field::origin) > 1 ? "null" : single(message, http::field::origin);
    request.fetch_site = single(message, "Sec-Fetch-Site");
    return request;
}

}  // namespace

Connection::Connection(asio::ip::tcp::socket socket, const Routes& routes, const Feed& feed,
                       const Limits& limits)
    : socket_(std::move(socket)),
      routes_(routes),
      feed_(feed),
      limits_(limits),
      buffer_(limits.header_bytes + limits.body_bytes + 4096) {
    allow(limits_.header_time);
}

void Connection::start() {
    await_request();
}

void Connection::refuse() {
    leaving_ = true;
    respond(problem(503, "too many connections; try again later"), true, false);
}

void Connection::tick() {
    if (!is_open()) return;
    if (Clock::now() > deadline_) return close();
    if (stream_ && !writing_) pump();
}

void Connection::close() {
    error_code ignored;
    socket_.close(ignored);
}

void Connection::await_request() {
    parser_.emplace();
    parser_->header_limit(static_cast<std::uint32_t>(limits_.header_bytes));
    parser_->body_limit(limits_.body_bytes);
    if (served_ == 0 || buffer_.size() > 0) return read_request();
    allow(limits_.idle_time);
    socket_.async_wait(asio::ip::tcp::socket::wait_read,
                       [self = shared_from_this()](const error_code& error) {
                           if (error) return self->close();
                           self->read_request();
                       });
}

void Connection::read_request() {
    allow(limits_.header_time);
    http::async_read(
        socket_, buffer_, *parser_,
        [self = shared_from_this()](const error_code& error, std::size_t) { self->on_request(error); });
}

void Connection::on_request(const error_code& error) {
    if (!is_open()) return;
    const auto refuse_as = [&](unsigned status, const std::string& why) {
        leaving_ = true;
        respond(problem(status, why), true, false);
    };
    if (error == http::error::header_limit || error == http::error::buffer_overflow)
        return refuse_as(431, "the request's header is too long");
    if (error == http::error::body_limit) return refuse_as(413, "the request's body is too long");
    if (error == http::error::end_of_stream || error == http::error::partial_message) return close();
    // What is left of the errors is either the network's, or the parser's: a malformed request.
    if (error && error.category() != make_error_code(http::error::bad_method).category()) return close();
    if (error) return refuse_as(400, "this is no well-formed HTTP request");
    ++served_;
    const auto message = parser_->release();
    if (message.version() != 11 && message.version() != 10)
        return refuse_as(400, "this server speaks HTTP/1.1");
    Reply reply = routes_.answer(request_of(message));
    if (reply.is_stream) return begin_stream(reply);
    const bool keep = message.keep_alive() && served_ < limits_.requests && reply.status != 400;
    respond(std::move(reply), message.method() != http::verb::head, keep);
}

void Connection::respond(Reply reply, bool with_body, bool keep) {
    reply_ = std::move(reply);
    head_ = head_of(reply_, keep);
    const std::string_view content = with_body ? reply_.content() : std::string_view();
    const std::array<asio::const_buffer, 2> parts{asio::buffer(head_),
                                                  asio::buffer(content.data(), content.size())};
    allow(leaving_ ? leaving_time : limits_.stall_time);
    asio::async_write(socket_, parts,
                      [self = shared_from_this(), keep](const error_code& error, std::size_t) {
                          if (error) return self->close();
                          if (!keep) return self->leave();
                          self->await_request();
                      });
}

/// Closing with unread input resets the connection, and the client may never see the answer: what it still sends is read
/// for a moment first.
void Connection::leave() {
    leaving_ = true;
    error_code error;
    socket_.shutdown(asio::ip::tcp::socket::shutdown_send, error);
    if (error) return close();
    allow(leaving_time);
    discard();
}

void Connection::discard() {
    socket_.async_read_some(asio::buffer(scrap_),
                            [self = shared_from_this()](const error_code& error, std::size_t bytes) {
                                self->discarded_ += bytes;
                                if (error || self->discarded_ > piece_bytes) return self->close();
                                self->discard();
                            });
}

void Connection::begin_stream(const Reply& reply) {
    stream_ = true;
    cursor_ = reply.cursor;
    parser_.reset();
    head_ = head_of(reply, false) + "retry: 2000\n\n";
    watch_stream();
    write_piece();
}

/// A client of a stream has nothing more to say: when there is something to be read, it is gone.
void Connection::watch_stream() {
    socket_.async_wait(asio::ip::tcp::socket::wait_read,
                       [self = shared_from_this()](const error_code&) { self->close(); });
}

void Connection::pump() {
    const auto news = feed_.news(cursor_, piece_bytes);
    more_ = news.more;
    head_.clear();
    if (news.reset) head_ += "event: reset\ndata: {}\n\n";
    for (const auto& [sequence, text] : news.rounds) {
        head_ += "id: " + std::to_string(cursor_.epoch) + "-" + std::to_string(sequence) +
                 "\nevent: round\ndata: " + *text + "\n\n";
    }
    if (!news.state.empty()) head_ += "event: state\ndata: " + news.state + "\n\n";
    if (head_.empty()) {
        if (Clock::now() - last_write_ < limits_.heartbeat) return;
        head_ = ":\n\n";
    }
    write_piece();
}

void Connection::write_piece() {
    writing_ = true;
    last_write_ = Clock::now();
    allow(limits_.stall_time);
    asio::async_write(socket_, asio::buffer(head_),
                      [self = shared_from_this()](const error_code& error, std::size_t) {
                          self->writing_ = false;
                          self->deadline_ = Clock::time_point::max();
                          if (error) return self->close();
                          // A long history goes out as fast as it is taken, not a piece a tick.
                          if (self->more_ && self->is_open()) self->pump();
                      });
}

}  // namespace thalweg::live
