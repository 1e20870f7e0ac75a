#pragma once
// A text as tokens: the part to learn from and the part to measure on.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "model/tokenizer.h"

namespace th::train {

/// The text cut into blocks of 64 KiB; the last `validation_share` of each block is for validation, so that
/// both parts come from everywhere in the text. Cuts are moved to the end of a line.
struct SplitText {
  std::string train;
  std::string validation;
};
SplitText split_text(std::string_view text, double validation_share);

struct Dataset {
  std::vector<int32_t> train;
  std::vector<int32_t> validation;  // the first token is <|endoftext|>; all others are to be predicted
  int64_t validation_bytes = 0;
};
/// Errors: kInvalidArgument when either part has fewer than `seq`+1 tokens.
Result<Dataset> make_dataset(const SplitText& text, const model::Tokenizer& tokenizer, int64_t seq);

/// Which tokens sequence number `index` (counted over all ranks and steps) starts at. Every epoch visits each
/// stretch of `seq` tokens once, in an order of its own; the same seed gives the same order for any number of
/// ranks.
class SequenceOrder {
 public:
  SequenceOrder(int64_t num_tokens, int64_t seq, uint64_t seed);
  /// A start with start + seq < num_tokens. Cost: O(1), O(num_tokens / seq) at the first of an epoch.
  int64_t start_of(int64_t index);

 private:
  void shuffle(int64_t epoch);
  int64_t seq_;
  int64_t per_epoch_;
  int64_t slack_;  // tokens over; the epochs start at different ones
  uint64_t seed_;
  int64_t epoch_ = -1;
  int64_t phase_ = 0;
  std::vector<int64_t> order_;
};

}  // namespace th::train
