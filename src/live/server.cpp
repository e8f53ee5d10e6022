#include "thalweg/live/server.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <exception>
#include <thread>
#include <vector>

#include "connection.hpp"
#include "routes.hpp"
#include "thalweg/core/error.hpp"

namespace thalweg::live {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

namespace {

/// What a kernel holds for a client that does not read.
constexpr int send_buffer_bytes = 64 << 10;
/// Connections that are being turned away are not counted, but there is an end to them as well.
constexpr std::size_t most_leaving = 256;
constexpr std::chrono::milliseconds farewell{50};

void close_on_exec(int descriptor) {
    ::fcntl(descriptor, F_SETFD, FD_CLOEXEC);
}

/// Who computes goes first: on a full machine this thread gets what is left.
void be_modest() {
    ::setpriority(PRIO_PROCESS, static_cast<id_t>(::syscall(SYS_gettid)), 19);
}

/// Started with all signals blocked: they are for the main thread, whose waits they end.
template <class Work>
std::thread start_without_signals(Work&& work) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    std::thread thread(std::forward<Work>(work));
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return thread;
}

}  // namespace

struct Server::Impl {
    Impl(Feed& feed, Control* control, Address where, std::string token, Limits bounds)
        : feed_(feed),
          address_(std::move(where)),
          limits_(bounds),
          routes_(feed, control, std::move(token)) {}

    void listen();
    void run();
    void accept();
    void admit(tcp::socket socket);
    void tick();
    void end();
    void part(Connection::Clock::time_point latest);

    Feed& feed_;
    Address address_;
    const Limits limits_;
    Routes routes_;
    asio::io_context io_{1};
    tcp::acceptor acceptor_{io_};
    asio::steady_timer timer_{io_};
    std::vector<std::shared_ptr<Connection>> connections_;
    bool accepting_ = false, ending_ = false;
    std::thread thread_;
};

void Server::Impl::listen() {
    try {
        const tcp::endpoint endpoint(asio::ip::make_address(address_.host), address_.port);
        acceptor_.open(endpoint.protocol());
        close_on_exec(acceptor_.native_handle());
        acceptor_.set_option(tcp::acceptor::reuse_address(true));
        acceptor_.bind(endpoint);
        acceptor_.listen();
        acceptor_.non_blocking(true);
        address_.port = acceptor_.local_endpoint().port();
    } catch (const boost::system::system_error& error) {
        const bool taken = error.code() == asio::error::address_in_use;
        throw core::RunError("the live page cannot listen on " + address_.text() + ": " +
                             error.code().message() +
                             (taken ? "; another program has the port, choose another, or 0 for a free one"
                                    : "; choose an address of this machine, as 127.0.0.1:8080"));
    }
    routes_.set_port(address_.port);
}

/// A handler that throws (memory ran out) loses its own connection: the deadline closes it, the others go on. One that
/// throws at the end may have been the one that ends everything: then this does.
void Server::Impl::run() {
    be_modest();
    for (;;) {
        try {
            io_.run();
            return;
        } catch (const std::exception&) {
            if (ending_) return;
        }
    }
}

void Server::Impl::accept() {
    accepting_ = true;
    acceptor_.async_accept([this](const error_code& error, tcp::socket socket) {
        accepting_ = false;
        if (error) return;  // out of file descriptors, say: the next tick tries again
        admit(std::move(socket));
        accept();
    });
}

void Server::Impl::admit(tcp::socket socket) {
    close_on_exec(socket.native_handle());
    error_code ignored;
    socket.set_option(asio::socket_base::send_buffer_size(send_buffer_bytes), ignored);
    socket.set_option(tcp::no_delay(true), ignored);
    std::erase_if(connections_, [](const auto& connection) { return !connection->is_open(); });
    const auto leaving = static_cast<std::size_t>(
        std::count_if(connections_.begin(), connections_.end(),
                      [](const auto& connection) { return connection->is_leaving(); }));
    if (leaving >= most_leaving) return;
    const bool full = connections_.size() - leaving >= limits_.connections;
    connections_.push_back(std::make_shared<Connection>(std::move(socket), routes_, feed_, limits_));
    if (full) {
        connections_.back()->refuse();
    } else {
        connections_.back()->start();
    }
}

void Server::Impl::tick() {
    timer_.expires_after(limits_.tick);
    timer_.async_wait([this](const error_code& error) {
        if (error || ending_) return;
        tick();
        std::erase_if(connections_, [](const auto& connection) { return !connection->is_open(); });
        for (const auto& connection : std::vector(connections_)) connection->tick();
        if (!accepting_) accept();
    });
}

/// The last events go out, then everything ends, whether they arrived or not.
void Server::Impl::end() {
    ending_ = true;
    error_code ignored;
    acceptor_.close(ignored);
    part(Connection::Clock::now() + farewell);
}

/// What was being written is followed by what came since.
void Server::Impl::part(Connection::Clock::time_point latest) {
    for (const auto& connection : connections_) {
        if (connection->is_stream()) connection->tick();
    }
    const bool writing = std::any_of(connections_.begin(), connections_.end(),
                                     [](const auto& connection) { return connection->is_writing_events(); });
    if (!writing || Connection::Clock::now() >= latest) return io_.stop();
    timer_.expires_after(std::chrono::milliseconds(2));
    timer_.async_wait([this, latest](const error_code& error) {
        if (!error) part(latest);
    });
}

Server::Server(Feed& feed, Control* control, const Address& address, const std::string& token,
               Limits limits) {
    require_guarded(address, token);
    feed.control(control != nullptr ? control->json() : Json{{"live", false}});
    impl_ = std::make_unique<Impl>(feed, control, address, token, limits);
    impl_->listen();
    asio::post(impl_->io_, [impl = impl_.get()] {
        impl->accept();
        impl->tick();
    });
    impl_->thread_ = start_without_signals([impl = impl_.get()] { impl->run(); });
}

Server::~Server() {
    asio::post(impl_->io_, [impl = impl_.get()] { impl->end(); });
    impl_->thread_.join();
}

const Address& Server::address() const {
    return impl_->address_;
}

}  // namespace thalweg::live
