#pragma once
// Documents tokenised once, in a file that is mapped into memory (docs/formats.md).
//
//   128 bytes: header · the tokens, 2 bytes each (4 where the vocabulary has over 65,536) · zeros up to a
//   multiple of 8 · for each document 8 bytes: its first token. All numbers are little-endian.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/files.h"
#include "base/result.h"

namespace th::train {

struct TokenHeader {
  int32_t vocab_size = 0;
  int64_t num_tokens = 0;
  int64_t num_documents = 0;
  int64_t text_bytes = 0;  // of the text that the tokens stand for
  std::string sha256;      // of all that follows the header, in hex

  int64_t token_bytes() const { return vocab_size <= 1 << 16 ? 2 : 4; }
};

/// `file`: all of its bytes. Errors: kDataLoss, naming `what`: another format, too short or too long for its
/// header, a checksum that does not match, a token outside of the vocabulary, documents out of order. Cost:
/// reads every byte, about 1 s for 1 GB.
Result<TokenHeader> parse_token_file(std::string_view file, std::string_view what);

/// Cheap to copy (shares one mapping). Thread: safe from any thread.
class TokenFile {
 public:
  /// Maps and checks it. Errors: as parse_token_file; kNotFound, kPermissionDenied.
  static Result<TokenFile> open(const std::filesystem::path& path);

  const TokenHeader& header() const { return header_; }
  int64_t size() const { return header_.num_tokens; }
  /// Appends tokens begin … begin+count-1 to `out`; they have to be there.
  void tokens(int64_t begin, int64_t count, std::vector<int32_t>& out) const;
  /// The first token of document `index`.
  int64_t document_begin(int64_t index) const;

 private:
  TokenFile(TokenHeader header, std::shared_ptr<const char> file)
      : header_(std::move(header)), file_(std::move(file)) {}
  TokenHeader header_;
  std::shared_ptr<const char> file_;  // unmapped with its last owner
};

/// Writes one document after the other in a few MiB of memory. The file gets its name once it is whole; until
/// then its parts lie beside it and go with the writer. Thread: one owner.
class TokenWriter {
 public:
  /// Errors: of the file system.
  static Result<TokenWriter> create(const std::filesystem::path& path, int32_t vocab_size);
  TokenWriter(TokenWriter&&) noexcept;
  ~TokenWriter();

  /// Tokens of the vocabulary; `text_bytes`: of the text that they stand for. Errors: kNoSpace, ….
  Status add_document(std::span<const int32_t> tokens, int64_t text_bytes);
  /// Errors: as add_document; nothing bears the name then.
  Result<TokenHeader> finish();

 private:
  struct Impl;
  explicit TokenWriter(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace th::train
