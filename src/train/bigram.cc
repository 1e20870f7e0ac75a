#include "train/bigram.h"

#include <algorithm>
#include <cmath>

namespace th::train {
namespace {

constexpr double kDiscount = 0.75;

uint64_t key_of(int32_t previous, int32_t token) {
  return (static_cast<uint64_t>(static_cast<uint32_t>(previous)) << 32) | static_cast<uint32_t>(token);
}

}  // namespace

Bigram::Bigram(std::span<const int32_t> tokens, int32_t vocab_size)
    : vocab_size_(vocab_size), starts_(vocab_size), kinds_after_(vocab_size), kinds_before_(vocab_size) {
  for (size_t i = 1; i < tokens.size(); ++i) {
    const int32_t previous = tokens[i - 1], token = tokens[i];
    ++starts_[previous];
    if (++counts_[key_of(previous, token)] == 1) {
      ++kinds_after_[previous];
      if (++kinds_before_[token] == 1) ++seen_;
    }
  }
}

double Bigram::unigram(int32_t token) const {
  const double uniform = 1.0 / vocab_size_, kinds = static_cast<double>(counts_.size());
  if (kinds == 0) return uniform;
  return std::max(static_cast<double>(kinds_before_[token]) - kDiscount, 0.0) / kinds +
         kDiscount * static_cast<double>(seen_) / kinds * uniform;
}

double Bigram::probability(int32_t previous, int32_t token) const {
  if (starts_[previous] == 0) return unigram(token);
  auto found = counts_.find(key_of(previous, token));
  const double count = found == counts_.end() ? 0 : static_cast<double>(found->second);
  const auto starts = static_cast<double>(starts_[previous]);
  return std::max(count - kDiscount, 0.0) / starts +
         kDiscount * static_cast<double>(kinds_after_[previous]) / starts * unigram(token);
}

double Bigram::bits(std::span<const int32_t> tokens) const {
  double bits = 0;
  for (size_t i = 1; i < tokens.size(); ++i) bits -= std::log2(probability(tokens[i - 1], tokens[i]));
  return bits;
}

}  // namespace th::train
