#pragma once
// Makes the folder of a data set: documents, tokenised once (docs/data.md).

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string_view>

#include "base/json.h"
#include "base/result.h"
#include "train/documents.h"

namespace th::train {

struct TokenizeOptions {
  SourceOptions source;
  std::filesystem::path out;        // made; must not hold a data set yet
  std::filesystem::path tokenizer;  // see model::Tokenizer::load; empty: a byte-level BPE is learned
  int32_t vocab_size = 8192;        // of one that is learned
  double validation_share = 0.02;
  /// What is being done, and how much of the bytes of all.
  std::function<void(std::string_view what, int64_t done, int64_t of)> progress;
};

/// Writes train.tokens, validation.tokens, the tokenizer, and last dataset.json, which it returns. Each
/// document begins with the end-of-text token. The same source and options give the same bytes. A tokenizer
/// is learned from 32 MiB of the training part at most. Memory: a few MiB beside that. Errors:
/// kInvalidArgument (no documents; a tokenizer without an end of text), kAlreadyExists, those of reading and
/// writing.
Result<Json> tokenize(const TokenizeOptions& options);

}  // namespace th::train
