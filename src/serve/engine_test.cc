#include "serve/engine.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <future>
#include <mutex>
#include <thread>

#include "base/env.h"
#include "serve/test_model.h"

namespace th::serve {
namespace {

struct Outcome {
  std::string text;
  std::optional<FinishReason> finish;
  std::optional<Error> error;
  Usage usage;
  bool operator==(const Outcome& other) const {
    return text == other.text && finish == other.finish &&
           usage.completion_tokens == other.usage.completion_tokens;
  }
};

class Collected {
 public:
  OnDelta callback() {
    return [this](const Delta& delta) {
      outcome_.text += delta.text;
      outcome_.usage = delta.usage;
      if (!delta.last()) return true;
      outcome_.finish = delta.finish;
      outcome_.error = delta.error;
      done_.set_value();
      return true;
    };
  }
  Outcome wait() {
    auto future = done_.get_future();
    TH_CHECK(future.wait_for(std::chrono::seconds(60)) == std::future_status::ready);
    return outcome_;
  }

 private:
  Outcome outcome_;
  std::promise<void> done_;
};

// Blocks of the test model: 2 layers, keys and values, 16 rows of 16 floats.
constexpr int64_t kBlockBytes = 2 * 2 * 16 * 16 * 4;

std::unique_ptr<Engine> start(const TestModel& test, int64_t blocks, EngineOptions options = {}) {
  options.kv_memory_bytes = blocks * kBlockBytes;
  options.threads = 1;
  auto engine = Engine::start(options, test.folder);
  TH_CHECK(engine.has_value());
  return *std::move(engine);
}

GenerationRequest request_of(size_t prompt_tokens, int64_t max_tokens, uint64_t seed) {
  GenerationRequest request;
  Prng prng(seed + 100);
  for (size_t i = 0; i < prompt_tokens; ++i)
    request.prompt.push_back(4 + static_cast<int32_t>(prng.below(256)));
  request.max_tokens = max_tokens;
  request.sampling.seed = seed;
  return request;
}

Outcome run(Engine& engine, GenerationRequest request) {
  Collected collected;
  auto id = engine.submit(std::move(request), collected.callback());
  TH_CHECK(id.has_value());
  return collected.wait();
}

std::vector<Outcome> run_together(Engine& engine, const std::vector<GenerationRequest>& requests) {
  std::vector<std::unique_ptr<Collected>> collected;
  for (const GenerationRequest& request : requests) {
    collected.push_back(std::make_unique<Collected>());
    auto id = engine.submit(request, collected.back()->callback());
    TH_CHECK(id.has_value());
  }
  std::vector<Outcome> outcomes;
  for (auto& one : collected) outcomes.push_back(one->wait());
  return outcomes;
}

void wait_until(const std::function<bool()>& what) {
  for (int i = 0; i < 3000 && !what(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  ASSERT_TRUE(what());
}

TEST(Engine, GreedyCompletionIsTheArgmaxOfTheForward) {
  const TestModel test = make_test_model();
  auto engine = start(test, 64);
  GenerationRequest request = request_of(10, 12, 1);
  request.sampling.temperature = 0;

  // The same by hand: the whole text again for every token.
  std::vector<int32_t> tokens = request.prompt;
  std::string want;
  for (int i = 0; i < 12; ++i) {
    KvCache cache(test.folder->weights.kv_shape(), 4);
    Forward forward(test.folder->weights, {64, 1, 256});
    BlockTable table;
    ASSERT_TRUE(cache.grow(table, static_cast<int64_t>(tokens.size())));
    const SequencePiece piece{tokens, 0, &table, true};
    const auto logits = forward.run({&piece, 1}, cache);
    tokens.push_back(static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
    want += test.folder->tokenizer.token_bytes(tokens.back());
  }
  model::Utf8Stream utf8;
  want = utf8.push(want);
  want += utf8.finish();

  const Outcome got = run(*engine, request);
  EXPECT_EQ(got.text, want);
  EXPECT_EQ(got.finish, FinishReason::kLength);
  EXPECT_EQ(got.usage.prompt_tokens, 10);
  EXPECT_EQ(got.usage.completion_tokens, 12);
}

TEST(Engine, TogetherIsTheSameAsAlone) {
  const TestModel test = make_test_model();
  std::vector<GenerationRequest> requests;
  for (uint64_t i = 0; i < 24; ++i) {
    requests.push_back(request_of(1 + 7 * i % 90, static_cast<int64_t>(5 + i), i));
    if (i % 3 == 0) requests.back().sampling.temperature = 0;
    if (i % 3 == 1) requests.back().sampling.top_p = 0.9;
  }
  EngineOptions options;
  options.max_batch = 8;
  options.prefill_chunk = 32;
  auto engine = start(test, 200, options);
  const std::vector<Outcome> together = run_together(*engine, requests);
  for (size_t i = 0; i < requests.size(); ++i) EXPECT_EQ(run(*engine, requests[i]), together[i]) << i;
}

TEST(Engine, TwoHundredRequestsFinishInLittleMemoryAndPreemptionChangesNothing) {
  const TestModel test = make_test_model();
  std::vector<GenerationRequest> requests;
  for (uint64_t i = 0; i < 200; ++i) requests.push_back(request_of(1 + i % 40, 60, i));
  auto small = start(test, 12);
  const std::vector<Outcome> outcomes = run_together(*small, requests);
  EXPECT_GT(small->stats().preempted, 0);
  wait_until([&] { return !small->busy(); });
  EXPECT_EQ(small->stats().finished, 200);
  EXPECT_EQ(small->stats().blocks_used, 0);
  auto large = start(test, 1000);
  EXPECT_EQ(run_together(*large, requests), outcomes);
  EXPECT_EQ(large->stats().preempted, 0);
}

TEST(Engine, TheSeedDecides) {
  const TestModel test = make_test_model();
  auto engine = start(test, 64);
  const Outcome first = run(*engine, request_of(8, 40, 5));
  EXPECT_EQ(run(*engine, request_of(8, 40, 5)), first);
  GenerationRequest other = request_of(8, 40, 5);
  other.sampling.seed = 6;
  EXPECT_NE(run(*engine, other).text, first.text);
}

TEST(Engine, AStopStringEndsTheCompletionBeforeIt) {
  const TestModel test = make_test_model();
  auto engine = start(test, 64);
  GenerationRequest request = request_of(8, 60, 5);
  const std::string whole = run(*engine, request).text;
  // Two characters from the middle; every token is a byte, so they cross token borders.
  size_t at = whole.size() / 2;
  while ((static_cast<unsigned char>(whole[at]) & 0xC0) == 0x80) ++at;
  size_t end = at + 1;
  for (int more = 0; end < whole.size() && more < 2; ++end) {
    if ((static_cast<unsigned char>(whole[end]) & 0xC0) != 0x80) ++more;
  }
  request.stop = {whole.substr(at, end - 1 - at)};
  const Outcome got = run(*engine, request);
  EXPECT_EQ(got.text, whole.substr(0, whole.find(request.stop[0])));
  EXPECT_EQ(got.finish, FinishReason::kStop);
  EXPECT_LT(got.usage.completion_tokens, 60);
}

TEST(Engine, AnEndTokenEndsTheCompletionAndDoesNotCount) {
  TestModel test = make_test_model();
  GenerationRequest request = request_of(10, 200, 1);
  request.sampling.temperature = 0;
  {
    auto engine = start(test, 64);
    const std::string whole = run(*engine, request).text;
    ASSERT_GT(whole.size(), 3u);
  }
  // Every token ends: the completion is empty.
  for (int32_t token = 0; token < 260; ++token) test.folder->end_tokens.push_back(token);
  auto engine = start(test, 64);
  const Outcome got = run(*engine, request);
  EXPECT_EQ(got.text, "");
  EXPECT_EQ(got.finish, FinishReason::kStop);
  EXPECT_EQ(got.usage.completion_tokens, 0);
}

TEST(Engine, CancelFreesTheBlocksAndEndsTheCallbacks) {
  const TestModel test = make_test_model(4096);
  auto engine = start(test, 256);
  std::mutex mutex;
  std::condition_variable came;
  int deltas = 0;
  auto id = engine->submit(request_of(20, 4000, 1), [&](const Delta&) {
    const std::lock_guard lock(mutex);
    ++deltas;
    came.notify_one();
    return true;
  });
  ASSERT_TRUE(id);
  {
    std::unique_lock lock(mutex);
    ASSERT_TRUE(came.wait_for(lock, std::chrono::seconds(30), [&] { return deltas >= 3; }));
  }
  EXPECT_GT(engine->stats().blocks_used, 0);
  engine->cancel(*id);
  wait_until([&] { return !engine->busy(); });
  EXPECT_EQ(engine->stats().blocks_used, 0);
  EXPECT_EQ(engine->stats().cancelled, 1);
  EXPECT_LT(deltas, 4000);
}

TEST(Engine, ACallbackThatReturnsFalseCancels) {
  const TestModel test = make_test_model(4096);
  auto engine = start(test, 256);
  std::atomic<int> deltas = 0;
  ASSERT_TRUE(engine->submit(request_of(20, 4000, 1), [&](const Delta&) { return ++deltas < 2; }));
  wait_until([&] { return !engine->busy(); });
  EXPECT_EQ(deltas, 2);
  EXPECT_EQ(engine->stats().blocks_used, 0);
  EXPECT_EQ(engine->stats().cancelled, 1);
}

TEST(Engine, RefusesWhatItCannotDo) {
  const TestModel test = make_test_model();
  auto engine = start(test, 64);
  const auto refused = [&](GenerationRequest request) {
    const auto id = engine->submit(std::move(request), [](const Delta&) { return true; });
    return id ? std::string("accepted") : std::string(code_name(id.error().code)) + ": " + id.error().message;
  };
  EXPECT_EQ(refused(request_of(0, 1, 1)), "invalid_argument: the prompt has no tokens: send some text");
  EXPECT_NE(refused(request_of(256, 1, 1)).find("256 tokens"), std::string::npos);
  GenerationRequest unknown = request_of(1, 1, 1);
  unknown.prompt = {260};
  EXPECT_EQ(refused(unknown), "invalid_argument: token 260 of the prompt is not in [0, 260)");
  EXPECT_NE(refused(request_of(1, 0, 1)).find("max_tokens"), std::string::npos);
}

TEST(Engine, MaxTokensAreCutToTheContext) {
  const TestModel test = make_test_model(64);
  auto engine = start(test, 2);  // 32 tokens: less than the context
  EXPECT_EQ(engine->context_tokens(), 32);
  const Outcome got = run(*engine, request_of(20, 1000, 1));
  EXPECT_EQ(got.usage.completion_tokens, 12);
  EXPECT_EQ(got.finish, FinishReason::kLength);
}

TEST(Engine, TooManyWaitingAreRefused) {
  const TestModel test = make_test_model(4096);
  EngineOptions options;
  options.max_batch = 1;
  options.max_waiting = 2;
  auto engine = start(test, 256, options);
  int accepted = 0;
  std::optional<Error> error;
  for (int i = 0; i < 10; ++i) {
    const auto id = engine->submit(request_of(8, 4000, 1), [](const Delta&) { return true; });
    if (id) {
      ++accepted;
    } else {
      error = id.error();
    }
  }
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code, Code::kResourceExhausted);
  EXPECT_GE(accepted, 2);
  EXPECT_LE(accepted, 3);  // two wait, one may have started
}

TEST(Engine, TheEndTellsEveryoneUnderWay) {
  const TestModel test = make_test_model(4096);
  EngineOptions options;
  options.max_batch = 1;
  auto engine = start(test, 256, options);
  Collected running, waiting;
  ASSERT_TRUE(engine->submit(request_of(8, 4000, 1), running.callback()));
  ASSERT_TRUE(engine->submit(request_of(8, 4000, 2), waiting.callback()));
  engine.reset();
  for (Collected* one : {&running, &waiting}) {
    const Outcome outcome = one->wait();
    ASSERT_TRUE(outcome.error);
    EXPECT_EQ(outcome.error->code, Code::kUnavailable);
  }
}

TEST(Engine, TooLittleMemoryIsAnError) {
  const TestModel test = make_test_model();
  EngineOptions options;
  options.kv_memory_bytes = kBlockBytes - 1;
  const auto engine = Engine::start(options, test.folder);
  ASSERT_FALSE(engine);
  EXPECT_EQ(engine.error().code, Code::kInvalidArgument);
  EXPECT_NE(engine.error().message.find("at least"), std::string::npos);
}

}  // namespace
}  // namespace th::serve
