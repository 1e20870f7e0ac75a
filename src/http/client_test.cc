#include "http/client.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <nlohmann/json.hpp>
#include <thread>

#include "http/server.h"

namespace th::http {
namespace {

using namespace std::chrono_literals;

class ClientTest : public testing::Test {
 protected:
  ClientTest() {
    Router router;
    router.add("GET", "/json", [](Request, Responder r) { r.send(Json{{"a", 1}}); });
    router.add("GET", "/refused", [](Request, Responder r) {
      r.fail({Code::kUnsatisfiable, "too many GPUs"});
    });
    router.add("GET", "/big", [](Request, Responder r) {
      r.send(Response{200, {}, std::string(100'000, 'x')});
    });
    router.add("GET", "/text", [](Request, Responder r) { r.send(Response{200, {}, "not json"}); });
    router.add("POST", "/echo", [](Request q, Responder r) {
      r.send(Json{{"body", q.body},
                  {"type", q.header("content-type").value_or("")},
                  {"key", q.bearer().value_or("")}});
    });
    router.add("GET", "/never", [this](Request, Responder r) { keep(r); });
    router.add("GET", "/silent", [this](Request, Responder r) { keep(r.stream(200, {{"X-A", "b"}})); });
    server_ = *Server::start({}, std::move(router));
  }
  ~ClientTest() override { server_.reset(); }

  template <class T>
  void keep(T handle) {
    std::scoped_lock lock(mutex_);
    kept_.push_back(std::make_shared<T>(std::move(handle)));
  }
  std::string url(std::string path) { return "http://127.0.0.1:" + std::to_string(server_->port()) + path; }

  std::mutex mutex_;
  std::vector<std::shared_ptr<void>> kept_;
  std::unique_ptr<Server> server_;
};

bool eventually(const std::function<bool()>& condition) {
  for (int i = 0; i < 500; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(10ms);
  }
  return false;
}

TEST_F(ClientTest, FetchesJson) {
  auto json = fetch_json({.url = url("/json")});
  ASSERT_TRUE(json) << json.error().message;
  EXPECT_EQ(dump_json(*json), R"({"a":1})");
}

TEST_F(ClientTest, SendsJsonAndHeaders) {
  auto json =
      fetch_json({.url = url("/echo"), .headers = {{"Authorization", "Bearer k-1"}}}, Json{{"x", "é"}});
  ASSERT_TRUE(json) << json.error().message;
  EXPECT_EQ(dump_json(*json), R"({"body":"{\"x\":\"é\"}","type":"application/json","key":"k-1"})");
}

TEST_F(ClientTest, ARefusalKeepsItsCodeAndMessage) {
  auto json = fetch_json({.url = url("/refused")});
  ASSERT_FALSE(json);
  EXPECT_EQ(json.error(), (Error{Code::kUnsatisfiable, "too many GPUs"}));
}

TEST_F(ClientTest, NamesWhatWentWrong) {
  auto text = fetch_json({.url = url("/text")});
  ASSERT_FALSE(text);
  EXPECT_EQ(text.error().code, Code::kInvalidArgument);

  auto big = fetch({.url = url("/big"), .max_body_bytes = 99'999});
  ASSERT_FALSE(big);
  EXPECT_EQ(big.error().code, Code::kResourceExhausted);
  EXPECT_EQ(fetch({.url = url("/big"), .max_body_bytes = 100'000})->body.size(), 100'000u);

  auto late = fetch({.url = url("/never?key=secret"), .timeout_ns = 100 * kMillisecond});
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code, Code::kDeadlineExceeded);
  EXPECT_NE(late.error().message.find("/never: nothing within 100ms"), std::string::npos)
      << late.error().message;
  EXPECT_EQ(late.error().message.find("secret"), std::string::npos) << "a query may hold what logs must not";

  auto bad = fetch({.url = "nowhere"});
  ASSERT_FALSE(bad);
  EXPECT_EQ(bad.error().code, Code::kInvalidArgument);
  auto split = fetch({.url = url("/json"), .headers = {{"X", "a\r\nY: b"}}});
  ASSERT_FALSE(split);
  EXPECT_EQ(split.error().code, Code::kInvalidArgument);

  std::string gone = url("/json");
  server_.reset();
  auto refused = fetch({.url = gone});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::kUnavailable);
  EXPECT_NE(refused.error().message.find(gone), std::string::npos) << refused.error().message;
}

TEST_F(ClientTest, CancelEndsOnce) {
  std::atomic<int> ends = 0, heads = 0;
  Status end;
  Client client;
  auto handle = client.start({.url = url("/silent")}, {.on_head =
                                                           [&](int status, const Headers& headers) {
                                                             heads += status == 200 &&
                                                                      find_header(headers, "x-a") == "b";
                                                           },
                                                       .on_data = nullptr,
                                                       .on_end =
                                                           [&](Status status) {
                                                             end = status;
                                                             ++ends;
                                                           }});
  ASSERT_TRUE(eventually([&] { return heads == 1; }));
  Client::cancel(handle);
  Client::cancel(handle);
  ASSERT_TRUE(eventually([&] { return ends == 1; }));
  ASSERT_FALSE(end);
  EXPECT_EQ(end.error().code, Code::kCancelled);
}

TEST_F(ClientTest, ASilentStreamEndsAtItsIdleTimeout) {
  std::atomic<int> ends = 0;
  Status end;
  Client client;
  client.start({.url = url("/silent"), .idle_timeout_ns = 50 * kMillisecond},
               {.on_head = nullptr, .on_data = nullptr, .on_end = [&](Status status) {
                  end = status;
                  ++ends;
                }});
  ASSERT_TRUE(eventually([&] { return ends == 1; }));
  ASSERT_FALSE(end);
  EXPECT_EQ(end.error().code, Code::kDeadlineExceeded);
}

TEST_F(ClientTest, DestructionCancelsWhatIsUnderWay) {
  std::atomic<int> cancelled = 0;
  std::vector<Client::Handle> handles;
  {
    Client client(2);
    for (int i = 0; i < 20; ++i) {
      handles.push_back(client.start({.url = url(i % 2 ? "/silent" : "/never")},
                                     {.on_head = nullptr, .on_data = nullptr, .on_end = [&](Status end) {
                                        cancelled += !end && end.error().code == Code::kCancelled;
                                      }}));
    }
  }
  EXPECT_EQ(cancelled, 20);
  Client::cancel(handles[0]);
}

TEST_F(ClientTest, AReaderMayStop) {
  std::atomic<int> ends = 0;
  Status end;
  Client client;
  client.start({.url = url("/big")}, {.on_head = nullptr,
                                      .on_data = [](std::string_view) { return false; },
                                      .on_end =
                                          [&](Status status) {
                                            end = status;
                                            ++ends;
                                          }});
  ASSERT_TRUE(eventually([&] { return ends == 1; }));
  ASSERT_FALSE(end);
  EXPECT_EQ(end.error().code, Code::kCancelled);
}

std::string all_events(std::string_view stream, size_t piece) {
  EventReader reader;
  std::string all;
  for (size_t at = 0; at < stream.size(); at += piece) {
    auto events = reader.feed(stream.substr(at, piece));
    if (!events) return "error";
    for (const auto& event : *events) all += "[" + event.id + "|" + event.event + "|" + event.data + "]";
  }
  return all;
}

// The examples of the HTML standard, section 9.2.6, and its three kinds of line ends.
TEST(Events, PiecesMayBreakAnywhere) {
  struct Case {
    std::string stream, want;
  };
  const Case cases[] = {
      {"data: YHOO\ndata: +2\ndata: 10\n\n", "[||YHOO\n+2\n10]"},
      {": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
       "[1||first event][||second event][|| third event]"},
      {"data\n\ndata\ndata\n\ndata:", "[||][||\n]"},
      {"event: a\r\ndata: x\r\n\r\ndata: y\r\rdata: z\n\n", "[|a|x][||y][||z]"},
      {"event: without data\n\ndata: [DONE]\n\n", "[||[DONE]]"},
  };
  for (const Case& c : cases) {
    for (size_t piece : {1u, 2u, 3u, 1000u})
      EXPECT_EQ(all_events(c.stream, piece), c.want) << piece << ": " << c.stream;
  }
}

TEST(Events, AnEndlessEventIsRefused) {
  EventReader reader;
  std::string line = "data: " + std::string(1000, 'x') + "\n";
  bool refused = false;
  for (int i = 0; i < 1100 && !refused; ++i) refused = !reader.feed(line);
  EXPECT_TRUE(refused);
}

}  // namespace
}  // namespace th::http
