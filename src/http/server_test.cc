#include "http/server.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/units.h"
#include "http/client.h"

namespace th::http {
namespace {

using namespace std::chrono_literals;

bool eventually(const std::function<bool()>& condition) {
  for (int i = 0; i < 500; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(10ms);
  }
  return false;
}

std::unique_ptr<Server> start(Router router, ServerOptions options = {}) {
  auto server = Server::start(options, std::move(router));
  EXPECT_TRUE(server) << server.error().message;
  return *std::move(server);
}

std::string url(const Server& server, std::string path) {
  return "http://127.0.0.1:" + std::to_string(server.port()) + path;
}

/// A plain socket, for what a well-behaved client does not do.
class RawClient {
 public:
  explicit RawClient(uint16_t port, int receive_buffer = 0)
      : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    if (receive_buffer > 0) ::setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    timeval timeout{5, 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  }
  ~RawClient() { close(); }
  void send(std::string_view bytes) {
    EXPECT_EQ(::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL), ssize_t(bytes.size()));
  }
  /// Until `end` was seen, the peer closed or 5 s passed.
  std::string read_until(std::string_view end) {
    std::string all;
    char chunk[4096];
    while (all.find(end) == std::string::npos) {
      ssize_t n = ::recv(fd_, chunk, sizeof chunk, 0);
      if (n <= 0) break;
      all.append(chunk, size_t(n));
    }
    return all;
  }
  /// True when the peer closes within 5 s.
  bool read_to_close(std::string* all = nullptr) {
    char chunk[4096];
    while (true) {
      ssize_t n = ::recv(fd_, chunk, sizeof chunk, 0);
      if (n == 0 || (n < 0 && errno == ECONNRESET)) return true;
      if (n < 0) return false;
      if (all) all->append(chunk, size_t(n));
    }
  }
  void shutdown_write() { ::shutdown(fd_, SHUT_WR); }
  void close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }

 private:
  int fd_;
};

Router echo_router() {
  Router router;
  router.add("POST", "/echo", [](Request request, Responder responder) {
    responder.send(
        Response{.status = 200, .headers = {{"Content-Type", "text/plain"}}, .body = request.body});
  });
  router.add("GET", "/hello", [](Request, Responder responder) { responder.send(Json{{"hello", "world"}}); });
  return router;
}

const std::string kHello = "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n";
const std::string kHelloBody = R"({"hello":"world"})";

TEST(Server, AnswersAndKeepsTheConnection) {
  auto server = start(echo_router());
  RawClient client(server->port());
  for (int i = 0; i < 3; ++i) {
    client.send(kHello);
    std::string answer = client.read_until(kHelloBody);
    EXPECT_TRUE(answer.starts_with("HTTP/1.1 200 OK\r\n")) << answer;
    EXPECT_NE(answer.find("Content-Length: 17\r\n"), std::string::npos) << answer;
    EXPECT_NE(answer.find("Connection: keep-alive"), std::string::npos);
  }
  EXPECT_EQ(server->connections(), 1u);
}

TEST(Server, AnswersPipelinedRequestsInOrder) {
  Router router;
  router.add("GET", "/{n}", [](Request request, Responder responder) {
    // The first answers last; the order on the wire must still be the order of the requests.
    std::thread([n = request.params.at("n"), responder] {
      std::this_thread::sleep_for(n == "1" ? 50ms : 0ms);
      responder.send(Response{.status = 200, .headers = {}, .body = "answer" + n});
    }).detach();
  });
  auto server = start(std::move(router));
  RawClient client(server->port());
  client.send(
      "GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\n\r\nGET /3 HTTP/1.1\r\nHost: "
      "x\r\n\r\n");
  std::string answer = client.read_until("answer3");
  EXPECT_LT(answer.find("answer1"), answer.find("answer2"));
  EXPECT_LT(answer.find("answer2"), answer.find("answer3"));
}

TEST(Server, RefusesPipelinedGarbageAfterAGoodRequest) {
  auto server = start(echo_router());
  RawClient client(server->port());
  client.send(kHello + "\x01\x02 garbage\r\n\r\n" + kHello);
  std::string all;
  EXPECT_TRUE(client.read_to_close(&all));
  EXPECT_EQ(all.find("HTTP/1.1 200 OK"), 0u) << all;
  EXPECT_NE(all.find("HTTP/1.1 400 Bad Request"), std::string::npos) << all;
  EXPECT_EQ(all.find("200 OK", 20), std::string::npos) << "nothing after garbage may be answered";
}

TEST(Server, LimitsBodyHeaderAndTarget) {
  ServerOptions options;
  options.max_body_bytes = 1000;
  options.max_header_bytes = 2000;
  auto server = start(echo_router(), options);
  struct Case {
    std::string request, status;
  };
  const Case cases[] = {
      {"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n" + std::string(1001, 'a'), "413"},
      {"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n" +
           std::string(1001, 'a') + "\r\n0\r\n\r\n",
       "413"},
      {"GET /hello HTTP/1.1\r\nHost: x\r\nX: " + std::string(3000, 'a') + "\r\n\r\n", "431"},
      {"GET /hello%zz HTTP/1.1\r\nHost: x\r\n\r\n", "400"},
      {"GET /hello%00 HTTP/1.1\r\nHost: x\r\n\r\n", "400"},
      {"GET hello HTTP/1.1\r\nHost: x\r\n\r\n", "400"},
      {"GET /hello HTTP/9\r\nHost: x\r\n\r\n", "400"},
      {"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", "400"},
      {"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
       "400"},
  };
  for (const Case& c : cases) {
    RawClient client(server->port());
    client.send(c.request);
    std::string all;
    EXPECT_TRUE(client.read_to_close(&all)) << c.request.substr(0, 80);
    EXPECT_TRUE(all.starts_with("HTTP/1.1 " + c.status)) << c.request.substr(0, 80) << " -> " << all;
    EXPECT_NE(all.find(R"("code":"invalid_argument")"), std::string::npos) << all;
  }
  RawClient fits(server->port());
  fits.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n" + std::string(1000, 'b'));
  EXPECT_NE(fits.read_until(std::string(1000, 'b')).find("200 OK"), std::string::npos);
}

TEST(Server, SaysContinueBeforeTheBody) {
  auto server = start(echo_router());
  RawClient client(server->port());
  client.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(client.read_until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  client.send("12345");
  EXPECT_NE(client.read_until("\r\n\r\n12345").find("200 OK"), std::string::npos);
}

TEST(Server, ClosesWhatSendsHalfARequestAndWhatIsIdle) {
  ServerOptions options;
  options.idle_timeout_ns = 200 * kMillisecond;
  auto server = start(echo_router(), options);
  RawClient half(server->port());
  RawClient idle(server->port());
  half.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Le");
  EXPECT_TRUE(half.read_to_close());
  EXPECT_TRUE(idle.read_to_close());
  EXPECT_TRUE(eventually([&] { return server->connections() == 0; }));
}

TEST(Server, AnIdleTimeoutDoesNotCutAPendingAnswer) {
  ServerOptions options;
  options.idle_timeout_ns = 100 * kMillisecond;
  Router router;
  router.add("GET", "/slow", [](Request, Responder responder) {
    std::thread([responder] {
      std::this_thread::sleep_for(400ms);
      responder.send(Json("late"));
    }).detach();
  });
  auto server = start(std::move(router), options);
  auto response = fetch({.url = url(*server, "/slow")});
  ASSERT_TRUE(response) << response.error().message;
  EXPECT_EQ(response->body, "\"late\"");
}

TEST(Server, OldClientsGetTheBodyUnchunkedAndAClose) {
  Router router;
  router.add("GET", "/s", [](Request, Responder responder) {
    Stream stream = responder.stream(200, {});
    stream.write("one");
    stream.write("two");
    stream.close();
  });
  auto server = start(std::move(router));
  RawClient client(server->port());
  client.send("GET /s HTTP/1.0\r\n\r\n");
  std::string all;
  EXPECT_TRUE(client.read_to_close(&all));
  EXPECT_TRUE(all.ends_with("\r\n\r\nonetwo")) << all;
  EXPECT_EQ(all.find("chunked"), std::string::npos);
}

TEST(Server, StreamsInChunks) {
  Router router;
  router.add("GET", "/s", [](Request, Responder responder) {
    Stream stream = responder.event_stream();
    EXPECT_TRUE(stream.event("a"));
    EXPECT_TRUE(stream.event("b", "kind", "7"));
    stream.close();
    EXPECT_FALSE(stream.write("after the end"));
    EXPECT_FALSE(stream.alive());
  });
  auto server = start(std::move(router));
  RawClient client(server->port());
  client.send("GET /s HTTP/1.1\r\nHost: x\r\n\r\n");
  std::string all = client.read_until("0\r\n\r\n");
  EXPECT_NE(all.find("Transfer-Encoding: chunked"), std::string::npos);
  EXPECT_TRUE(all.ends_with("\r\n\r\n9\r\ndata: a\n\n\r\n1b\r\nid: 7\nevent: kind\ndata: b\n\n\r\n0\r\n\r\n"))
      << all;
}

TEST(Server, TellsWhenTheClientLeavesAPendingAnswer) {
  std::atomic<int> gone = 0;
  std::vector<Responder> kept;
  std::mutex mutex;
  Router router;
  router.add("GET", "/wait", [&](Request, Responder responder) {
    responder.on_gone([&] { ++gone; });
    std::scoped_lock lock(mutex);
    kept.push_back(responder);
  });
  auto server = start(std::move(router));
  RawClient client(server->port());
  client.send("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n");
  ASSERT_TRUE(eventually([&] {
    std::scoped_lock lock(mutex);
    return kept.size() == 1;
  }));
  EXPECT_EQ(gone, 0);
  client.close();
  EXPECT_TRUE(eventually([&] { return gone == 1; }));
  std::scoped_lock lock(mutex);
  bool at_once = false;
  kept[0].on_gone([&] { at_once = true; });
  EXPECT_TRUE(at_once);
  kept[0].send(Json("too late"));
}

TEST(Server, TellsWhenTheClientLeavesASilentStream) {
  std::atomic<int> gone = 0;
  std::atomic<bool> started = false;
  std::optional<Stream> stream;
  Router router;
  router.add("GET", "/s", [&](Request, Responder responder) {
    stream = responder.event_stream();
    stream->on_gone([&] { ++gone; });
    started = true;
  });
  auto server = start(std::move(router));
  RawClient client(server->port());
  client.send("GET /s HTTP/1.1\r\nHost: x\r\n\r\n");
  ASSERT_TRUE(eventually([&] { return started.load(); }));
  client.close();
  EXPECT_TRUE(eventually([&] { return gone == 1; }));
  EXPECT_FALSE(stream->alive());
  EXPECT_FALSE(stream->write("x"));
}

TEST(Server, ASlowReaderIsCutWhenItsQueueIsFull) {
  ServerOptions options;
  options.max_queued_bytes = 64 << 10;
  std::atomic<bool> refused = false;
  std::atomic<int> gone = 0;
  std::atomic<size_t> written = 0;
  Router router;
  router.add("GET", "/s", [&](Request, Responder responder) {
    Stream stream = responder.stream(200, {});
    stream.on_gone([&] { ++gone; });
    std::thread([&, stream]() mutable {
      std::string piece(16 << 10, 'x');
      for (int i = 0; i < 100'000 && !refused; ++i) {
        refused = !stream.write(piece);
        if (!refused) written += piece.size();
        std::this_thread::sleep_for(100us);
      }
    }).detach();
  });
  auto server = start(std::move(router), options);
  RawClient client(server->port(), 4096);
  client.send("GET /s HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_TRUE(eventually([&] { return refused && gone == 1; }));
  EXPECT_LT(written.load(), size_t{64} << 20) << "the kernel's buffers and 64 KiB, not more";
  EXPECT_TRUE(eventually([&] { return server->connections() == 0; }));
}

TEST(Server, ADroppedRequestIs500AndADroppedStreamIsCut) {
  Router router;
  router.add("GET", "/dropped", [](Request, Responder) {});
  router.add("GET", "/throws", [](Request, Responder) { throw std::runtime_error("oops"); });
  router.add("GET", "/cut", [](Request, Responder responder) { responder.stream(200, {}).write("half"); });
  auto server = start(std::move(router));
  for (auto path : {"/dropped", "/throws"}) {
    auto response = fetch({.url = url(*server, path)});
    ASSERT_TRUE(response) << response.error().message;
    EXPECT_EQ(response->status, 500);
  }
  auto cut = fetch({.url = url(*server, "/cut")});
  ASSERT_FALSE(cut);
  EXPECT_EQ(cut.error().code, Code::kUnavailable);
}

TEST(Server, TwoHundredStreamsAtOnce) {
  ServerOptions options;
  options.threads = 2;
  Router router;
  std::mutex mutex;
  std::vector<Stream> streams;
  router.add("GET", "/s/{n}", [&](Request request, Responder responder) {
    Stream stream = responder.event_stream();
    stream.event("hello " + request.params.at("n"));
    std::scoped_lock lock(mutex);
    streams.push_back(stream);
  });
  auto server = start(std::move(router), options);
  constexpr int kStreams = 200, kEvents = 20;
  std::atomic<int> ended = 0, good = 0, heads = 0;
  std::vector<std::string> got(kStreams);
  Client client(2);
  for (int i = 0; i < kStreams; ++i) {
    client.start({.url = url(*server, "/s/" + std::to_string(i))},
                 {.on_head = [&](int status, const Headers&) { heads += status == 200; },
                  .on_data =
                      [&got, i](std::string_view piece) {
                        got[i] += piece;
                        return true;
                      },
                  .on_end =
                      [&](Status end) {
                        good += end.has_value();
                        ++ended;
                      }});
  }
  ASSERT_TRUE(eventually([&] {
    std::scoped_lock lock(mutex);
    return streams.size() == kStreams;
  }));
  for (int event = 0; event < kEvents; ++event) {
    for (auto& stream : streams) EXPECT_TRUE(stream.event(std::to_string(event)));
  }
  for (auto& stream : streams) stream.close();
  ASSERT_TRUE(eventually([&] { return ended == kStreams; }));
  EXPECT_EQ(good, kStreams);
  EXPECT_EQ(heads, kStreams);
  std::string want;
  for (int event = 0; event < kEvents; ++event) want += "data: " + std::to_string(event) + "\n\n";
  for (int i = 0; i < kStreams; ++i) EXPECT_EQ(got[i], "data: hello " + std::to_string(i) + "\n\n" + want);
}

TEST(Server, WaitsWithMoreConnectionsThanAllowed) {
  ServerOptions options;
  options.max_connections = 2;
  auto server = start(echo_router(), options);
  RawClient a(server->port());
  RawClient b(server->port());
  ASSERT_TRUE(eventually([&] { return server->connections() == 2; }));
  RawClient c(server->port());
  c.send(kHello);
  std::this_thread::sleep_for(50ms);
  EXPECT_EQ(server->connections(), 2u);
  a.close();
  EXPECT_NE(c.read_until(kHelloBody).find("200 OK"), std::string::npos);
}

TEST(Server, NamesATakenPort) {
  auto server = start(echo_router());
  ServerOptions options;
  options.port = server->port();
  auto second = Server::start(options, echo_router());
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, Code::kAlreadyExists);
  EXPECT_NE(second.error().message.find("127.0.0.1:" + std::to_string(options.port)), std::string::npos);
  server.reset();
  EXPECT_TRUE(Server::start(options, echo_router())) << "a closed server frees its port at once";
}

TEST(Server, RefusesABadAddress) {
  ServerOptions options;
  options.address = "nowhere";
  auto server = Server::start(options, {});
  ASSERT_FALSE(server);
  EXPECT_EQ(server.error().code, Code::kInvalidArgument);
}

TEST(Server, StopsWithAnswersPendingAndHandlesThatOutliveIt) {
  std::atomic<int> gone = 0;
  std::vector<Responder> kept;
  std::vector<Stream> streams;
  std::atomic<int> seen = 0;
  Router router;
  router.add("GET", "/wait", [&](Request, Responder responder) {
    responder.on_gone([&] { ++gone; });
    kept.push_back(responder);
    ++seen;
  });
  router.add("GET", "/s", [&](Request, Responder responder) {
    streams.push_back(responder.event_stream());
    streams.back().on_gone([&] { ++gone; });
    ++seen;
  });
  auto server = start(std::move(router));
  RawClient a(server->port()), b(server->port());
  a.send("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n");
  b.send("GET /s HTTP/1.1\r\nHost: x\r\n\r\n");
  ASSERT_TRUE(eventually([&] { return seen == 2; }));
  server.reset();
  EXPECT_EQ(gone, 2);
  EXPECT_TRUE(a.read_to_close());
  kept[0].send(Json("late"));
  EXPECT_FALSE(streams[0].write("late"));
}

TEST(Server, AddsItsHeadersWhereAHandlerHasNone) {
  Router router = echo_router();
  router.add("GET", "/own", [](Request, Responder r) {
    r.send(Response{200, {{"x-frame-options", "SAMEORIGIN"}}, ""});
  });
  router.add("GET", "/stream", [](Request, Responder r) { r.event_stream().close(); });
  ServerOptions options;
  options.headers = std::make_shared<Headers>(Headers{{"X-Frame-Options", "DENY"}});
  auto server = start(std::move(router), options);
  for (const auto& [path, value] :
       {std::pair("/hello", "DENY"), {"/own", "SAMEORIGIN"}, {"/stream", "DENY"}, {"/none", "DENY"}}) {
    const auto answer = fetch({.url = url(*server, path)});
    ASSERT_TRUE(answer) << path;
    EXPECT_EQ(answer->header("X-Frame-Options"), value) << path;
    EXPECT_EQ(std::ranges::count_if(answer->headers, [](const auto& h) { return h.first.size() == 15; }), 1)
        << path;
  }
}

}  // namespace
}  // namespace th::http
