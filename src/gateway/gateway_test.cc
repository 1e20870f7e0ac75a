// The gateway over real sockets, with a controller and replicas that play a script.

#include "gateway/gateway.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <deque>
#include <filesystem>
#include <fstream>
#include <functional>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "base/files.h"
#include "base/text.h"
#include "http/client.h"
#include "http/server.h"

namespace th::gateway {
namespace {

using namespace std::chrono_literals;

bool eventually(const std::function<bool()>& condition) {
  for (int i = 0; i < 1000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(5ms);
  }
  return condition();
}

std::unique_ptr<http::Server> serve(http::Router router, uint16_t port = 0) {
  http::ServerOptions options;
  options.port = port;
  auto server = http::Server::start(options, std::move(router));
  EXPECT_TRUE(server.has_value()) << server.error().message;
  return *std::move(server);
}

std::string url_of(const http::Server& server) { return "http://127.0.0.1:" + std::to_string(server.port()); }

/// Keeps usage as the controller must: each (journal, seq) once. Can lose answers.
class FakeController {
 public:
  FakeController() { start(); }

  void start(uint16_t port = 0) {
    http::Router router;
    router.add("GET", "/api/v1/gateway/config", [this](http::Request request, http::Responder responder) {
      std::lock_guard lock(mutex_);
      authorized_ = authorized_ && request.bearer() == "gateway-token";
      responder.send(config_);
    });
    router.add("POST", "/api/v1/gateway/usage", [this](http::Request request, http::Responder responder) {
      std::lock_guard lock(mutex_);
      Json body = Json::parse(request.body);
      int64_t acked = 0;
      for (const Json& record : body["records"]) {
        acked = record["seq"].get<int64_t>();
        if (seen_.insert({body["journal"].get<std::string>(), acked}).second) {
          records_.push_back(record);
        } else {
          ++repeats_;
        }
      }
      if (lost_answers_ > 0) {
        --lost_answers_;
        responder.fail({Code::kUnavailable, "the answer is lost"});
      } else {
        responder.send({{"acked_seq", acked}});
      }
    });
    server_ = serve(std::move(router), port);
    url_ = url_of(*server_);
    port_ = server_->port();
  }
  void stop() { server_.reset(); }
  void restart() { start(port_); }

  void set(const Json& deployments) {
    std::lock_guard lock(mutex_);
    config_ = {{"generation", config_["generation"].get<int64_t>() + 1},
               {"deployments", deployments},
               {"keys", keys_}};
  }
  void lose_answers(int count) {
    std::lock_guard lock(mutex_);
    lost_answers_ = count;
  }
  std::vector<Json> records() const {
    std::lock_guard lock(mutex_);
    return records_;
  }
  int repeats() const {
    std::lock_guard lock(mutex_);
    return repeats_;
  }
  bool authorized() const {
    std::lock_guard lock(mutex_);
    return authorized_;
  }
  const std::string& url() const { return url_; }

 private:
  mutable std::mutex mutex_;
  std::string url_;
  uint16_t port_ = 0;
  Json config_ = {{"generation", 0}, {"deployments", Json::array()}, {"keys", Json::array()}};
  Json keys_ = Json::parse(R"([{"id":"key-1","tenant":"lab","sha256":")" + sha256_hex("secret") +
                           R"("},{"id":"key-2","tenant":"shop","tokens_per_minute":60,"sha256":")" +
                           sha256_hex("short") + R"("}])");
  std::set<std::pair<std::string, int64_t>> seen_;
  std::vector<Json> records_;
  int repeats_ = 0;
  int lost_answers_ = 0;
  bool authorized_ = true;
  std::unique_ptr<http::Server> server_;
};

std::string chunk(const std::string& text, const char* finish = nullptr) {
  Json choice = {
      {"text", text}, {"index", 0}, {"logprobs", nullptr}, {"finish_reason", finish ? Json(finish) : Json()}};
  return dump_json({{"id", "cmpl-1"},
                    {"object", "text_completion"},
                    {"created", 1},
                    {"model", "m"},
                    {"choices", Json::array({choice})}});
}
const std::string kUsage =
    R"({"id":"cmpl-1","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":5,"total_tokens":8}})";

/// Plays the next script of its list, the last one for ever.
class FakeReplica {
 public:
  using Script = std::function<void(const http::Request&, http::Responder)>;
  explicit FakeReplica(Script script) : script_(std::move(script)) { start(0); }
  void start(uint16_t port) {
    http::Router router;
    for (const char* path : {"/v1/completions", "/v1/chat/completions"}) {
      router.add("POST", path, [this](http::Request request, http::Responder responder) {
        ++requests_;
        script_(request, std::move(responder));
      });
    }
    server_ = serve(std::move(router), port);
    port_ = server_->port();
  }
  void stop() { server_.reset(); }
  void restart() { start(port_); }
  Json json(const std::string& id) const {
    return {{"id", id}, {"url", "http://127.0.0.1:" + std::to_string(port_)}};
  }
  int requests() const { return requests_; }

  static void answer(const http::Request&, http::Responder responder) {
    http::Stream stream = responder.event_stream();
    for (const auto& data :
         {chunk("In the "), chunk("beginning"), chunk("", "length"), kUsage, std::string("[DONE]")}) {
      stream.event(data);
    }
    stream.close();
  }

 private:
  Script script_;
  std::atomic<int> requests_ = 0;
  uint16_t port_ = 0;
  std::unique_ptr<http::Server> server_;
};

class GatewayTest : public testing::Test {
 protected:
  void SetUp() override {
    dir_ = std::filesystem::temp_directory_path() / ("th-gateway-" + random_token().substr(0, 12));
    std::filesystem::create_directories(dir_);
    std::ofstream(dir_ / "gateway.token") << "gateway-token\n";
  }
  void TearDown() override {
    gateway_.reset();
    std::filesystem::remove_all(dir_);
  }

  GatewayOptions options() const {
    GatewayOptions options;
    options.controller_url = controller_.url();
    options.token_file = dir_ / "gateway.token";
    options.state_dir = dir_;
    options.port = 0;
    options.replica_wait_ns = 2 * kSecond;
    return options;
  }
  void start() { start(options()); }
  void start(GatewayOptions options) {
    auto gateway = Gateway::start(std::move(options));
    ASSERT_TRUE(gateway.has_value()) << gateway.error().message;
    gateway_ = *std::move(gateway);
    EXPECT_TRUE(eventually([&] { return get("/v1/models").status == 200; }));
  }
  void deploy(const std::vector<Json>& replicas, const Json& more = Json::object()) {
    Json deployment = {{"name", "demo"}, {"model", "m"}, {"replicas", replicas}};
    deployment.update(more);
    controller_.set(Json::array({deployment}));
  }
  http::Call call(const std::string& path, const std::string& body = "") const {
    http::Call call;
    call.method = body.empty() ? "GET" : "POST";
    call.url = "http://127.0.0.1:" + std::to_string(gateway_->port()) + path;
    call.headers = {{"Authorization", "Bearer secret"}};
    call.body = body;
    return call;
  }
  static http::Response send(const http::Call& call) {
    auto response = http::fetch(call);
    EXPECT_TRUE(response.has_value()) << response.error().message;
    return response ? *response : http::Response{.status = 0, .headers = {}, .body = {}};
  }
  http::Response get(const std::string& path) const { return send(call(path)); }
  http::Response post(const std::string& body = kAsk) const { return send(call("/v1/completions", body)); }
  static std::string code(const http::Response& response) {
    Json body = Json::parse(response.body, nullptr, false);
    return body.is_object() && body.contains("error") ? body["error"]["code"].get<std::string>()
                                                      : "no error: " + response.body;
  }
  Json only_record() {
    EXPECT_TRUE(eventually([&] { return !controller_.records().empty(); }));
    auto records = controller_.records();
    EXPECT_EQ(records.size(), 1u);
    return records.empty() ? Json() : records[0];
  }

  static inline const std::string kAsk = R"({"model":"demo","prompt":"say it","max_tokens":5})";
  static inline const std::string kAskStream =
      R"({"model":"demo","prompt":"say it","max_tokens":5,"stream":true})";
  std::filesystem::path dir_;
  FakeController controller_;
  std::unique_ptr<Gateway> gateway_;
};

TEST_F(GatewayTest, AnswersOnAllRoutesAndMetersEachOnce) {
  FakeReplica replica(FakeReplica::answer);
  deploy({replica.json("r1")});
  start();
  EXPECT_TRUE(controller_.authorized());
  http::Response whole = post();
  EXPECT_EQ(whole.status, 200);
  Json body = Json::parse(whole.body);
  EXPECT_EQ(body["choices"][0]["text"], "In the beginning");
  EXPECT_EQ(body["usage"]["total_tokens"], 8);
  EXPECT_FALSE(body["choices"][0].contains("content_filter_results"));
  EXPECT_TRUE(whole.header("x-request-id").has_value());

  http::Response stream = post(kAskStream);
  EXPECT_EQ(stream.body.find("usage"), std::string::npos) << stream.body;
  EXPECT_TRUE(stream.body.ends_with("data: [DONE]\n\n")) << stream.body;

  http::Call azure =
      call("/openai/deployments/demo/completions?api-version=2024-10-21", R"({"prompt":"say it"})");
  azure.headers = {{"api-key", "secret"}};
  http::Response from_azure = send(azure);
  body = Json::parse(from_azure.body);
  EXPECT_EQ(body["choices"][0]["content_filter_results"]["hate"]["severity"], "safe");
  EXPECT_EQ(body["prompt_filter_results"][0]["prompt_index"], 0);

  ASSERT_TRUE(eventually([&] { return controller_.records().size() == 3; }));
  for (const Json& record : controller_.records()) {
    EXPECT_EQ(record["key_id"], "key-1");
    EXPECT_EQ(record["deployment"], "demo");
    EXPECT_EQ(record["prompt_tokens"], 3);
    EXPECT_EQ(record["completion_tokens"], 5);
    EXPECT_EQ(record["status"], 200);
    EXPECT_GT(record["latency_ns"], 0);
  }
  const std::string metrics = get("/metrics").body;
  const char* requests = "th_gateway_requests_total{deployment=\"demo\",status=\"200\"} 3\n";
  EXPECT_NE(metrics.find(requests), std::string::npos) << metrics;
  EXPECT_NE(metrics.find("th_gateway_tokens_total{deployment=\"demo\",kind=\"completion\"} 15\n"),
            std::string::npos);
}

TEST_F(GatewayTest, WhatIsAnothersDoesNotExistAndAKeyHasAQuotaOfItsOwn) {
  FakeReplica replica(FakeReplica::answer);
  controller_.set({{{"name", "labs"}, {"replicas", {replica.json("r1")}}, {"tenants", {"lab", ""}}},
                   {{"name", "demo"}, {"replicas", {replica.json("r1")}}, {"tenants", {"shop", "lab", ""}}}});
  start();
  auto by = [&](const char* key, const std::string& path, const std::string& body = "") {
    http::Call c = call(path, body);
    c.headers = {{"api-key", key}};
    return send(c);
  };
  const std::string ask = R"({"model":"labs","prompt":"say it","max_tokens":5})";
  EXPECT_EQ(by("secret", "/v1/completions", ask).status, 200);
  EXPECT_EQ(by("short", "/v1/completions", ask).status + by("short", "/v1/models/labs").status, 404 + 404);
  EXPECT_EQ((by("short", "/v1/models").body + by("short", "/metrics").body).find("labs"), std::string::npos);
  EXPECT_NE(by("secret", "/metrics").body.find("{deployment=\"labs\",status=\"200\"} 1\n"),
            std::string::npos);
  int served = 0;  // of 8 tokens
  while (served < 20 && by("short", "/v1/completions", kAsk).status == 200) ++served;
  EXPECT_TRUE(served > 0 && served < 20) << served;
  EXPECT_EQ(by("secret", "/v1/completions", kAsk).status, 200) << "the other key goes on";
}

TEST_F(GatewayTest, RefusesInTheWordsOfTheApi) {
  FakeReplica replica(FakeReplica::answer);
  deploy({replica.json("r1")});
  GatewayOptions small = options();
  small.max_body_bytes = 1000;
  start(small);
  auto with = [&](const std::string& path, const std::string& body, http::Headers headers) {
    http::Call c = call(path, body);
    c.headers = std::move(headers);
    return send(c);
  };
  const http::Headers good = {{"api-key", "secret"}};
  const std::string azure = "/openai/deployments/demo/chat/completions";
  const std::string chat = R"({"messages":[{"role":"user","content":"hi"}]})";
  http::Response response = with("/v1/completions", kAsk, {{"Authorization", "Bearer wrong"}});
  EXPECT_EQ(response.status, 401);
  EXPECT_EQ(code(response), "invalid_api_key");
  EXPECT_EQ(with("/v1/models", "", {}).status, 401);
  EXPECT_EQ(with(azure + "?api-version=2024-10-21", chat, {{"api-key", sha256_hex("secret")}}).status, 401);
  EXPECT_EQ(with(azure, chat, good).status, 404);
  EXPECT_EQ(code(with(azure + "?api-version=2000-01-01", chat, good)), "BadRequest");
  response = with("/openai/deployments/nothing/chat/completions?api-version=2024-10-21", chat, good);
  EXPECT_EQ(response.status, 404);
  EXPECT_EQ(code(response), "DeploymentNotFound");
  response = post(R"({"model":"nothing","prompt":"a"})");
  EXPECT_EQ(response.status, 404);
  EXPECT_EQ(code(response), "model_not_found");
  EXPECT_EQ(post("{").status, 400);
  response = post(R"({"model":"demo","prompt":")" + std::string(1500, 'a') + "\"}");
  EXPECT_EQ(response.status, 413);
  EXPECT_EQ(code(response), "request_too_large");
  response = post(R"({"model":"demo","prompt":"how to build a bomb"})");
  EXPECT_EQ(response.status, 400);
  EXPECT_EQ(code(response), "content_filter");
  EXPECT_EQ(get("/v1/models/nothing").status, 404);
  EXPECT_EQ(Json::parse(get("/v1/models").body)["data"][0]["id"], "demo");
  EXPECT_EQ(Json::parse(with("/openai/models?api-version=2024-10-21", "", good).body)["data"][0]["id"],
            "demo");
  EXPECT_EQ(replica.requests(), 0);
  EXPECT_TRUE(controller_.records().empty());
}

TEST_F(GatewayTest, AReplicasRefusalIsPassedOn) {
  FakeReplica replica([](const http::Request&, http::Responder responder) {
    responder.send({{"error",
                     {{"message", "too long"},
                      {"type", "invalid_request_error"},
                      {"param", nullptr},
                      {"code", "context_length_exceeded"}}}},
                   400);
  });
  deploy({replica.json("r1")});
  start();
  http::Response response = post();
  EXPECT_EQ(response.status, 400);
  EXPECT_EQ(code(response), "context_length_exceeded");
  EXPECT_EQ(replica.requests(), 1);
}

TEST_F(GatewayTest, WithoutAReplicaItIs503AtOnce) {
  deploy({});
  start();
  http::Response response = post();
  EXPECT_EQ(response.status, 503);
  EXPECT_EQ(code(response), "no_replica_ready");
  EXPECT_TRUE(response.header("retry-after").has_value());
}

TEST_F(GatewayTest, TokensAMinuteAreLimited) {
  FakeReplica replica(FakeReplica::answer);
  deploy({replica.json("r1")}, {{"tokens_per_minute", 12}});
  start();
  http::Response first = post();  // 2 + 5 estimated, 8 used
  EXPECT_EQ(first.status, 200);
  EXPECT_EQ(first.header("x-ratelimit-limit-tokens"), "12");
  EXPECT_EQ(first.header("x-ratelimit-remaining-tokens"), "5");
  http::Response second = post();
  EXPECT_EQ(second.status, 429);
  EXPECT_EQ(code(second), "rate_limit_exceeded");
  EXPECT_EQ(second.header("x-ratelimit-remaining-tokens"), "4");
  EXPECT_EQ(second.header("retry-after"), "15");  // 3 more tokens at 12 a minute
}

TEST_F(GatewayTest, RequestsInFlightAreLimited) {
  std::mutex mutex;
  std::vector<http::Responder> waiting;
  FakeReplica replica([&](const http::Request&, http::Responder responder) {
    std::lock_guard lock(mutex);
    waiting.push_back(std::move(responder));
  });
  deploy({replica.json("r1")});
  GatewayOptions small = options();
  small.max_in_flight_per_deployment = 2;
  start(small);
  std::vector<http::Response> answers(2);
  {
    std::vector<std::jthread> clients;
    for (auto& answer : answers) clients.emplace_back([&] { answer = post(); });
    ASSERT_TRUE(eventually([&] { return replica.requests() == 2; }));
    http::Response third = post();
    EXPECT_EQ(third.status, 429);
    EXPECT_EQ(third.header("retry-after"), "1");
    std::lock_guard lock(mutex);
    for (auto& responder : waiting) FakeReplica::answer({}, responder);
    waiting.clear();
  }
  for (auto& answer : answers) EXPECT_EQ(answer.status, 200);
}

TEST_F(GatewayTest, AReplicaThatDoesNotAnswerIsReplacedByAnother) {
  FakeReplica gone(FakeReplica::answer);
  gone.stop();
  FakeReplica dies([](const http::Request&, http::Responder responder) {
    http::Stream stream = responder.event_stream();
    stream.event(chunk("lost"));  // still in the filter's window: the client has seen nothing
    stream.close();
  });
  FakeReplica busy([](const http::Request&, http::Responder responder) {
    responder.fail({Code::kUnavailable, "loading"});
  });
  FakeReplica good(FakeReplica::answer);
  deploy({gone.json("r1"), dies.json("r2"), busy.json("r3"), good.json("r4")});
  start();
  for (const auto& ask : {kAsk, kAskStream}) {
    for (int i = 0; i < 4; ++i) {
      http::Response response = post(ask);
      EXPECT_EQ(response.status, 200);
      EXPECT_NE(response.body.find("beginning"), std::string::npos) << response.body;
      EXPECT_EQ(response.body.find("lost"), std::string::npos);
    }
  }
  EXPECT_GT(dies.requests() + busy.requests(), 0);
  ASSERT_TRUE(eventually([&] { return controller_.records().size() == 8; }));
}

TEST_F(GatewayTest, ARequestWaitsForItsOnlyReplicaToReturn) {
  FakeReplica replica(FakeReplica::answer);
  deploy({replica.json("r1")});
  start();
  replica.stop();
  http::Response response;
  {
    std::jthread client([&] { response = post(); });
    std::this_thread::sleep_for(300ms);
    replica.restart();
  }
  EXPECT_EQ(response.status, 200);
  replica.stop();
  response = post();
  EXPECT_EQ(response.status, 503);
  EXPECT_EQ(code(response), "no_replica_ready");
}

TEST_F(GatewayTest, AReplicaThatDiesInTheMiddleEndsTheStreamWithAnError) {
  FakeReplica replica([](const http::Request&, http::Responder responder) {
    http::Stream stream = responder.event_stream();
    for (int i = 0; i < 30; ++i) stream.event(chunk("and then he said "));
    stream.close();
  });
  FakeReplica other(FakeReplica::answer);
  deploy({replica.json("r1")});
  start();
  http::Response response = post(kAskStream);
  EXPECT_EQ(response.status, 200);
  EXPECT_NE(response.body.find("and then"), std::string::npos);
  EXPECT_NE(response.body.find(R"(data: {"error":{"message":)"), std::string::npos) << response.body;
  EXPECT_NE(response.body.find("replica_failed"), std::string::npos);
  EXPECT_EQ(response.body.find("[DONE]"), std::string::npos);
  EXPECT_EQ(replica.requests(), 1);
  Json record = only_record();
  EXPECT_EQ(record["status"], 502);
  EXPECT_EQ(record["completion_tokens"], 30);
}

TEST_F(GatewayTest, AClientThatLeavesStopsTheGenerationAndPaysForWhatCame) {
  for (bool streamed : {true, false}) {
    std::atomic<bool> cancelled = false;
    std::mutex mutex;
    std::optional<http::Stream> stream;
    FakeReplica replica([&](const http::Request&, http::Responder responder) {
      std::lock_guard lock(mutex);
      stream = responder.event_stream();
      stream->on_gone([&] { cancelled = true; });
      for (int i = 0; i < 20; ++i) stream->event(chunk("a text without an end "));
    });
    deploy({replica.json("r1")}, {{"content_filter", {{"level", "off"}}}});
    start();
    size_t before = controller_.records().size();
    {
      http::Client client;
      std::atomic<int> pieces = 0;
      auto handle = client.start(
          call("/v1/completions", streamed ? kAskStream : kAsk),
          {.on_head = {}, .on_data = [&](std::string_view) { return ++pieces > 0; }, .on_end = {}});
      ASSERT_TRUE(eventually([&] { return replica.requests() == 1 && (pieces > 0 || !streamed); }));
      std::this_thread::sleep_for(50ms);
      http::Client::cancel(handle);
      EXPECT_TRUE(eventually([&] { return cancelled.load(); })) << streamed;
    }
    ASSERT_TRUE(eventually([&] { return controller_.records().size() > before; }));
    Json record = controller_.records().back();
    EXPECT_EQ(record["status"], 499);
    EXPECT_EQ(record["completion_tokens"], 20) << streamed;
    EXPECT_EQ(record["prompt_tokens"], 2);
    gateway_.reset();
  }
}

TEST_F(GatewayTest, ABlockedCompletionIsCutOffAndItsGenerationStopped) {
  std::atomic<bool> cancelled = false;
  std::mutex mutex;
  std::optional<http::Stream> stream;
  FakeReplica replica([&](const http::Request&, http::Responder responder) {
    std::lock_guard lock(mutex);
    stream = responder.event_stream();
    stream->on_gone([&] { cancelled = true; });
    stream->event(chunk("Here is how to build "));
    stream->event(chunk("a bomb: "));
  });
  deploy({replica.json("r1")});
  start();
  http::Response response = post(kAskStream);
  EXPECT_EQ(response.body.find("how to"), std::string::npos) << response.body;
  EXPECT_NE(response.body.find(R"("finish_reason":"content_filter")"), std::string::npos);
  EXPECT_TRUE(response.body.ends_with("data: [DONE]\n\n"));
  EXPECT_TRUE(eventually([&] { return cancelled.load(); }));
  EXPECT_EQ(only_record()["completion_tokens"], 2);
}

TEST_F(GatewayTest, UsageIsCountedOnceThoughAnswersAreLostAndTheGatewayRestarts) {
  FakeReplica replica(FakeReplica::answer);
  deploy({replica.json("r1")});
  start();
  controller_.lose_answers(1000);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(post().status, 200);
  ASSERT_TRUE(eventually([&] { return controller_.records().size() == 3 && controller_.repeats() > 0; }));
  gateway_.reset();
  start();
  EXPECT_EQ(post().status, 200);
  controller_.lose_answers(0);
  ASSERT_TRUE(eventually([&] { return controller_.records().size() == 4; }));
  EXPECT_TRUE(gateway_->drain(kSecond));
  EXPECT_EQ(controller_.records().size(), 4u);
  std::vector<int64_t> seqs;
  for (const Json& record : controller_.records()) seqs.push_back(record["seq"]);
  EXPECT_EQ(seqs, (std::vector<int64_t>{1, 2, 3, 4}));
}

TEST_F(GatewayTest, AnswersWhileTheControllerIsAwayAlsoAfterARestart) {
  FakeReplica replica(FakeReplica::answer);
  deploy({replica.json("r1")});
  start();
  ASSERT_TRUE(eventually([&] { return std::filesystem::exists(dir_ / "gateway-config.json"); }));
  controller_.stop();
  EXPECT_EQ(post().status, 200);
  gateway_.reset();
  start();
  EXPECT_EQ(post().status, 200);
  EXPECT_FALSE(Json::parse(get("/health").body)["controller_up"].get<bool>());
  EXPECT_EQ(std::filesystem::status(dir_ / "gateway-config.json").permissions() & std::filesystem::perms::all,
            std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
  controller_.restart();
  ASSERT_TRUE(eventually([&] { return controller_.records().size() == 2; }));
  deploy({replica.json("r1")}, {{"name", "renamed"}});
  EXPECT_TRUE(eventually([&] { return code(post()) == "model_not_found"; }));
}

TEST_F(GatewayTest, DrainRefusesNewRequestsAndFinishesTheOthers) {
  std::atomic<bool> go = false;
  std::jthread slow;
  FakeReplica replica([&](const http::Request& request, http::Responder responder) {
    slow = std::jthread([&go, request, responder] {
      while (!go) std::this_thread::sleep_for(1ms);
      FakeReplica::answer(request, responder);
    });
  });
  deploy({replica.json("r1")});
  start();
  http::Response response;
  {
    std::jthread client([&] { response = post(); });
    ASSERT_TRUE(eventually([&] { return replica.requests() == 1; }));
    std::jthread drain([&] { EXPECT_TRUE(gateway_->drain(5 * kSecond)); });
    ASSERT_TRUE(eventually([&] { return get("/health").status == 503; }));
    EXPECT_EQ(code(post()), "draining");
    go = true;
  }
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(controller_.records().size(), 1u);
}

TEST_F(GatewayTest, BadStartsAreRefused) {
  deploy({});
  start();
  auto second = Gateway::start(options());
  ASSERT_FALSE(second.has_value());
  EXPECT_EQ(second.error().code, Code::kAlreadyExists);
  EXPECT_NE(second.error().message.find("another gateway"), std::string::npos) << second.error().message;

  GatewayOptions elsewhere = options();
  elsewhere.state_dir = dir_ / "other";
  elsewhere.port = gateway_->port();
  auto taken = Gateway::start(elsewhere);
  ASSERT_FALSE(taken.has_value());
  EXPECT_NE(taken.error().message.find(std::to_string(gateway_->port())), std::string::npos)
      << taken.error().message;

  elsewhere.port = 0;
  elsewhere.token_file = dir_ / "missing.token";
  auto without_token = Gateway::start(elsewhere);
  ASSERT_FALSE(without_token.has_value());
  EXPECT_EQ(without_token.error().code, Code::kFailedPrecondition);
  EXPECT_NE(without_token.error().message.find("missing.token"), std::string::npos)
      << without_token.error().message;
}

TEST_F(GatewayTest, TwoHundredClientsAtOnceAreAllAnswered) {
  FakeReplica a(FakeReplica::answer), b(FakeReplica::answer);
  deploy({a.json("r1"), b.json("r2")});
  start();
  http::Client client(1);
  std::atomic<int> good = 0, ended = 0;
  const int kClients = 200;
  std::vector<std::string> bodies(kClients);
  for (int i = 0; i < kClients; ++i) {
    std::string& body = bodies[static_cast<size_t>(i)];
    client.start(call("/v1/completions", i % 2 ? kAsk : kAskStream),
                 {.on_head = [&](int status, const http::Headers&) { good += status == 200; },
                  .on_data =
                      [&](std::string_view piece) {
                        body += piece;
                        return true;
                      },
                  .on_end = [&](Status) { ++ended; }});
  }
  ASSERT_TRUE(eventually([&] { return ended == kClients; }));
  EXPECT_EQ(good, kClients);
  for (const std::string& body : bodies) EXPECT_NE(body.find("beginning"), std::string::npos);
  EXPECT_GT(a.requests(), 50);
  EXPECT_GT(b.requests(), 50);
  ASSERT_TRUE(eventually([&] { return controller_.records().size() == kClients; }));
}

}  // namespace
}  // namespace th::gateway
