#pragma once
// Draws the next token of one sequence.

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/env.h"
#include "serve/generation.h"

namespace th::serve {

/// Holds the PRNG and the token counts of one sequence, so that what it draws depends on nothing else.
/// Penalties come first, then temperature, top_k, top_p; of equal logits the lower token id counts as the
/// more likely one. Thread: one owner.
class Sampler {
 public:
  explicit Sampler(const SamplingParams& params);
  /// logits (vocab), finite. One PRNG value a call, none at temperature 0. Cost: O(vocab), with top_p or
  /// top_k O(vocab + n log n), n the tokens that may be drawn.
  int32_t sample(std::span<const float> logits);

 private:
  struct Candidate {
    float weight;
    int32_t token;
  };
  static bool likelier(const Candidate& a, const Candidate& b);
  float adjusted(std::span<const float> logits, int32_t token) const;
  int32_t most_likely(std::span<const float> logits) const;
  int32_t draw(std::span<const float> logits);
  double cut();

  SamplingParams params_;
  Prng prng_;
  std::unordered_map<int32_t, int32_t> counts_;  // only looked up, never iterated
  std::vector<Candidate> candidates_;            // scratch
};

}  // namespace th::serve
