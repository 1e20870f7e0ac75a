#include "serve/api.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <future>
#include <nlohmann/json.hpp>
#include <thread>

#include "http/client.h"
#include "serve/test_model.h"

namespace th::serve {
namespace {

class ApiTest : public testing::Test {
 protected:
  void SetUp() override {
    auto server = http::Server::start({.threads = 2}, api_.router());
    TH_CHECK(server.has_value());
    server_ = *std::move(server);
  }
  void make_ready(int64_t context = 256, EngineOptions options = {}) {
    const TestModel test = make_test_model(context);
    options.threads = 1;
    auto engine = Engine::start(options, test.folder);
    TH_CHECK(engine.has_value());
    engine_ = *std::move(engine);
    api_.ready(test.folder, engine_);
  }
  std::string url(const std::string& path) const {
    return fmt::format("http://127.0.0.1:{}{}", server_->port(), path);
  }
  http::Response get(const std::string& path) const {
    auto response = http::fetch({.url = url(path)});
    TH_CHECK(response.has_value());
    return *response;
  }
  http::Response post(const std::string& path, const std::string& body) const {
    auto response = http::fetch({.method = "POST", .url = url(path), .body = body});
    TH_CHECK(response.has_value());
    return *response;
  }
  static std::vector<std::string> events(const std::string& body) {
    http::EventReader reader;
    auto read = reader.feed(body);
    TH_CHECK(read.has_value());
    std::vector<std::string> data;
    for (const auto& event : *read) data.push_back(event.data);
    return data;
  }

  Api api_{"tiny"};
  std::unique_ptr<http::Server> server_;
  std::shared_ptr<Engine> engine_;
};

TEST_F(ApiTest, UnavailableUntilReady) {
  EXPECT_EQ(get("/health").status, 503);
  const http::Response refused = post("/v1/completions", R"({"prompt":"x"})");
  EXPECT_EQ(refused.status, 503);
  EXPECT_TRUE(refused.header("Retry-After"));
  make_ready();
  EXPECT_EQ(get("/health").status, 200);
  EXPECT_EQ(post("/v1/completions", R"({"prompt":"x"})").status, 200);
}

TEST_F(ApiTest, ACompletionWithUsage) {
  make_ready();
  const http::Response response =
      post("/v1/completions", R"({"model":"tiny","prompt":"abc","max_tokens":9,"seed":1})");
  ASSERT_EQ(response.status, 200) << response.body;
  const Json json = Json::parse(response.body);
  EXPECT_EQ(json["object"], "text_completion");
  EXPECT_EQ(json["model"], "tiny");
  EXPECT_EQ(json["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(json["usage"], Json::parse(R"({"prompt_tokens":3,"completion_tokens":9,"total_tokens":12})"));
}

TEST_F(ApiTest, StreamedTextIsTheWholeText) {
  make_ready();
  const std::string fields = R"("messages":[{"role":"user","content":"abc"}],"max_tokens":50,"seed":4)";
  const Json whole = Json::parse(post("/v1/chat/completions", "{" + fields + "}").body);
  const http::Response streamed = post(
      "/v1/chat/completions", "{" + fields + R"(,"stream":true,"stream_options":{"include_usage":true}})");
  ASSERT_EQ(streamed.status, 200);
  EXPECT_EQ(streamed.header("Content-Type"), "text/event-stream");
  const std::vector<std::string> data = events(streamed.body);
  ASSERT_GE(data.size(), 4u);
  EXPECT_EQ(data.back(), "[DONE]");
  EXPECT_EQ(Json::parse(data.front())["choices"][0]["delta"]["role"], "assistant");
  const Json last = Json::parse(data[data.size() - 2]);
  EXPECT_EQ(last["choices"], Json::array());
  EXPECT_EQ(last["usage"], whole["usage"]);
  EXPECT_EQ(last["usage"]["completion_tokens"], 50);
  std::string text;
  for (size_t i = 1; i + 3 < data.size(); ++i) {
    const Json chunk = Json::parse(data[i]);
    EXPECT_EQ(chunk["object"], "chat.completion.chunk");
    EXPECT_TRUE(chunk["usage"].is_null());
    text += chunk["choices"][0]["delta"]["content"].get<std::string>();
  }
  EXPECT_EQ(text, whole["choices"][0]["message"]["content"]);
  EXPECT_EQ(Json::parse(data[data.size() - 3])["choices"][0]["finish_reason"], "length");
}

TEST_F(ApiTest, RefusalsHaveOpenAisShape) {
  make_ready(32);
  const auto refused = [&](const std::string& body) {
    const http::Response response = post("/v1/completions", body);
    const Json error = Json::parse(response.body)["error"];
    EXPECT_EQ(error.size(), 4u) << response.body;
    return fmt::format("{} {} {}", response.status, error["code"].dump(), error["param"].dump());
  };
  EXPECT_EQ(refused("{"), "400 null null");
  EXPECT_EQ(refused(R"({"prompt":"x","n":2})"), R"(400 "unsupported_value" "n")");
  EXPECT_EQ(refused(R"({"prompt":"x","model":"other"})"), R"(404 "model_not_found" "model")");
  EXPECT_EQ(refused(R"({"prompt":")" + std::string(32, 'x') + R"("})"),
            R"(400 "context_length_exceeded" "prompt")");
  EXPECT_EQ(refused(R"({"prompt":[260]})"), R"(400 "invalid_value" "prompt")");
}

TEST_F(ApiTest, AFullQueueSaysWhenToRetry) {
  EngineOptions options;
  options.max_batch = 1;
  options.max_waiting = 1;
  make_ready(100000, options);
  GenerationRequest endless;
  endless.prompt = {5};
  endless.max_tokens = 90000;
  const OnDelta go_on = [](const Delta&) { return true; };
  const auto running = engine_->submit(endless, go_on);
  ASSERT_TRUE(running);
  while (engine_->stats().running == 0) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  const auto waiting = engine_->submit(endless, go_on);
  ASSERT_TRUE(waiting);
  const http::Response refused = post("/v1/completions", R"({"prompt":"x"})");
  engine_->cancel(*running);
  engine_->cancel(*waiting);
  EXPECT_EQ(refused.status, 429);
  EXPECT_TRUE(refused.header("Retry-After"));
  EXPECT_EQ(Json::parse(refused.body)["error"]["code"], "engine_overloaded");
}

TEST_F(ApiTest, AClientThatGoesAwayStopsItsGeneration) {
  make_ready(100000);
  for (const char* stream : {"true", "false"}) {
    http::Client client;
    std::promise<void> ended;
    auto handle =
        client.start({.method = "POST",
                      .url = url("/v1/completions"),
                      .body = fmt::format(R"({{"prompt":"x","max_tokens":90000,"stream":{}}})", stream)},
                     {.on_head = [](int, const http::Headers&) {},
                      .on_data = [](std::string_view) { return true; },
                      .on_end = [&](const Status&) { ended.set_value(); }});
    while (engine_->stats().running == 0) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    http::Client::cancel(handle);
    ended.get_future().wait();
    for (int i = 0; i < 1000 && engine_->busy(); ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    EXPECT_FALSE(engine_->busy()) << stream;
    EXPECT_EQ(engine_->stats().blocks_used, 0);
  }
  EXPECT_EQ(engine_->stats().cancelled, 2);
}

TEST_F(ApiTest, DrainRefusesTheNewAndCutsOffTheRest) {
  make_ready(100000);
  auto answer = std::async(std::launch::async, [&] {
    return post("/v1/completions", R"({"prompt":"x","max_tokens":90000,"stream":true})");
  });
  while (engine_->stats().running == 0) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  engine_.reset();
  api_.drain(50'000'000);
  EXPECT_EQ(get("/health").status, 503);
  EXPECT_EQ(post("/v1/completions", R"({"prompt":"x"})").status, 503);
  const std::vector<std::string> data = events(answer.get().body);
  ASSERT_FALSE(data.empty());
  EXPECT_EQ(Json::parse(data.back())["error"]["type"], "server_error");
}

TEST_F(ApiTest, ModelsAndMetrics) {
  make_ready();
  ASSERT_EQ(post("/v1/completions", R"({"prompt":"abc","max_tokens":9})").status, 200);
  EXPECT_EQ(Json::parse(get("/v1/models").body)["data"][0]["id"], "tiny");
  EXPECT_EQ(get("/v1/models/tiny").status, 200);
  EXPECT_EQ(get("/v1/models/other").status, 404);
  for (int i = 0; i < 500 && engine_->busy(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  const std::string text = get("/metrics").body;
  EXPECT_NE(text.find("\nth_serve_completion_tokens_total 9\n"), std::string::npos) << text;
  EXPECT_NE(text.find("# TYPE th_serve_ready gauge\nth_serve_ready 1\n"), std::string::npos);
}

}  // namespace
}  // namespace th::serve
