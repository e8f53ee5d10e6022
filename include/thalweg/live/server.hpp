#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "thalweg/live/address.hpp"
#include "thalweg/live/control.hpp"
#include "thalweg/live/feed.hpp"

namespace thalweg::live {

/// What a connection may take.
struct Limits {
    std::size_t connections = 64;  ///< further ones are answered 503 and closed
    std::size_t requests = 100;    ///< on one connection
    std::size_t header_bytes = 8192;
    std::size_t body_bytes = 4096;
    std::chrono::milliseconds header_time{
        5000};  ///< from a request's first byte (or the connection) to its last
    std::chrono::milliseconds idle_time{15000};  ///< between requests
    /// For one write, an answer or a piece of at most some 64 KiB of events: a reader that has not taken it by then is
    /// dropped.
    std::chrono::milliseconds stall_time{30000};
    std::chrono::milliseconds heartbeat{15000};  ///< between signs of life in an event stream
    std::chrono::milliseconds tick{100};         ///< how often event streams look for news
};

/// The live page: HTTP/1.1 with a JSON API and server-sent events, on a background thread of low priority. It reads the
/// feed and sets the control; nobody who computes ever waits for it. Without a token it answers requests only that name
/// a loopback address as their host; with one, requests only that bring it. docs/user-guide.md describes paths and limits.
class Server {
  public:
    /// Listens when it returns. `control`: nullptr where there is nothing to steer (actions answer 409). UsageError for an
    /// address that is not guarded, RunError when it cannot be listened on (taken, not this machine's).
    Server(Feed& feed, Control* control, const Address& address, const std::string& token,
           Limits limits = {});
    /// Ends all connections, after at most 50 ms in which the last events go out.
    ~Server();
    Server(const Server&) = delete;
    Server& operator=(const Server&) = delete;
    const Address& address() const;  ///< with the port that was chosen

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace thalweg::live
