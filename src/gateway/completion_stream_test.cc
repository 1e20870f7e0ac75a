#include "gateway/completion_stream.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace th::gateway {
namespace {

std::shared_ptr<const safety::ContentFilter> filter(const char* level = "medium") {
  return *safety::ContentFilter::create({.block_at = *safety::parse_level(level), .blocklists = {}});
}

std::string text_chunk(const std::string& text, const char* finish = nullptr, int index = 0) {
  Json choice = {{"text", text}, {"index", index}, {"logprobs", nullptr}, {"finish_reason", nullptr}};
  if (finish != nullptr) choice["finish_reason"] = finish;
  return dump_json({{"id", "cmpl-1"},
                    {"object", "text_completion"},
                    {"created", 5},
                    {"choices", Json::array({choice})},
                    {"model", "m"},
                    {"usage", nullptr}});
}

std::string chat_chunk(const Json& delta, const char* finish = nullptr) {
  Json choice = {{"index", 0}, {"delta", delta}, {"finish_reason", nullptr}};
  if (finish != nullptr) choice["finish_reason"] = finish;
  return dump_json({{"id", "chat-1"},
                    {"object", "chat.completion.chunk"},
                    {"created", 5},
                    {"model", "m"},
                    {"choices", Json::array({choice})}});
}

const std::string kUsage =
    R"({"id":"cmpl-1","object":"text_completion","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":9,"total_tokens":12}})";

struct Session {
  CompletionStream stream;
  std::vector<Json> out;
  explicit Session(CompletionStream::Options options) : stream(std::move(options)) {}
  Status take(const std::string& data) { return stream.take(data, out); }
  std::string text(int index = 0) const {
    std::string all;
    for (const Json& chunk : out) {
      for (const Json& choice : chunk["choices"]) {
        if (choice["index"] == index && choice.contains("text")) all += choice["text"].get<std::string>();
      }
    }
    return all;
  }
};

TEST(CompletionStream, UsageIsKeptAndStrippedUnlessItWasAskedFor) {
  for (bool asked : {false, true}) {
    Session run({.pass_usage = asked, .filter = filter("off")});
    for (const auto& data :
         {text_chunk("In the"), text_chunk(" beginning", "length"), kUsage, std::string("[DONE]")}) {
      EXPECT_FALSE(run.stream.complete());
      ASSERT_TRUE(run.take(data).has_value());
    }
    EXPECT_TRUE(run.stream.complete());
    EXPECT_EQ(run.text(), "In the beginning");
    EXPECT_EQ(run.stream.usage().prompt_tokens, 3);
    EXPECT_EQ(run.stream.usage().completion_tokens, 9);
    ASSERT_EQ(run.out.size(), asked ? 3u : 2u);
    EXPECT_EQ(run.out[0].contains("usage"), asked);
    if (asked) {
      EXPECT_EQ(run.out[2], Json::parse(kUsage));
    }
  }
}

TEST(CompletionStream, WithoutUsageChunksWithTextAreCounted) {
  Session run({.endpoint = Endpoint::kChat, .prompt_tokens = 11, .filter = filter("off")});
  ASSERT_TRUE(run.take(chat_chunk({{"role", "assistant"}, {"content", ""}})).has_value());
  ASSERT_TRUE(run.take(chat_chunk({{"content", "a"}})).has_value());
  ASSERT_TRUE(run.take(chat_chunk({{"content", "b"}})).has_value());
  EXPECT_EQ(run.stream.usage().prompt_tokens, 11);
  EXPECT_EQ(run.stream.usage().completion_tokens, 2);
}

TEST(CompletionStream, FilteredTextIsHeldBackByTheWindowThenComesWhole) {
  Session run({.filter = filter()});
  std::string want;
  for (int i = 0; i < 40; ++i) {
    ASSERT_TRUE(run.take(text_chunk("word " + std::to_string(i) + " ")).has_value());
    want += "word " + std::to_string(i) + " ";
    EXPECT_LE(run.text().size(), want.size() > 64 ? want.size() - 64 : 0);
  }
  EXPECT_FALSE(run.text().empty());
  ASSERT_TRUE(run.take(text_chunk("end", "stop")).has_value());
  EXPECT_EQ(run.text(), want + "end");
}

TEST(CompletionStream, ABlockedPhraseIsNotShownAndEndsTheStream) {
  Session run({.pass_usage = true, .annotate = true, .prompt_tokens = 4, .filter = filter()});
  const std::vector<std::string> words = {
      std::string(80, 'x') + " ", "how ", "to ", "build ", "a ", "bomb", " at home"};
  size_t taken = 0;
  while (taken < words.size() && !run.stream.complete())
    ASSERT_TRUE(run.take(text_chunk(words[taken++])).has_value());
  EXPECT_EQ(taken, 7u);  // "bomb" might have gone on until the space came
  EXPECT_TRUE(run.stream.complete());
  EXPECT_EQ(run.text().find("how"), std::string::npos);
  const Json& end = run.out[run.out.size() - 2]["choices"][0];
  EXPECT_EQ(end["finish_reason"], "content_filter");
  EXPECT_EQ(end["content_filter_results"]["violence"], Json({{"filtered", true}, {"severity", "high"}}));
  EXPECT_EQ(run.out.back()["usage"],
            Json({{"prompt_tokens", 4}, {"completion_tokens", 7}, {"total_tokens", 11}}));
}

TEST(CompletionStream, OneBlockedChoiceDoesNotStopTheOther) {
  Session run({.choices = 2, .filter = filter()});
  ASSERT_TRUE(run.take(text_chunk("how to build a bomb.", nullptr, 1)).has_value());
  EXPECT_FALSE(run.stream.complete());
  ASSERT_TRUE(run.take(text_chunk(" more", nullptr, 1)).has_value());
  ASSERT_TRUE(run.take(text_chunk("peace", "stop", 0)).has_value());
  EXPECT_EQ(run.text(0), "peace");
  EXPECT_EQ(run.text(1), "");
  EXPECT_TRUE(run.stream.complete());
}

TEST(CompletionStream, AzureAnnotatesPromptAndChoices) {
  safety::Verdict prompt = filter()->check("he slew him");
  Session run({.annotate = true, .filter = filter(), .prompt_verdict = prompt});
  ASSERT_TRUE(run.take(text_chunk("and it was so.", "stop")).has_value());
  ASSERT_EQ(run.out.size(), 2u);
  EXPECT_TRUE(run.out[0]["choices"].empty());
  Json results = run.out[0]["prompt_filter_results"][0];
  EXPECT_EQ(results["prompt_index"], 0);
  EXPECT_EQ(results["content_filter_results"]["violence"], Json({{"filtered", false}, {"severity", "low"}}));
  EXPECT_EQ(run.out[1]["choices"][0]["content_filter_results"]["sexual"],
            Json({{"filtered", false}, {"severity", "safe"}}));
}

TEST(CompletionStream, WhatIsNotAChunkIsAnError) {
  const std::pair<std::string, Code> cases[] = {
      {"{", Code::kInvalidArgument},
      {"3", Code::kInternal},
      {"{}", Code::kInternal},
      {R"({"choices":[{"text":"a"}]})", Code::kInvalidArgument},
      {text_chunk("a", nullptr, 1), Code::kInternal},
      {R"({"choices":[],"usage":{"prompt_tokens":-1}})", Code::kInternal},
      {R"({"error":{"message":"out of memory"}})", Code::kUnavailable},
  };
  for (const auto& [data, code] : cases) {
    Session run({.filter = filter()});
    Status status = run.take(data);
    ASSERT_FALSE(status.has_value()) << data;
    EXPECT_EQ(status.error().code, code) << data;
    EXPECT_TRUE(run.out.empty());
  }
  Session run({.filter = filter()});
  ASSERT_TRUE(run.take(text_chunk("a")).has_value());
  EXPECT_FALSE(run.take("[DONE]").has_value());  // its last text never ended
}

TEST(Assembler, MakesTheAnswerOfARequestWithoutStream) {
  Assembler chat(Endpoint::kChat);
  chat.add(Json::parse(chat_chunk({{"role", "assistant"}, {"content", ""}})));
  chat.add(Json::parse(chat_chunk({{"content", "Let there "}})));
  chat.add(Json::parse(chat_chunk({{"content", "be light"}}, "stop")));
  EXPECT_EQ(
      chat.body({.prompt_tokens = 2, .completion_tokens = 4}),
      R"({"id":"chat-1","object":"chat.completion","created":5,"model":"m","choices":[{"index":0,)"
      R"("message":{"role":"assistant","content":"Let there be light","refusal":null},"logprobs":null,)"
      R"("finish_reason":"stop"}],"usage":{"prompt_tokens":2,"completion_tokens":4,"total_tokens":6}})");

  Assembler text(Endpoint::kCompletions);
  Json first = Json::parse(text_chunk("a")), second = Json::parse(text_chunk("b", "length"));
  first["choices"][0]["logprobs"] = {{"tokens", {"a"}}, {"token_logprobs", {-0.5}}};
  second["choices"][0]["logprobs"] = {{"tokens", {"b"}}, {"token_logprobs", {-1.5}}};
  text.add(first);
  text.add(second);
  Json body = Json::parse(text.body({.prompt_tokens = 1, .completion_tokens = 2}));
  EXPECT_EQ(body["object"], "text_completion");
  EXPECT_EQ(body["choices"][0]["text"], "ab");
  EXPECT_EQ(body["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(body["choices"][0]["logprobs"], Json({{"tokens", {"a", "b"}}, {"token_logprobs", {-0.5, -1.5}}}));
}

}  // namespace
}  // namespace th::gateway
