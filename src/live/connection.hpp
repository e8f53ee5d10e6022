#pragma once

#include <array>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "routes.hpp"
#include "thalweg/live/server.hpp"

namespace thalweg::live {

/// One client. Everything happens on the server's thread; `tick` is called some ten times a second. It holds one request
/// and what is being written, nothing else: an event stream takes its next piece from the feed when the last one is out.
class Connection : public std::enable_shared_from_this<Connection> {
  public:
    using Clock = std::chrono::steady_clock;

    Connection(boost::asio::ip::tcp::socket socket, const Routes& routes, const Feed& feed,
               const Limits& limits);
    void start();
    /// Says 503 and closes.
    void refuse();
    /// Ends what is overdue and feeds an event stream.
    void tick();
    bool is_open() const { return socket_.is_open(); }
    bool is_stream() const { return stream_; }
    bool is_writing_events() const { return stream_ && writing_ && is_open(); }
    /// Answered with an error and about to be closed: no longer counted among the connections.
    bool is_leaving() const { return leaving_; }

  private:
    using Parser = boost::beast::http::request_parser<boost::beast::http::string_body>;
    void await_request();
    void read_request();
    void on_request(const boost::system::error_code& error);
    void respond(Reply reply, bool with_body, bool keep);
    void begin_stream(const Reply& reply);
    void watch_stream();
    void pump();
    void write_piece();
    void leave();
    void discard();
    void close();
    void allow(std::chrono::milliseconds time) { deadline_ = Clock::now() + time; }

    boost::asio::ip::tcp::socket socket_;
    const Routes& routes_;
    const Feed& feed_;
    const Limits& limits_;
    boost::beast::flat_buffer buffer_;
    std::optional<Parser> parser_;
    std::string head_;
    Reply reply_;
    std::size_t served_ = 0;
    Clock::time_point deadline_;
    bool leaving_ = false;
    bool stream_ = false;
    bool writing_ = false;
    bool more_ = false;  ///< rounds are left that the last piece had no room for
    Feed::Cursor cursor_;
    Clock::time_point last_write_;
    std::size_t discarded_ = 0;
    std::array<char, 1024> scrap_;
};

}  // namespace thalweg::live
