#pragma once
// What a client asks the engine for, and what it gets back, as values.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"

namespace th::serve {

struct SamplingParams {
  double temperature = 1;        // 0: the most likely token, always
  double top_p = 1;              // (0, 1]: the smallest set of tokens that has at least this probability
  int64_t top_k = 0;             // 0: all tokens
  double frequency_penalty = 0;  // [-2, 2], times how often the completion has the token
  double presence_penalty = 0;   // [-2, 2], once if the completion has the token
  uint64_t seed = 0;             // same seed, prompt, params and model: same completion, whatever else runs
};

struct GenerationRequest {
  std::vector<int32_t> prompt;  // not empty, each in [0, vocab)
  int64_t max_tokens = 16;      // cut to what the context leaves after the prompt
  SamplingParams sampling;
  std::vector<std::string> stop;  // the completion ends before the first of these; none is empty
};

enum class FinishReason { kStop, kLength };

struct Usage {
  int64_t prompt_tokens = 0;
  int64_t completion_tokens = 0;  // sampled tokens, the end-of-text token not counted
};

/// One step of a completion. The texts of all deltas, joined, are the completion; each is valid UTF-8 by
/// itself.
struct Delta {
  std::string text;  // may be empty: a code point or a possible stop string is still incomplete
  std::optional<FinishReason> finish;  // set: the last delta
  std::optional<Error> error;          // set: the last delta; the engine stopped (kUnavailable)
  Usage usage;                         // so far
  bool last() const { return finish.has_value() || error.has_value(); }
};

/// Called on the engine's thread, in order, until a delta is last() or the generation was cancelled. Must not
/// block. Returns false to cancel.
using OnDelta = std::function<bool(const Delta&)>;

}  // namespace th::serve
