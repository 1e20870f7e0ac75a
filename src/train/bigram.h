#pragma once
// The model to beat: bigrams of tokens with interpolated Kneser-Ney smoothing.

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

namespace th::train {

/// P(w|v) = max(c(vw) - d, 0)/c(v) + d·N(v·)/c(v) · P1(w), with
/// P1(w)  = max(N(·w) - d, 0)/N(··) + d·N1/N(··) · 1/V,
/// c: counts, N(v·), N(·w), N(··): different bigrams that start with v, end with w, in all; N1: tokens that
/// end one; d = 0.75. After a v that was never seen, P1. Source: Chen & Goodman 1998, section 2.7.
class Bigram {
 public:
  Bigram(std::span<const int32_t> tokens, int32_t vocab_size);

  double probability(int32_t previous, int32_t token) const;
  /// Bits to tell tokens[1…], each from the one before it.
  double bits(std::span<const int32_t> tokens) const;

 private:
  double unigram(int32_t token) const;

  int32_t vocab_size_;
  std::unordered_map<uint64_t, int64_t> counts_;  // c(vw)
  std::vector<int64_t> starts_;                   // c(v)
  std::vector<int64_t> kinds_after_;              // N(v·)
  std::vector<int64_t> kinds_before_;             // N(·w)
  int64_t seen_ = 0;                              // N1
};

}  // namespace th::train
