#include "serve/openai.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace th::serve {
namespace {

ApiRequest parsed(Endpoint endpoint, std::string_view body) {
  auto request = parse_request(endpoint, body);
  EXPECT_TRUE(request) << (request ? "" : request.error().message);
  return request ? *request : ApiRequest{};
}

TEST(ParseRequest, CompletionWithAllFields) {
  const ApiRequest got = parsed(Endpoint::kCompletions, R"({
    "model": "m", "prompt": "In the", "max_tokens": 7, "temperature": 0.5, "top_p": 0.9, "top_k": 40, "n": 1,
    "stop": ["a", "b"], "seed": -3, "stream": true, "stream_options": {"include_usage": true},
    "frequency_penalty": 1, "presence_penalty": -1, "logprobs": null, "echo": false, "best_of": 1, "user": "u"})");
  EXPECT_EQ(std::get<std::string>(got.prompt), "In the");
  EXPECT_EQ(got.model, "m");
  EXPECT_EQ(got.max_tokens, 7);
  EXPECT_EQ(got.sampling.temperature, 0.5);
  EXPECT_EQ(got.sampling.top_p, 0.9);
  EXPECT_EQ(got.sampling.top_k, 40);
  EXPECT_EQ(got.sampling.frequency_penalty, 1);
  EXPECT_EQ(got.sampling.presence_penalty, -1);
  EXPECT_EQ(got.stop, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(got.seed, static_cast<uint64_t>(-3));
  EXPECT_TRUE(got.stream);
  EXPECT_TRUE(got.include_usage);
}

TEST(ParseRequest, DefaultsAreOpenAis) {
  const ApiRequest got =
      parsed(Endpoint::kCompletions, R"({"prompt": ["one"], "stop": null, "temperature": null})");
  EXPECT_EQ(std::get<std::string>(got.prompt), "one");
  EXPECT_EQ(got.sampling.temperature, 1);
  EXPECT_EQ(got.sampling.top_p, 1);
  EXPECT_FALSE(got.max_tokens);
  EXPECT_FALSE(got.seed);
  EXPECT_FALSE(got.stream);
  EXPECT_TRUE(got.stop.empty());
}

TEST(ParseRequest, PromptOfTokens) {
  const std::vector<int32_t> want = {1, 2, 3};
  EXPECT_EQ(std::get<std::vector<int32_t>>(parsed(Endpoint::kCompletions, R"({"prompt":[1,2,3]})").prompt),
            want);
  EXPECT_EQ(std::get<std::vector<int32_t>>(parsed(Endpoint::kCompletions, R"({"prompt":[[1,2,3]]})").prompt),
            want);
}

TEST(ParseRequest, ChatMessages) {
  const ApiRequest got = parsed(Endpoint::kChat, R"({"messages":[
    {"role":"system","content":"Be brief."},
    {"role":"user","content":[{"type":"text","text":"Hel"},{"type":"text","text":"lo"}]}],
    "max_completion_tokens": 9, "response_format": {"type":"text"}, "tools": []})");
  const auto messages = std::get<std::vector<ChatMessage>>(got.prompt);
  ASSERT_EQ(messages.size(), 2u);
  EXPECT_EQ(messages[0].role, "system");
  EXPECT_EQ(messages[1].content, "Hello");
  EXPECT_EQ(got.max_tokens, 9);
}

struct Bad {
  Endpoint endpoint;
  const char* body;
  const char* param;
  const char* code;
};

class BadRequest : public testing::TestWithParam<Bad> {};

TEST_P(BadRequest, NamesTheField) {
  const auto request = parse_request(GetParam().endpoint, GetParam().body);
  ASSERT_FALSE(request);
  EXPECT_EQ(request.error().status, 400);
  EXPECT_EQ(request.error().type, "invalid_request_error");
  EXPECT_EQ(request.error().param, GetParam().param);
  EXPECT_EQ(request.error().code, GetParam().code);
  EXPECT_NE(request.error().message.find(GetParam().param), std::string::npos) << request.error().message;
}

constexpr auto kText = Endpoint::kCompletions;
constexpr auto kChat = Endpoint::kChat;

INSTANTIATE_TEST_SUITE_P(
    All, BadRequest,
    testing::Values(
        Bad{kText, "", "", ""}, Bad{kText, "[1]", "", ""}, Bad{kText, R"({"prompt":"x")", "", ""},
        Bad{kText, "{}", "prompt", "missing_required_parameter"},
        Bad{kText, R"({"prompt":5})", "prompt", "invalid_type"},
        Bad{kText, R"({"prompt":["a","b"]})", "prompt", "unsupported_value"},
        Bad{kText, R"({"prompt":[]})", "prompt", "empty_array"},
        Bad{kText, R"({"prompt":[1,"b"]})", "prompt", "unsupported_value"},
        Bad{kText, R"({"prompt":[1.5]})", "prompt", "invalid_type"},
        Bad{kText, R"({"prompt":[-1]})", "prompt", "invalid_value"},
        Bad{kText, R"({"prompt":[4294967296]})", "prompt", "invalid_value"},
        Bad{kText, R"({"prompt":[18446744073709551615]})", "prompt", "invalid_value"},
        Bad{kText, R"({"prompt":"x","max_tokens":0})", "max_tokens", "invalid_value"},
        Bad{kText, R"({"prompt":"x","max_tokens":"7"})", "max_tokens", "invalid_type"},
        Bad{kText, R"({"prompt":"x","max_tokens":1e300})", "max_tokens", "invalid_type"},
        Bad{kText, R"({"prompt":"x","max_tokens":18446744073709551615})", "max_tokens", "invalid_value"},
        Bad{kText, R"({"prompt":"x","temperature":2.1})", "temperature", "invalid_value"},
        Bad{kText, R"({"prompt":"x","temperature":"hot"})", "temperature", "invalid_type"},
        Bad{kText, R"({"prompt":"x","top_p":-0.1})", "top_p", "invalid_value"},
        Bad{kText, R"({"prompt":"x","n":2})", "n", "unsupported_value"},
        Bad{kText, R"({"prompt":"x","best_of":3})", "best_of", "unsupported_value"},
        Bad{kText, R"({"prompt":"x","echo":true})", "echo", "unsupported_value"},
        Bad{kText, R"({"prompt":"x","suffix":"end"})", "suffix", "unsupported_value"},
        Bad{kText, R"({"prompt":"x","logprobs":1})", "logprobs", "unsupported_value"},
        Bad{kText, R"({"prompt":"x","logit_bias":{"5":1}})", "logit_bias", "unsupported_value"},
        Bad{kText, R"({"prompt":"x","stop":["a","b","c","d","e"]})", "stop", "array_above_max_length"},
        Bad{kText, R"({"prompt":"x","stop":""})", "stop", "invalid_value"},
        Bad{kText, R"({"prompt":"x","stop":[1]})", "stop", "invalid_type"},
        Bad{kText, R"({"prompt":"x","stream":1})", "stream", "invalid_type"},
        Bad{kText, R"({"prompt":"x","stream_options":{"include_usage":true}})", "stream_options",
            "invalid_value"},
        Bad{kText, R"({"prompt":"x","stream":true,"stream_options":{"x":1}})", "stream_options.x",
            "unknown_parameter"},
        Bad{kText, R"({"prompt":"x","temprature":1})", "temprature", "unknown_parameter"},
        Bad{kText, R"({"prompt":"x","messages":[]})", "messages", "unknown_parameter"},
        Bad{kText, R"({"prompt":"x","model":7})", "model", "invalid_type"},
        Bad{kText, R"({"prompt":"x","seed":0.5})", "seed", "invalid_type"},
        Bad{kChat, "{}", "messages", "missing_required_parameter"},
        Bad{kChat, R"({"messages":[]})", "messages", "empty_array"},
        Bad{kChat, R"({"messages":{"role":"user"}})", "messages", "invalid_type"},
        Bad{kChat, R"({"messages":["hi"]})", "messages[0]", "invalid_type"},
        Bad{kChat, R"({"messages":[{"role":"king","content":"x"}]})", "messages[0].role", "invalid_value"},
        Bad{kChat, R"({"messages":[{"role":"user"}]})", "messages[0].content", "missing_required_parameter"},
        Bad{kChat, R"({"messages":[{"role":"user","content":3}]})", "messages[0].content", "invalid_type"},
        Bad{kChat, R"({"messages":[{"role":"user","content":[{"type":"image_url"}]}]})",
            "messages[0].content", "unsupported_value"},
        Bad{kChat, R"({"messages":[{"role":"user","content":"x"}],"tools":[{}]})", "tools",
            "unsupported_value"},
        Bad{kChat, R"({"messages":[{"role":"user","content":"x"}],"response_format":{"type":"json_object"}})",
            "response_format", "unsupported_value"}));

TEST(AnswerWriter, Chunks) {
  const AnswerWriter text(Endpoint::kCompletions, "cmpl-1", 17, "m", true);
  EXPECT_EQ(
      text.text_chunk("hi"),
      R"({"id":"cmpl-1","object":"text_completion","created":17,"model":"m","choices":[{"text":"hi","index":0,)"
      R"("logprobs":null,"finish_reason":null}],"usage":null})");
  EXPECT_EQ(text.usage_chunk({3, 4}),
            R"({"id":"cmpl-1","object":"text_completion","created":17,"model":"m","choices":[],)"
            R"("usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}})");
  const AnswerWriter chat(Endpoint::kChat, "chatcmpl-1", 17, "m", false);
  EXPECT_EQ(
      chat.text_chunk("hi"),
      R"({"id":"chatcmpl-1","object":"chat.completion.chunk","created":17,"model":"m","choices":[{"index":0,)"
      R"("delta":{"content":"hi"},"logprobs":null,"finish_reason":null}]})");
  EXPECT_EQ(
      chat.finish_chunk(FinishReason::kLength),
      R"({"id":"chatcmpl-1","object":"chat.completion.chunk","created":17,"model":"m","choices":[{"index":0,)"
      R"("delta":{},"logprobs":null,"finish_reason":"length"}]})");
}

TEST(AnswerWriter, WholeChatAnswer) {
  const AnswerWriter chat(Endpoint::kChat, "chatcmpl-1", 17, "m", false);
  EXPECT_EQ(
      dump_json(chat.answer("hi", FinishReason::kStop, {3, 4})),
      R"({"id":"chatcmpl-1","object":"chat.completion","created":17,"model":"m","choices":[{"index":0,)"
      R"("message":{"role":"assistant","content":"hi","refusal":null},"logprobs":null,"finish_reason":"stop"}],)"
      R"("usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}})");
}

}  // namespace
}  // namespace th::serve
