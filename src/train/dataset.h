#pragma once
// Tokens to learn from and tokens to measure on, of a text or of a data set.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "model/tokenizer.h"
#include "train/token_file.h"

namespace th::train {

/// The text cut into blocks of 64 KiB; the last `validation_share` of each block is for validation, so that
/// both parts come from everywhere in the text. Cuts are moved to the end of a line.
struct SplitText {
  std::string train;
  std::string validation;
};
SplitText split_text(std::string_view text, double validation_share);

/// In memory, or mapped from a file.
class TokenSource {
 public:
  TokenSource() = default;
  explicit TokenSource(std::vector<int32_t> tokens) : memory_(std::move(tokens)) {}
  explicit TokenSource(TokenFile file) : file_(std::move(file)) {}

  int64_t size() const { return file_ ? file_->size() : static_cast<int64_t>(memory_.size()); }
  /// Appends tokens begin … begin+count-1 to `out`; they have to be there.
  void append(int64_t begin, int64_t count, std::vector<int32_t>& out) const;
  /// The first `count`, or all when there are fewer.
  std::vector<int32_t> first(int64_t count) const;

 private:
  std::vector<int32_t> memory_;
  std::optional<TokenFile> file_;
};

struct Dataset {
  TokenSource train;
  std::vector<int32_t> validation;  // the first token is <|endoftext|>; all others are to be predicted
  int64_t validation_bytes = 0;     // of the text that they stand for
};
/// Errors: kInvalidArgument when either part has fewer than `seq`+1 tokens.
Result<Dataset> make_dataset(const SplitText& text, const model::Tokenizer& tokenizer, int64_t seq);

inline constexpr const char* kTrainTokens = "train.tokens";
inline constexpr const char* kValidationTokens = "validation.tokens";
inline constexpr int64_t kMaxValidationTokens = 1 << 18;  // of a data set, from its beginning

/// The folder of a data set (docs/data.md), made with `tokenizer`. Errors: as make_dataset and
/// TokenFile::open; kInvalidArgument when its tokens are of another vocabulary.
Result<Dataset> open_dataset(const std::filesystem::path& folder, const model::Tokenizer& tokenizer,
                             int64_t seq);

/// What the model's vocabulary comes to: `wanted`, or with 0 the tokenizer's. Errors: kInvalidArgument when
/// the tokenizer's is larger, naming both.
Result<int32_t> fit_vocabulary(int32_t wanted, const model::Tokenizer& tokenizer);

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

/// One step's part of one rank.
struct Batch {
  int rank = 0, world_size = 1;
  int64_t sequences = 1;  // of each rank
};

/// The stream of sequences that a training learns from. Where it stands is one number, so that a training
/// that goes on there, with any number of ranks, sees each token that the one before would have seen.
/// `tokens` must outlive it. Thread: one owner.
class SequenceStream {
 public:
  /// `position`: sequences that were taken before, by all ranks.
  SequenceStream(const TokenSource& tokens, int64_t seq, uint64_t seed, int64_t position);
  /// Replaces `inputs` and `targets` by this rank's part, (sequences, seq) each, and goes on behind the parts
  /// of all ranks.
  void take(const Batch& batch, std::vector<int32_t>& inputs, std::vector<int32_t>& targets);
  int64_t position() const { return position_; }

 private:
  const TokenSource& tokens_;
  int64_t seq_, position_;
  SequenceOrder order_;
};

}  // namespace th::train
