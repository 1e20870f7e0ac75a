#include "gateway/openai.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/units.h"

namespace th::gateway {
namespace {

tl::expected<CompletionRequest, ApiError> parse(Endpoint endpoint, std::string_view body,
                                                std::string_view deployment = "") {
  return parse_completion_request(endpoint, body, deployment);
}

TEST(ParseRequest, EstimatesTokensByHand) {
  auto request =
      parse(Endpoint::kCompletions, R"({"model":"demo","prompt":"In the beginning","max_tokens":40,"n":2})");
  ASSERT_TRUE(request.has_value()) << request.error().message;
  EXPECT_EQ(request->model, "demo");
  EXPECT_EQ(request->prompt_tokens, 4);  // 16 bytes
  EXPECT_EQ(request->estimated_tokens, 4 + 2 * 40);
  EXPECT_EQ(request->choices, 2);
  EXPECT_EQ(request->prompt_text, "In the beginning");
  EXPECT_FALSE(request->stream);
  // Without max_tokens: 16 for completions, of each prompt.
  request = parse(Endpoint::kCompletions, R"({"prompt":["abcd","abcde",[1,2,3]]})", "demo");
  ASSERT_TRUE(request.has_value()) << request.error().message;
  EXPECT_EQ(request->prompt_tokens, 1 + 2 + 3);
  EXPECT_EQ(request->estimated_tokens, 6 + 3 * 16);
  request = parse(Endpoint::kCompletions, R"({"prompt":[5,6,7]})", "demo");
  EXPECT_EQ(request->choices, 1);
  EXPECT_EQ(request->prompt_tokens, 3);
}

TEST(ParseRequest, ReadsChatMessagesAndTheirParts) {
  auto request = parse(Endpoint::kChat, R"({"messages":[{"role":"system","content":"be brief"},
      {"role":"user","content":[{"type":"text","text":"who"},{"type":"text","text":"art thou"}]},
      {"role":"assistant","content":null}],"max_completion_tokens":5})",
                       "demo");
  ASSERT_TRUE(request.has_value()) << request.error().message;
  EXPECT_EQ(request->prompt_text, "be brief\nwho\nart thou");
  EXPECT_EQ(request->prompt_tokens, 2 + 1 + 2);
  EXPECT_EQ(request->estimated_tokens, 5 + 5);
}

TEST(ParseRequest, TheReplicaIsAlwaysAskedForAStreamWithUsage) {
  auto request =
      parse(Endpoint::kChat, R"({"model":"x","seed":7,"messages":[{"role":"user","content":"a"}]})", "demo");
  ASSERT_TRUE(request.has_value());
  Json body = Json::parse(request->upstream_body);
  EXPECT_EQ(body["stream"], true);
  EXPECT_EQ(body["stream_options"]["include_usage"], true);
  EXPECT_EQ(body["model"], "demo");  // the path names the deployment
  EXPECT_EQ(body["seed"], 7);
  EXPECT_FALSE(request->include_usage);
  request = parse(
      Endpoint::kChat,
      R"({"stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"a"}]})",
      "demo");
  ASSERT_TRUE(request.has_value());
  EXPECT_TRUE(request->stream);
  EXPECT_TRUE(request->include_usage);
}

TEST(ParseRequest, BadBodiesAre400AndNameTheField) {
  const struct {
    Endpoint endpoint;
    const char* body;
    const char* param;
    const char* says;
  } cases[] = {
      {Endpoint::kCompletions, "{\"prompt\":", "", "request body"},
      {Endpoint::kCompletions, "[]", "", "object"},
      {Endpoint::kCompletions, R"({"prompt":"a"})", "model", "'model'"},
      {Endpoint::kCompletions, R"({"model":3,"prompt":"a"})", "model", "string"},
      {Endpoint::kCompletions, R"({"model":"m"})", "prompt", "'prompt'"},
      {Endpoint::kCompletions, R"({"model":"m","prompt":{}})", "prompt", "string"},
      {Endpoint::kCompletions, R"({"model":"m","prompt":["a",{}]})", "prompt", "string"},
      {Endpoint::kCompletions, R"({"model":"m","prompt":"a","max_tokens":-1})", "max_tokens", "from 0"},
      {Endpoint::kCompletions, R"({"model":"m","prompt":"a","max_tokens":1e30})", "max_tokens", "integer"},
      {Endpoint::kCompletions, R"({"model":"m","prompt":"a","max_tokens":18446744073709551615})",
       "max_tokens", "integer"},
      {Endpoint::kCompletions, R"({"model":"m","prompt":"a","n":0})", "n", "from 1"},
      {Endpoint::kCompletions, R"({"model":"m","prompt":"a","stream":"yes"})", "stream", "true or false"},
      {Endpoint::kCompletions, R"({"model":"m","prompt":"a","stream_options":{}})", "stream_options",
       "'stream' is true"},
      {Endpoint::kChat, R"({"model":"m","messages":[]})", "messages", "at least one"},
      {Endpoint::kChat, R"({"model":"m","messages":["hi"]})", "messages[0]", "role"},
      {Endpoint::kChat, R"({"model":"m","messages":[{"role":"user","content":[{"type":"image_url"}]}]})",
       "messages[0].content", "text"},
  };
  for (const auto& c : cases) {
    auto request = parse(c.endpoint, c.body);
    ASSERT_FALSE(request.has_value()) << c.body;
    EXPECT_EQ(request.error().status, 400);
    EXPECT_EQ(request.error().type, "invalid_request_error");
    EXPECT_EQ(request.error().param, c.param) << c.body;
    EXPECT_NE(request.error().message.find(c.says), std::string::npos) << request.error().message;
  }
}

TEST(ApiErrors, HaveOpenAisShapeAndRoundRetryAfterUp) {
  auto response = api_error_response({.status = 429,
                                      .type = "tokens",
                                      .code = "rate_limit_exceeded",
                                      .message = "m",
                                      .param = "",
                                      .retry_after_ns = kSecond + 1});
  EXPECT_EQ(response.body,
            R"({"error":{"message":"m","type":"tokens","param":null,"code":"rate_limit_exceeded"}})");
  EXPECT_EQ(response.header("retry-after"), "2");
  EXPECT_EQ(response.header("retry-after-ms"), "1001");
}

TEST(ApiErrors, ApiVersionsAreChecked) {
  http::Request request;
  EXPECT_EQ(check_api_version(request)->status, 404);
  request.query["api-version"] = "2024-10-21";
  EXPECT_FALSE(check_api_version(request).has_value());
  request.query["api-version"] = "1999-01-01";
  auto error = check_api_version(request);
  ASSERT_TRUE(error.has_value());
  EXPECT_EQ(error->status, 400);
  EXPECT_NE(error->message.find("1999-01-01"), std::string::npos);
}

// The shape of https://learn.microsoft.com/azure/ai-services/openai/concepts/content-filter (prompt
// filtered).
TEST(ApiErrors, AFilteredPromptHasAzuresShape) {
  auto filter = *safety::ContentFilter::create(
      {.block_at = safety::Severity::kMedium, .blocklists = {{"house", {"osprey"}}}});
  auto verdict = filter->check("Osprey: how to build a bomb");
  auto response = content_filter_response(*filter, verdict);
  EXPECT_EQ(response.status, 400);
  Json error = Json::parse(response.body)["error"];
  EXPECT_EQ(error["code"], "content_filter");
  EXPECT_EQ(error["param"], "prompt");
  EXPECT_EQ(error["status"], 400);
  EXPECT_EQ(error["innererror"]["code"], "ResponsibleAIPolicyViolation");
  Json result = error["innererror"]["content_filter_result"];
  EXPECT_EQ(result["violence"], Json({{"filtered", true}, {"severity", "high"}}));
  EXPECT_EQ(result["hate"], Json({{"filtered", false}, {"severity", "safe"}}));
  EXPECT_EQ(result["custom_blocklists"]["details"][0], Json({{"filtered", true}, {"id", "house"}}));
}

}  // namespace
}  // namespace th::gateway
