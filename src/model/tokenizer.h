#pragma once
// Tokenizers: byte-level BPE, read from a Hugging Face tokenizer.json or GPT-2's vocab.json and merges.txt
// and written as tokenizer.json (docs/formats.md), and SentencePiece's models.
//
//   TH_TRY(Tokenizer tokenizer, Tokenizer::load("model/tokenizer.json"));
//   std::vector<int32_t> ids = tokenizer.encode("In the beginning");
//   Utf8Stream stream;                                     // one a generation
//   for (int32_t id : generated) send(stream.push(tokenizer.token_bytes(id)));
//   send(stream.finish());

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace th::model {

class SentencePieces;

// The special tokens of every tokenizer that is trained here. A file from elsewhere may have others or none.
inline constexpr std::string_view kEndOfText = "<|endoftext|>";
inline constexpr std::string_view kUserToken = "<|user|>";
inline constexpr std::string_view kAssistantToken = "<|assistant|>";
inline constexpr std::string_view kEndToken = "<|end|>";

/// What a tokenizer consists of. Ids: `tokens` in order, 0 … vocab_size-1.
struct TokenizerParts {
  std::vector<std::string> tokens;  // bytes of each token (not the GPT-2 letters); specials: their text
  std::vector<std::pair<int32_t, int32_t>>
      merges;                     // ids of left and right, by priority; left+right is a token
  std::vector<int32_t> specials;  // ids that are never produced from ordinary text
};

/// As it is kept: tokenizer.json, or SentencePiece's own tokenizer.model.
struct TokenizerFile {
  std::string name, content;
};

/// Cheap to copy (shares one immutable table). Thread: const members are safe from any thread.
class Tokenizer {
 public:
  /// Errors: kInvalidArgument, naming `what` and the part: not JSON, not a byte-level BPE, an id out of range
  /// or given twice, a byte that no token covers, a merge of unknown tokens, over 64 MiB or 1,000,000 tokens.
  static Result<Tokenizer> from_json(std::string_view json, std::string_view what);
  /// GPT-2's two files. Tokens like <|endoftext|> are special. Errors: as from_json.
  static Result<Tokenizer> from_gpt2(std::string_view vocab_json, std::string_view merges_txt,
                                     std::string_view what);
  /// A SentencePiece .model, BPE or unigram. Its text is normalised as the model says, so that decoding may
  /// give another one. Errors: kInvalidArgument, naming `what`.
  static Result<Tokenizer> from_sentencepiece(std::string file, std::string_view what);
  /// tokenizer.json, *.model, vocab.json (merges.txt beside it), or a folder with one of them, which is tried
  /// in this order. Errors: as from_json; kNotFound, kPermissionDenied.
  static Result<Tokenizer> load(const std::filesystem::path& path);
  /// Errors: kInvalidArgument, as from_json.
  static Result<Tokenizer> from_parts(TokenizerParts parts);

  /// Of a byte-level BPE only.
  std::string to_json() const;
  TokenizerFile file() const;

  /// Of a byte-level BPE any bytes, UTF-8 or not: decode(encode(text)) == text. Text that looks like a
  /// special token is ordinary text here, so what a user wrote cannot forge one. Cost: O(n log n) of the
  /// longest word, words of the split pattern.
  std::vector<int32_t> encode(std::string_view text) const;
  /// As encode, but the text of a special token becomes that token. For templates, not for users' text.
  std::vector<int32_t> encode_with_specials(std::string_view text) const;
  /// Bytes of the tokens, one after the other; special tokens are left out. Ids outside the vocabulary give
  /// U+FFFD.
  std::string decode(std::span<const int32_t> ids) const;

  int32_t vocab_size() const;
  /// The bytes of one token, which may be part of a UTF-8 sequence; empty for special tokens and ids outside.
  std::string_view token_bytes(int32_t id) const;
  bool is_special(int32_t id) const;
  /// The id of a special token by its text, "<|endoftext|>".
  std::optional<int32_t> special_id(std::string_view text) const;
  /// What stands between documents: <|endoftext|>, or SentencePiece's </s>.
  std::optional<int32_t> end_of_text() const;
  const TokenizerParts& parts() const;
  /// Of a SentencePiece model; else null. Lives as long as a copy of this.
  const SentencePieces* sentencepieces() const;

 private:
  struct Table;
  explicit Tokenizer(std::shared_ptr<const Table> table) : table_(std::move(table)) {}
  std::shared_ptr<const Table> table_;
};

/// Cuts a stream of bytes so that every piece is valid UTF-8: an incomplete sequence waits for its rest, what
/// can never become valid is replaced by U+FFFD. Thread: one owner.
class Utf8Stream {
 public:
  /// The longest text that is complete now; may be empty.
  std::string push(std::string_view bytes);
  /// What still waited, as U+FFFD, or "".
  std::string finish();

 private:
  std::string pending_;  // at most 3 bytes: the start of a sequence
};

}  // namespace th::model
