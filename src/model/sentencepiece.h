#pragma once
// Vocabularies of SentencePiece (.model files, BPE and unigram), by its own library.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace th::model {

/// Thread: const members are safe from any thread.
class SentencePieces {
 public:
  /// `file`: all of its bytes. Errors: kInvalidArgument, naming `what`: not a model, over 64 MiB or 1,000,000
  /// pieces, a piece without text.
  static Result<std::shared_ptr<const SentencePieces>> parse(std::string file, std::string_view what);
  ~SentencePieces();

  /// The text as the model normalises it, cut into pieces; ids are appended.
  void encode(std::string_view text, std::vector<int32_t>& ids) const;

  const std::string& file() const { return file_; }
  /// Bytes of each piece, a blank for "▁"; of control pieces their name.
  const std::vector<std::string>& tokens() const { return tokens_; }
  const std::vector<int32_t>& controls() const { return controls_; }  // never come from ordinary text
  std::optional<int32_t> end_id() const { return end_id_; }           // "</s>", or else "<s>"
  /// Whether it puts a blank before each text, which decoding takes away again.
  bool adds_blank() const { return adds_blank_; }

  /// The numbers that SentencePiece's file has for them; what a user defined counts as normal.
  enum class Kind { kNormal = 1, kUnknown = 2, kControl = 3, kUnused = 5, kByte = 6 };
  struct Piece {
    std::string_view text;  // as in the file, "▁" for a blank
    float score;
    Kind kind;
  };
  /// 0 <= id < tokens().size().
  Piece piece(int32_t id) const;

 private:
  struct Library;
  SentencePieces();
  Status take_pieces(std::string_view what);

  std::unique_ptr<Library> library_;
  std::string file_;
  std::vector<std::string> tokens_;
  std::vector<int32_t> controls_;
  std::optional<int32_t> end_id_;
  bool adds_blank_ = false;
};

}  // namespace th::model
