#include "thalweg/live/server.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <thread>
#include <vector>

#include "client.hpp"
#include "thalweg/core/error.hpp"
#include "thalweg/record/stopwatch.hpp"

namespace thalweg::live::server_test {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

/// Impatient limits, but for a machine that is five times slower: only the test of slow clients has shorter ones.
Limits quick() {
    Limits limits;
    limits.header_time = 2000ms;
    limits.idle_time = 3000ms;
    limits.stall_time = 800ms;
    limits.heartbeat = 400ms;
    limits.tick = 20ms;
    return limits;
}

class LiveServer : public ::testing::Test {
  protected:
    Feed feed_;
    Control control_;
    Server server_{feed_, &control_, Address{}, "", quick()};
    std::uint16_t port_ = server_.address().port;

    void add_round(std::int64_t number) { feed_.add_round({{"round", number}}); }
};

TEST_F(LiveServer, ServesThePageWithHeadersThatKeepOthersOut) {
    const auto page = ask(port_, request("GET /"));
    EXPECT_THAT(page, StartsWith("HTTP/1.1 200 OK\r\n"));
    EXPECT_THAT(page, HasSubstr("Content-Security-Policy: default-src 'none'; script-src 'self'"));
    EXPECT_THAT(page, HasSubstr("X-Content-Type-Options: nosniff"));
    EXPECT_THAT(page, HasSubstr("<canvas id=\"accuracy\""));
    EXPECT_THAT(ask(port_, request("GET /chart.js")), HasSubstr("Chart.js v"));
    EXPECT_THAT(ask(port_, request("GET /live.js")), HasSubstr("text/javascript"));
    EXPECT_THAT(ask(port_, request("GET /live.css")), HasSubstr("text/css"));
    EXPECT_THAT(ask(port_, request("HEAD /")), Not(HasSubstr("<canvas")));
    EXPECT_THAT(ask(port_, request("GET /../etc/passwd")), StartsWith("HTTP/1.1 404"));
    EXPECT_THAT(ask(port_, request("DELETE /")), StartsWith("HTTP/1.1 405"));
}

TEST_F(LiveServer, PageNamesNothingThatIsElsewhere) {
    for (const char* path : {"GET /", "GET /live.css", "GET /live.js"}) {
        auto text = ask(port_, request(path));
        for (auto at = text.find("http://www.w3.org/2000/svg"); at != std::string::npos;
             at = text.find("http://www.w3.org/2000/svg"))
            text.erase(at, 26);  // the name of a namespace, which nobody loads
        EXPECT_THAT(text, Not(HasSubstr("http://"))) << path;
        EXPECT_THAT(text, Not(HasSubstr("https://"))) << path;
        EXPECT_THAT(text, Not(HasSubstr("onclick"))) << path;
        EXPECT_THAT(text, Not(HasSubstr("innerHTML"))) << path;
    }
}

TEST_F(LiveServer, StateAndRoundsAreJson) {
    feed_.describe({{"name", "a \"run\""}});
    for (int i = 1; i <= 5; ++i) add_round(i);
    const auto state = ask(port_, request("GET /api/state"));
    const auto json = Json::parse(state.substr(state.find("\r\n\r\n")));
    EXPECT_EQ(json["run"]["name"], "a \"run\"");
    EXPECT_EQ(json["recorded"], 5);
    EXPECT_EQ(json["latest"]["round"], 5);
    EXPECT_EQ(json["control"]["pause"], false);
    EXPECT_THAT(ask(port_, request("GET /api/rounds?from=4")),
                HasSubstr(R"({"rounds":[{"round":4},{"round":5}],"more":false})"));
    EXPECT_THAT(ask(port_, request("GET /api/rounds?from=x")), StartsWith("HTTP/1.1 400"));
}

TEST_F(LiveServer, ManyRequestsOnOneConnectionButNotForEver) {
    Client client(port_);
    for (std::size_t i = 0; i < quick().requests; ++i) {
        client.send("GET /api/state HTTP/1.1\r\nHost: localhost\r\n\r\n");
        ASSERT_THAT(client.receive("recorded\":0}"), StartsWith("HTTP/1.1 200")) << i;
    }
    client.receive();
    EXPECT_TRUE(client.closed());
}

TEST_F(LiveServer, PipelinedRequestsAreAnsweredInOrder) {
    Client client(port_);
    client.send("GET /api/rounds HTTP/1.1\r\nHost: localhost\r\n\r\n" + request("GET /nowhere"));
    const auto answers = client.receive();
    EXPECT_LT(answers.find("200 OK"), answers.find("404 Not Found"));
    EXPECT_NE(answers.find("404 Not Found"), std::string::npos);
}

TEST_F(LiveServer, MalformedRequestsGet400AndTheConnectionEnds) {
    for (const std::string text :
         {"nonsense\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "GET / HTTP/1.1\r\nbad header\r\n\r\n",
          "GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
          "POST /api/stop HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
          "POST /api/stop HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: "
          "chunked\r\n\r\n",
          "GET http://evil/ HTTP/1.1\r\nHost: localhost\r\n\r\n", "\x16\x03\x01\x02\x01\x01\r\n\r\n"}) {
        Client client(port_);
        client.send(text);
        EXPECT_THAT(client.receive(), StartsWith("HTTP/1.1 400")) << text;
        EXPECT_TRUE(client.closed()) << text;
    }
    EXPECT_FALSE(control_.stop_requested());
    EXPECT_THAT(ask(port_, request("GET /")), StartsWith("HTTP/1.1 200"));  // it is well
}

TEST_F(LiveServer, HeadersAndBodiesHaveLimits) {
    EXPECT_THAT(ask(port_, request("GET /", "X: " + std::string(8200, 'x') + "\r\n")),
                StartsWith("HTTP/1.1 431"));
    EXPECT_THAT(ask(port_, request("GET /" + std::string(100000, 'x'))), StartsWith("HTTP/1.1 431"));
    EXPECT_THAT(ask(port_, request("GET /", "X: " + std::string(6000, 'x') + "\r\n")),
                StartsWith("HTTP/1.1 200"));
    EXPECT_THAT(ask(port_, request("POST /api/pause", "X-Thalweg: 1\r\nContent-Length: 4097\r\n") +
                               std::string(4097, 'x')),
                StartsWith("HTTP/1.1 413"));
    EXPECT_THAT(ask(port_, request("POST /api/pause", "X-Thalweg: 1\r\nTransfer-Encoding: chunked\r\n") +
                               "2000\r\n" + std::string(8192, 'x') + "\r\n0\r\n\r\n"),
                StartsWith("HTTP/1.1 413"));
    EXPECT_FALSE(control_.pause_requested());
}

TEST_F(LiveServer, SlowHeadersAndIdleConnectionsAreDropped) {
    Limits limits = quick();
    limits.header_time = 300ms;
    limits.idle_time = 1000ms;
    const Server server(feed_, &control_, Address{}, "", limits);
    const auto port = server.address().port;
    const record::Stopwatch watch;
    Client silent(port), slow(port);
    slow.send("GET / HTTP/1.1\r\n");
    std::string got;
    while (watch.seconds() < 5 && !slow.closed()) {
        slow.send("X");  // each one a sign of life, and still no request
        got += slow.receive("", 50);
    }
    EXPECT_TRUE(slow.closed());
    silent.receive("", 5000);
    EXPECT_TRUE(silent.closed());

    Client kept(port);
    kept.send("GET /api/state HTTP/1.1\r\nHost: localhost\r\n\r\n");
    kept.receive("}\r\n", 200);
    EXPECT_FALSE(kept.closed());
    kept.receive("", 5000);
    EXPECT_TRUE(kept.closed());
}

TEST_F(LiveServer, FurtherConnectionsGet503AtOnceAndPlaceIsMadeAgain) {
    std::vector<std::unique_ptr<Client>> clients;
    for (std::size_t i = 0; i < 64; ++i) {
        clients.push_back(std::make_unique<Client>(port_));
        clients.back()->send("GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    }
    EXPECT_THAT(clients.back()->receive("reset"), HasSubstr("text/event-stream"));
    const record::Stopwatch watch;
    EXPECT_THAT(ask(port_, request("GET /")), StartsWith("HTTP/1.1 503"));
    EXPECT_LT(watch.seconds(), 5.0);
    clients.clear();
    std::string answer;
    for (const record::Stopwatch waited; !answer.starts_with("HTTP/1.1 200") && waited.seconds() < 5;)
        answer = ask(port_, request("GET /"));
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 200"));
}

TEST_F(LiveServer, OtherNamesOfThisMachineAreNobodys) {
    for (const char* host :
         {"evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "127.1", "[::2]"}) {
        EXPECT_THAT(
            ask(port_, "GET / HTTP/1.1\r\nConnection: close\r\nHost: " + std::string(host) + "\r\n\r\n"),
            StartsWith("HTTP/1.1 421"))
            << host;
    }
    for (const char* host : {"127.0.0.1:9000", "LOCALHOST", "[::1]:80"}) {
        EXPECT_THAT(
            ask(port_, "GET / HTTP/1.1\r\nConnection: close\r\nHost: " + std::string(host) + "\r\n\r\n"),
            StartsWith("HTTP/1.1 200"))
            << host;
    }
}

TEST_F(LiveServer, ActionsComeFromThisPageOnly) {
    EXPECT_THAT(ask(port_, request("GET /api/stop", "X-Thalweg: 1\r\n")), StartsWith("HTTP/1.1 405"));
    EXPECT_THAT(ask(port_, request("POST /api/stop")), StartsWith("HTTP/1.1 403"));
    for (const char* header :
         {"Origin: http://evil.example\r\n", "Origin: null\r\n", "Origin: http://localhost:1\r\n",
          "Origin: http://localhost\r\nOrigin: http://evil.example\r\n", "Sec-Fetch-Site: cross-site\r\n",
          "Sec-Fetch-Site: same-site\r\n"}) {
        EXPECT_THAT(ask(port_, request("POST /api/stop", std::string("X-Thalweg: 1\r\n") + header)),
                    StartsWith("HTTP/1.1 403"))
            << header;
    }
    EXPECT_FALSE(control_.stop_requested());

    const std::string own = "X-Thalweg: 1\r\nOrigin: http://localhost\r\nSec-Fetch-Site: same-origin\r\n";
    EXPECT_THAT(ask(port_, request("POST /api/pause", own)), HasSubstr("\"pause\":true"));
    EXPECT_TRUE(control_.pause_requested());
    EXPECT_THAT(ask(port_, request("POST /api/resume", own)), StartsWith("HTTP/1.1 200"));
    EXPECT_FALSE(control_.pause_requested());
    EXPECT_THAT(ask(port_, request("POST /api/checkpoint", own)), StartsWith("HTTP/1.1 200"));
    EXPECT_TRUE(control_.checkpoint_requested());
    EXPECT_THAT(ask(port_, request("POST /api/stop", own)), StartsWith("HTTP/1.1 200"));
    EXPECT_TRUE(control_.stop_requested());
    EXPECT_THAT(ask(port_, request("POST /api/pause", own)), StartsWith("HTTP/1.1 409"));
    EXPECT_FALSE(control_.pause_requested());
}

TEST_F(LiveServer, EventsBeginWithWhatThereIsAndGoOn) {
    add_round(1);
    feed_.progress({{"phase", "running"}});
    Client client(port_);
    client.send("GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    const auto first = client.receive("event: state");
    EXPECT_THAT(first, HasSubstr("Content-Type: text/event-stream"));
    EXPECT_THAT(first, HasSubstr("event: reset\n"));
    EXPECT_THAT(first, HasSubstr("-0\nevent: round\ndata: {\"round\":1}\n\n"));
    add_round(2);
    EXPECT_THAT(client.receive("\"round\":2}\n\n"), HasSubstr("-1\nevent: round\ndata: {\"round\":2}"));
    EXPECT_THAT(client.receive(":\n\n"), HasSubstr(":\n\n"));  // a sign of life
    feed_.reset();
    add_round(1);
    const auto again = client.receive("\"round\":1}\n\n");
    EXPECT_LT(again.find("event: reset"), again.find("event: round"));
}

TEST_F(LiveServer, AReaderThatComesBackGetsWhatItMissed) {
    for (int i = 1; i <= 4; ++i) add_round(i);
    Client client(port_);
    client.send("GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    const auto all = client.receive("\"round\":4}\n\n");
    const auto second = all.find("-1\nevent: round");
    const auto begin = all.rfind("id: ", second) + 4;
    const std::string id = all.substr(begin, second + 2 - begin);

    const auto resumed = [&](const std::string& last) {
        Client other(port_);
        other.send("GET /api/events HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: " + last + "\r\n\r\n");
        return other.receive("\"round\":4}\n\n");
    };
    EXPECT_THAT(resumed(id), Not(HasSubstr("reset")));
    EXPECT_THAT(resumed(id), Not(HasSubstr("\"round\":2}")));
    EXPECT_THAT(resumed(id), HasSubstr("\"round\":3}"));
    for (const char* other : {"17-1", "nonsense", "-", "1-", "99999999999999999999999-1"}) {
        EXPECT_THAT(resumed(other), HasSubstr("event: reset")) << other;  // another program's, or nobody's
        EXPECT_THAT(resumed(other), HasSubstr("\"round\":1}")) << other;
    }
}

TEST_F(LiveServer, ReadersThatNeverReadNeitherDelayThePublisherNorFillTheMemory) {
    std::vector<std::unique_ptr<Client>> readers;
    for (int i = 0; i < 50; ++i) {
        readers.push_back(std::make_unique<Client>(port_, 2048));
        readers.back()->send("GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    }
    const Json round = {{"round", 1}, {"text", std::string(1000, 'x')}};
    const Json state = {{"what", std::string(200, 'y')}};
    constexpr int events = 100'000;
    const record::Stopwatch watch;
    for (int i = 0; i < events; ++i) {
        feed_.add_round(round);
        feed_.progress(state);
    }
    EXPECT_LT(watch.seconds() / events, 100e-6);  // a few microseconds, on a busy machine as well
    EXPECT_LE(feed_.history_bytes(), std::size_t{16} << 20);
    // A reader that takes nothing is dropped, one that reads is served.
    std::this_thread::sleep_for(2500ms);
    for (auto& reader : readers) reader->receive("", 2000);
    EXPECT_TRUE(readers.front()->closed());
    EXPECT_THAT(ask(port_, request("GET /api/rounds?from=2")), StartsWith("HTTP/1.1 200"));
}

TEST_F(LiveServer, EndsPromptlyWhateverItsClientsDo) {
    auto server = std::make_unique<Server>(feed_, &control_, Address{}, "", quick());
    const auto port = server->address().port;
    Client silent(port), half(port), stream(port), never(port, 2048);
    half.send("GET / HT");
    for (auto* one : {&stream, &never}) one->send("GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.receive("reset");
    feed_.progress({{"phase", "finished"}});
    const record::Stopwatch watch;
    server.reset();
    EXPECT_LT(watch.seconds(), 2.0);  // 50 ms for the reader that takes nothing, the rest for a busy machine
    EXPECT_THAT(stream.receive(), HasSubstr("finished"));  // the last word still goes out
    EXPECT_TRUE(stream.closed());
}

TEST_F(LiveServer, EndsWhenAnExceptionPasses) {
    const record::Stopwatch watch;
    try {
        const Server server(feed_, nullptr, Address{}, "");
        throw std::runtime_error("training failed");
    } catch (const std::runtime_error&) {
    }
    EXPECT_LT(watch.seconds(), 2.0);
}

TEST_F(LiveServer, APortThatIsTakenIsAnError) {
    try {
        const Server second(feed_, nullptr, server_.address(), "");
        FAIL() << "the port was taken";
    } catch (const core::RunError& error) {
        EXPECT_THAT(error.what(), HasSubstr(server_.address().text()));
        EXPECT_THAT(error.what(), HasSubstr("another program has the port"));
    }
    EXPECT_THROW(Server(feed_, nullptr, Address{.host = "203.0.113.7", .port = 0}, std::string(16, 't')),
                 core::RunError);
}

TEST_F(LiveServer, SocketsAreClosedInProgramsThatAreStarted) {
    Client client(port_);
    client.send("GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    client.receive("reset");
    std::size_t sockets = 0, kept = 0;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
        const int descriptor = std::stoi(entry.path().filename().string());
        sockaddr_in address{};
        socklen_t size = sizeof address;
        if (::getsockname(descriptor, reinterpret_cast<sockaddr*>(&address), &size) != 0) continue;
        if (address.sin_family != AF_INET || ntohs(address.sin_port) != port_) continue;
        ++sockets;
        if ((::fcntl(descriptor, F_GETFD) & FD_CLOEXEC) == 0) ++kept;
    }
    EXPECT_GE(sockets, 2U);  // the one that listens and the client's
    EXPECT_EQ(kept, 0U);
}

TEST_F(LiveServer, WithATokenNothingIsSaidWithoutIt) {
    const std::string token = "0123456789abcdef";
    const Server server(feed_, &control_, Address{}, token, quick());
    const auto port = server.address().port;
    for (const char* path :
         {"GET /", "GET /live.js", "GET /api/state", "GET /api/events", "POST /api/stop",
          "GET /?token=0123456789abcdeg", "GET /?token=", "GET /api/state?token=0123456789abcdef"})
        EXPECT_THAT(ask(port, request(path, "X-Thalweg: 1\r\n")), StartsWith("HTTP/1.1 401")) << path;
    EXPECT_THAT(ask(port, request("GET /", "Authorization: Bearer 0123456789abcdee\r\n")),
                StartsWith("HTTP/1.1 401"));
    EXPECT_THAT(ask(port, request("GET /", "Authorization: Bearer " + token + "\r\n")),
                StartsWith("HTTP/1.1 200"));
    const auto door = ask(port, request("GET /?token=" + token));
    EXPECT_THAT(door, StartsWith("HTTP/1.1 303"));
    EXPECT_THAT(door, HasSubstr("Location: /\r\n"));
    EXPECT_THAT(door, HasSubstr("; HttpOnly; SameSite=Lax"));
    const std::string cookie = "Cookie: a=b; thalweg_" + std::to_string(port) + "=" + token + "\r\n";
    EXPECT_THAT(ask(port, request("GET /", cookie)), StartsWith("HTTP/1.1 200"));
    EXPECT_THAT(ask(port, request("POST /api/stop", cookie)),
                StartsWith("HTTP/1.1 403"));  // no header of ours
    EXPECT_THAT(ask(port, request("POST /api/pause", cookie + "X-Thalweg: 1\r\n")),
                StartsWith("HTTP/1.1 200"));
}

TEST_F(LiveServer, WithoutARunThereIsNothingToSteer) {
    const Server server(feed_, nullptr, Address{}, "", quick());
    EXPECT_THAT(ask(server.address().port, request("POST /api/stop", "X-Thalweg: 1\r\n")),
                StartsWith("HTTP/1.1 409"));
}

}  // namespace
}  // namespace thalweg::live::server_test
