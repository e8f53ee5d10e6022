#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace thalweg::live {

/// A client that sends what it is told and nothing else: no library makes its requests well-formed.
class Client {
  public:
    explicit Client(std::uint16_t port, int receive_buffer = 0) : socket_(::socket(AF_INET, SOCK_STREAM, 0)) {
        if (receive_buffer > 0)
            ::setsockopt(socket_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_port = htons(port);
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        if (::connect(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
            throw std::runtime_error("cannot connect");
    }
    Client(const Client&) = delete;
    Client& operator=(const Client&) = delete;
    ~Client() { ::close(socket_); }

    void send(const std::string& text) {
        for (std::size_t sent = 0; sent < text.size();) {
            const auto count = ::send(socket_, text.data() + sent, text.size() - sent, MSG_NOSIGNAL);
            if (count <= 0) return;  // it has been closed: what was answered is still to be read
            sent += static_cast<std::size_t>(count);
        }
    }
    /// What arrives until `end` is among it, the server closes, or the time is over.
    std::string receive(const std::string& end = "", int milliseconds = 10000) {
        std::string text;
        const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(milliseconds);
        while (end.empty() || text.find(end) == std::string::npos) {
            const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
                until - std::chrono::steady_clock::now());
            pollfd poll_for{.fd = socket_, .events = POLLIN, .revents = 0};
            if (left.count() <= 0 || ::poll(&poll_for, 1, static_cast<int>(left.count())) <= 0) break;
            char buffer[65536];
            const auto count = ::recv(socket_, buffer, sizeof buffer, 0);
            if (count <= 0) {
                closed_ = true;
                break;
            }
            text.append(buffer, static_cast<std::size_t>(count));
        }
        return text;
    }
    /// The server has closed the connection, as far as was read.
    bool closed() const { return closed_; }

  private:
    int socket_;
    bool closed_ = false;
};

/// The answer to one request on a connection of its own.
inline std::string ask(std::uint16_t port, const std::string& request) {
    Client client(port);
    client.send(request);
    return client.receive();
}

/// A GET or POST as a browser on this machine would send it, and the connection is closed after it.
inline std::string request(const std::string& line, const std::string& headers = "") {
    return line + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + headers + "\r\n";
}

}  // namespace thalweg::live
