#include "model/bpe_trainer.h"

#include <fmt/format.h>

#include <map>
#include <queue>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "model/pretokenizer.h"

namespace th::model {
namespace {

constexpr int32_t kFirstByte = 4;  // after the special tokens
constexpr int32_t kMinVocab = kFirstByte + 256;
constexpr int32_t kMaxVocab = 1'000'000;

using Pair = std::pair<int32_t, int32_t>;

struct PairHash {
  size_t operator()(const Pair& pair) const {
    return std::hash<uint64_t>()((static_cast<uint64_t>(pair.first) << 32) |
                                 static_cast<uint32_t>(pair.second));
  }
};

struct Word {
  std::vector<int32_t> symbols;
  int64_t count;
};

struct PairStat {
  int64_t count = 0;
  std::vector<uint32_t> words;  // in which it occurs, or did; one may stand several times
};

struct Entry {
  int64_t count;
  Pair pair;
  bool operator<(const Entry& other) const {
    return count != other.count ? count < other.count : pair > other.pair;
  }
};

/// Counts of neighbouring pairs, kept up to date merge by merge: a merge touches only the words that have the
/// pair.
class Trainer {
 public:
  explicit Trainer(std::string_view text) {
    std::map<std::string_view, int64_t> counts;  // ordered, so that ids do not depend on a hash
    WordSplitter().split(text, [&](std::string_view word) { ++counts[word]; });
    for (const auto& [text_of_word, count] : counts) {
      Word word{{}, count};
      for (char c : text_of_word) word.symbols.push_back(kFirstByte + static_cast<unsigned char>(c));
      words_.push_back(std::move(word));
    }
    for (uint32_t i = 0; i < words_.size(); ++i) {
      const auto& symbols = words_[i].symbols;
      for (size_t k = 0; k + 1 < symbols.size(); ++k) add({symbols[k], symbols[k + 1]}, words_[i].count, i);
    }
    for (const auto& [pair, stat] : stats_) queue_.push({stat.count, pair});
  }

  /// The most frequent pair that occurs at least twice; false when there is none.
  bool best(Pair& pair) {
    while (!queue_.empty()) {
      const Entry top = queue_.top();
      const int64_t count = stats_[top.pair].count;
      if (count == top.count) {
        pair = top.pair;
        return count >= 2;
      }
      queue_.pop();
      if (count > 0) queue_.push({count, top.pair});
    }
    return false;
  }

  void merge(Pair pair, int32_t result) {
    PairStat stat = std::move(stats_[pair]);
    stats_.erase(pair);
    for (uint32_t index : stat.words) merge_in_word(index, pair, result);
    for (const Pair& changed : grown_) queue_.push({stats_[changed].count, changed});
    grown_.clear();
  }

 private:
  void add(Pair pair, int64_t count, uint32_t word) {
    PairStat& stat = stats_[pair];
    stat.count += count;
    stat.words.push_back(word);
  }

  void merge_in_word(uint32_t index, Pair pair, int32_t result) {
    Word& word = words_[index];
    std::vector<int32_t> merged;
    for (size_t i = 0; i < word.symbols.size();) {
      const bool hit = i + 1 < word.symbols.size() && Pair(word.symbols[i], word.symbols[i + 1]) == pair;
      merged.push_back(hit ? result : word.symbols[i]);
      i += hit ? 2 : 1;
    }
    if (merged.size() == word.symbols.size()) return;  // an earlier entry of the same word did it
    for (size_t i = 0; i + 1 < word.symbols.size(); ++i) {
      const Pair old(word.symbols[i], word.symbols[i + 1]);
      if (old != pair) stats_[old].count -= word.count;
    }
    for (size_t i = 0; i + 1 < merged.size(); ++i) {
      const Pair now(merged[i], merged[i + 1]);
      add(now, word.count, index);
      if (now.first == result || now.second == result) grown_.push_back(now);
    }
    word.symbols = std::move(merged);
  }

  std::vector<Word> words_;
  std::unordered_map<Pair, PairStat, PairHash> stats_;
  std::priority_queue<Entry> queue_;
  std::vector<Pair> grown_;
};

}  // namespace

Result<Tokenizer> train_bpe(std::string_view text, const BpeTrainOptions& options) {
  if (options.vocab_size < kMinVocab || options.vocab_size > kMaxVocab) {
    return fail(Code::kInvalidArgument,
                fmt::format("vocab_size: want {} … {}, got {}", kMinVocab, kMaxVocab, options.vocab_size));
  }
  if (text.empty()) return fail(Code::kInvalidArgument, "a tokenizer cannot be trained on an empty text");
  TokenizerParts parts;
  for (std::string_view special : {kEndOfText, kUserToken, kAssistantToken, kEndToken}) {
    parts.specials.push_back(static_cast<int32_t>(parts.tokens.size()));
    parts.tokens.emplace_back(special);
  }
  for (int byte = 0; byte < 256; ++byte) parts.tokens.emplace_back(1, static_cast<char>(byte));
  std::unordered_map<std::string, int32_t> known;
  Trainer trainer(text);
  Pair pair;
  while (static_cast<int32_t>(parts.tokens.size()) < options.vocab_size && trainer.best(pair)) {
    const std::string token = parts.tokens[pair.first] + parts.tokens[pair.second];
    const auto next = static_cast<int32_t>(parts.tokens.size());
    auto [found, is_new] = known.emplace(token, next);  // two merges may lead to the same bytes
    if (is_new) parts.tokens.push_back(token);
    parts.merges.push_back(pair);
    trainer.merge(pair, found->second);
  }
  return Tokenizer::from_parts(std::move(parts));
}

}  // namespace th::model
