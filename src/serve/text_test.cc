#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "serve/sampler.h"
#include "serve/text_stream.h"

namespace th::serve {
namespace {

// Feeds `text` in pieces of `piece` bytes; what came out, joined. Every piece that comes out must be whole
// code points.
std::string stream(const std::string& text, size_t piece, std::vector<std::string> stop,
                   bool* stopped = nullptr) {
  TextStream out(std::move(stop));
  std::string joined;
  const auto take = [&](const std::string& part) {
    EXPECT_TRUE(part.empty() || (static_cast<unsigned char>(part.front()) & 0xC0) != 0x80)
        << "split code point";
    joined += part;
  };
  for (size_t at = 0; at < text.size(); at += piece) take(out.push(text.substr(at, piece)));
  take(out.finish());
  if (stopped != nullptr) *stopped = out.stopped();
  return joined;
}

TEST(TextStream, NeverSplitsACodePoint) {
  const std::string text = "aé€😀z";
  for (size_t piece = 1; piece <= text.size(); ++piece) EXPECT_EQ(stream(text, piece, {}), text);
}

TEST(TextStream, WhatIsNotUtf8BecomesReplacementCharacters) {
  EXPECT_EQ(stream("a\xFFz", 1, {}), "a\xEF\xBF\xBDz");
  EXPECT_EQ(stream("a\xE2\x82", 1, {}), "a\xEF\xBF\xBD");  // cut off at the end: one part
}

TEST(TextStream, StopsBeforeTheFirstStopStringWhateverTheBorders) {
  bool stopped = false;
  for (size_t piece = 1; piece <= 12; ++piece) {
    EXPECT_EQ(stream("one two END three", piece, {"END"}, &stopped), "one two ");
    EXPECT_TRUE(stopped);
    EXPECT_EQ(stream("one twoEND", piece, {"END", "two"}, &stopped), "one ");
    EXPECT_EQ(stream("EN EEN", piece, {"END"}, &stopped), "EN EEN");
    EXPECT_FALSE(stopped);
    EXPECT_EQ(stream("aab", piece, {"ab"}, &stopped), "a");  // the match begins inside a failed one
    EXPECT_EQ(stream("préfix€", piece, {"€"}, &stopped), "préfix");
  }
}

TEST(TextStream, HoldsBackOnlyWhatMayBecomeAStopString) {
  TextStream out({"\n\nUser"});
  EXPECT_EQ(out.push("hello\n"), "hello");
  EXPECT_EQ(out.push("x"), "\nx");
  EXPECT_EQ(out.push("\n\nUse"), "");
  EXPECT_EQ(out.push("d"), "\n\nUsed");
}

TEST(Sampler, TemperatureZeroTakesTheMostLikelyAndTheLowerIdOfEquals) {
  SamplingParams params;
  params.temperature = 0;
  EXPECT_EQ(Sampler(params).sample(std::vector<float>{1, 5, 5, 2}), 1);
}

// Shares of the tokens over many draws.
std::map<int32_t, double> shares(SamplingParams params, const std::vector<float>& logits) {
  constexpr int kDraws = 20000;
  params.seed = 11;
  Sampler sampler(params);
  std::map<int32_t, double> out;
  for (int i = 0; i < kDraws; ++i) out[sampler.sample(logits)] += 1.0 / kDraws;
  return out;
}

const std::vector<float> kLogits = {std::log(0.1f), std::log(0.4f), std::log(0.2f), std::log(0.3f)};

TEST(Sampler, DrawsByTheSoftmaxOfTheLogits) {
  auto got = shares({}, kLogits);
  // 20000 draws: four standard deviations are below 0.014.
  EXPECT_NEAR(got[0], 0.1, 0.014);
  EXPECT_NEAR(got[1], 0.4, 0.014);
  EXPECT_NEAR(got[2], 0.2, 0.014);
  EXPECT_NEAR(got[3], 0.3, 0.014);
}

TEST(Sampler, TemperatureSharpens) {
  SamplingParams params;
  params.temperature = 0.5;  // probabilities go with their squares: 1, 16, 4, 9 of 30
  auto got = shares(params, kLogits);
  EXPECT_NEAR(got[1], 16.0 / 30, 0.015);
  EXPECT_NEAR(got[0], 1.0 / 30, 0.015);
}

TEST(Sampler, TopKAndTopPLeaveTheLikeliest) {
  SamplingParams top_k;
  top_k.top_k = 2;
  auto got = shares(top_k, kLogits);
  EXPECT_EQ(got.size(), 2u);
  EXPECT_NEAR(got[1], 4.0 / 7, 0.015);

  SamplingParams top_p;
  top_p.top_p = 0.65;  // 0.4 + 0.3 reaches it
  got = shares(top_p, kLogits);
  EXPECT_EQ(got.size(), 2u);
  EXPECT_NEAR(got[3], 3.0 / 7, 0.015);

  top_p.top_p = 0;  // always the likeliest
  EXPECT_EQ(shares(top_p, kLogits).size(), 1u);
}

TEST(Sampler, TopPOverManyTokensKeepsTheirOrder) {
  // 1000 tokens of falling probability 2^-i/10: half of the mass lies in the first 10.
  std::vector<float> logits(1000);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = -std::log(2.0f) * static_cast<float>(i) / 10;
  SamplingParams params;
  params.top_p = 0.4999;
  const auto got = shares(params, logits);
  EXPECT_EQ(got.size(), 10u);
  EXPECT_EQ(got.rbegin()->first, 9);
}

TEST(Sampler, PenaltiesCountWhatWasDrawn) {
  SamplingParams params;
  params.temperature = 0;
  params.frequency_penalty = 1;
  Sampler sampler(params);
  const std::vector<float> logits = {3.0f, 1.5f, 0};
  EXPECT_EQ(sampler.sample(logits), 0);  // 3
  EXPECT_EQ(sampler.sample(logits), 0);  // 2
  EXPECT_EQ(sampler.sample(logits), 1);  // 1 against 1.5
}

TEST(Sampler, SurvivesLogitsThatAreNotFinite) {
  const float nan = std::nanf("");
  EXPECT_EQ(Sampler({}).sample(std::vector<float>{nan, nan}), 0);
  EXPECT_EQ(Sampler({}).sample(std::vector<float>{0, INFINITY}), 1);
}

}  // namespace
}  // namespace th::serve
