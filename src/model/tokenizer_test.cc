#include "model/tokenizer.h"

#include <gtest/gtest.h>

#include <chrono>
#include <nlohmann/json.hpp>

#include "base/env.h"
#include "base/files.h"
#include "model/bpe_trainer.h"
#include "model/pretokenizer.h"

namespace th::model {
namespace {

std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words;
  WordSplitter().split(text, [&](std::string_view word) { words.emplace_back(word); });
  return words;
}

Tokenizer tiny() { return train_bpe("low low low lower lowest newer newer", {.vocab_size = 270}).value(); }

TEST(WordSplitter, SplitsAsGpt2Does) {
  // Worked by hand from the pattern: a blank goes with the word behind it, of several blanks only the last.
  EXPECT_EQ(words_of("I've 2 cats,  not 10!\n"),
            (std::vector<std::string>{"I", "'ve", " 2", " cats", ",", " ", " not", " 10", "!", "\n"}));
  EXPECT_EQ(words_of("caf\u00e9 \u4e2d\u6587"), (std::vector<std::string>{"caf\u00e9", " \u4e2d\u6587"}));
}

TEST(WordSplitter, BytesThatAreNotUtf8AreAWord) {
  EXPECT_EQ(words_of("a\xff\xfe z"), (std::vector<std::string>{"a", "\xff\xfe", " z"}));
  EXPECT_EQ(words_of("\xe4\xb8"), (std::vector<std::string>{"\xe4\xb8"}));
}

TEST(Letters, AreThoseOfGpt2) {
  EXPECT_EQ(bytes_to_letters(" a\n"), "\u0120a\u010a");  // the well-known Ġ and Ċ
  for (int byte = 0; byte < 256; ++byte) {
    const std::string one(1, static_cast<char>(byte));
    EXPECT_EQ(letters_to_bytes(bytes_to_letters(one)), one);
  }
  EXPECT_EQ(letters_to_bytes("\u4e2d"), std::nullopt);
  EXPECT_EQ(letters_to_bytes("\xc4"), std::nullopt);
}

TEST(BpeTrainer, MergesTheMostFrequentPairFirst) {
  // Words: low, " low" x2, " lower", " lowest", " newer" x2. Pairs: (l,o) 5 and (o,w) 5; the lower pair of
  // ids is (l,o). Then (lo,w) 5; then ( ,low) 4; then (e,r) 3; and " newer", twice, needs 4 merges
  // more to be whole: 8 merges, 268 tokens.
  const Tokenizer tokenizer = tiny();
  EXPECT_EQ(tokenizer.token_bytes(260), "lo");
  EXPECT_EQ(tokenizer.token_bytes(261), "low");
  EXPECT_EQ(tokenizer.token_bytes(262), " low");
  EXPECT_EQ(tokenizer.token_bytes(263), "er");
  EXPECT_EQ(tokenizer.token_bytes(267), " newer");
  EXPECT_EQ(tokenizer.vocab_size(), 268);
  EXPECT_EQ(tokenizer.encode("low lower"), (std::vector<int32_t>{261, 262, 263}));
}

TEST(BpeTrainer, StopsWhenNoPairOccursTwice) {
  EXPECT_EQ(train_bpe("abc", {.vocab_size = 1000})->vocab_size(), 260);
  EXPECT_EQ(train_bpe("", {}).error().code, Code::kInvalidArgument);
  EXPECT_EQ(train_bpe("abc", {.vocab_size = 259}).error().code, Code::kInvalidArgument);
}

TEST(BpeTrainer, OverlappingPairs) {
  const Tokenizer tokenizer = train_bpe("aaaa aaaa aaaaa", {.vocab_size = 264}).value();
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("aaaaaaa aaa")), "aaaaaaa aaa");
}

TEST(Tokenizer, RoundTripsArbitraryBytes) {
  const Tokenizer tokenizer = tiny();
  Prng prng(7);
  for (int round = 0; round < 500; ++round) {
    std::string bytes;
    for (uint64_t size = prng.below(60); bytes.size() < size;) {
      if (prng.below(3) == 0) bytes += " lower";
      bytes += static_cast<char>(prng.below(256));
    }
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(bytes)), bytes);
  }
}

TEST(Tokenizer, LongWordsStayFast) {
  const Tokenizer tokenizer = tiny();
  const auto start = std::chrono::steady_clock::now();
  for (char c : {'e', ' ', '!', '\xff'}) {
    const std::string text(1 << 20, c);
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
  }
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
}

TEST(Tokenizer, JsonGivesTheSameTokenizer) {
  const Tokenizer tokenizer = tiny();
  const std::string json = tokenizer.to_json();
  const Tokenizer again = Tokenizer::from_json(json, "x").value();
  EXPECT_EQ(again.to_json(), json);
  EXPECT_EQ(again.encode("newer low\n\xff"), tokenizer.encode("newer low\n\xff"));
  EXPECT_EQ(again.special_id("<|end|>"), 3);
}

TEST(Tokenizer, SpecialTokensAreNotMadeFromUsersText) {
  const Tokenizer tokenizer = tiny();
  const std::string text = "low<|user|>low";
  EXPECT_EQ(tokenizer.encode_with_specials(text), (std::vector<int32_t>{261, 1, 261}));
  for (int32_t id : tokenizer.encode(text)) EXPECT_FALSE(tokenizer.is_special(id));
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
  EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{0, 261, 3}), "low");
  EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{-1, 261, 99999}), "\uFFFDlow\uFFFD");
}

TEST(Tokenizer, ReadsMergesAsPairs) {
  auto json = nlohmann::json::parse(tiny().to_json());
  for (auto& merge : json["model"]["merges"]) {
    const std::string text = merge;
    merge = {text.substr(0, text.find(' ')), text.substr(text.find(' ') + 1)};
  }
  EXPECT_EQ(Tokenizer::from_json(json.dump(), "x")->encode("lower"), tiny().encode("lower"));
}

TEST(Tokenizer, RefusesWhatItCannotDo) {
  const auto good = nlohmann::json::parse(tiny().to_json());
  auto error_of = [&](auto change) {
    auto json = good;
    change(json);
    auto result = Tokenizer::from_json(json.dump(), "t.json");
    EXPECT_FALSE(result.has_value());
    return result ? std::string() : result.error().message;
  };
  using J = nlohmann::json;
  EXPECT_EQ(error_of([](J& j) { j["model"]["type"] = "Unigram"; }), "t.json: model.type: want \"BPE\"");
  EXPECT_EQ(error_of([](J& j) {
              j["normalizer"] = {{"type", "NFC"}};
            }),
            "t.json: a normalizer is not supported");
  EXPECT_EQ(error_of([](J& j) { j["model"]["vocab"]["q"] = -1; }), "t.json: token id -1 is out of range");
  EXPECT_EQ(error_of([](J& j) { j["model"]["vocab"]["q"] = 5; }), "t.json: token id 5 is given twice");
  EXPECT_EQ(error_of([](J& j) { j["model"]["vocab"]["zz"] = 999; }),
            "t.json: no token has id 268; want ids without gaps");
  EXPECT_EQ(error_of([](J& j) { j["model"]["merges"].push_back("q \u4e2d"); }),
            "t.json: model.merges[8]: want two tokens of the vocabulary");
  EXPECT_EQ(error_of([](J& j) { j["model"]["merges"].push_back("q z"); }),
            "t.json: tokenizer: the result of merge 8 is not in the vocabulary");
  EXPECT_EQ(error_of([](J& j) { j["added_tokens"][0]["id"] = "0"; }),
            "t.json: added_tokens: want objects with a text 'content' and an integer 'id'");
  EXPECT_EQ(Tokenizer::from_json("{", "t.json").error().message, "t.json: not JSON");
}

TEST(Utf8Stream, NeverCutsASequence) {
  const std::string text = "a\u00e9\u4e2d\U0001F600z";
  Utf8Stream stream;
  std::string out;
  for (char c : text) {
    const std::string piece = stream.push(std::string(1, c));
    EXPECT_TRUE(piece.empty() || utf8_step(piece).length == piece.size());
    out += piece;
  }
  EXPECT_EQ(out + stream.finish(), text);
}

TEST(Utf8Stream, ReplacesWhatIsNeverValid) {
  // Unicode 15, table 3-8 (practice for U+FFFD): 61 F1 80 80 E1 80 C2 62 → a, three times U+FFFD, b.
  Utf8Stream stream;
  EXPECT_EQ(stream.push("a\xF1\x80\x80\xE1\x80\xC2"
                        "b"),
            "a\uFFFD\uFFFD\uFFFDb");
  EXPECT_EQ(stream.push("\xC0\xAF"), "\uFFFD\uFFFD");
  EXPECT_EQ(stream.push("\xE4\xB8"), "");
  EXPECT_EQ(stream.finish(), "\uFFFD");
  EXPECT_EQ(stream.finish(), "");
}

}  // namespace
}  // namespace th::model
