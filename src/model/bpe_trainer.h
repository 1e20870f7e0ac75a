#pragma once
// Learns a byte-level BPE tokenizer from text.

#include <cstdint>
#include <string_view>

#include "base/result.h"
#include "model/tokenizer.h"

namespace th::model {

struct BpeTrainOptions {
  int32_t vocab_size = 2048;  // with the 256 bytes and the 4 special tokens; at least 260
};

/// Ids 0–3 are the special tokens, 4–259 the bytes, then the merges, most frequent pair first (ties: the
/// lower pair of ids), so the same text gives the same tokenizer. Fewer tokens when no pair occurs twice.
/// Errors: kInvalidArgument (vocab_size out of 260 … 1,000,000; empty text). Cost: about 1 s for 4 MB and
/// 2,048 tokens.
Result<Tokenizer> train_bpe(std::string_view text, const BpeTrainOptions& options);

}  // namespace th::model
