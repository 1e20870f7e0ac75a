#include "model/sentencepiece.h"

#include <fmt/format.h>
#include <sentencepiece_processor.h>

#include <charconv>

namespace th::model {
namespace {

constexpr size_t kMaxFileBytes = size_t{64} << 20;
constexpr int kMaxPieces = 1'000'000;
constexpr std::string_view kBlank = "\xE2\x96\x81";  // U+2581, which stands for one

std::string with_blanks(std::string_view piece) {
  std::string out;
  for (size_t at; (at = piece.find(kBlank)) != piece.npos; piece.remove_prefix(at + kBlank.size())) {
    out += piece.substr(0, at);
    out += ' ';
  }
  return out += piece;
}

/// "<0x0A>".
std::optional<char> byte_of(std::string_view piece) {
  if (piece.size() != 6 || !piece.starts_with("<0x") || piece.back() != '>') return std::nullopt;
  unsigned value = 0;
  auto [end, error] = std::from_chars(piece.data() + 3, piece.data() + 5, value, 16);
  if (error != std::errc() || end != piece.data() + 5) return std::nullopt;
  return static_cast<char>(value);
}

tl::unexpected<Error> bad(std::string_view what, std::string_view problem) {
  return fail(Code::kInvalidArgument, fmt::format("{}: {}", what, problem));
}

}  // namespace

struct SentencePieces::Library {
  sentencepiece::SentencePieceProcessor processor;
};

SentencePieces::SentencePieces() : library_(std::make_unique<Library>()) {}
SentencePieces::~SentencePieces() = default;

Result<std::shared_ptr<const SentencePieces>> SentencePieces::parse(std::string file, std::string_view what) {
  if (file.size() > kMaxFileBytes) return bad(what, "over 64 MiB");
  std::shared_ptr<SentencePieces> out(new SentencePieces);
  out->file_ = std::move(file);
  const auto loaded = out->library_->processor.LoadFromSerializedProto(out->file_);
  if (!loaded.ok()) return bad(what, fmt::format("is not a SentencePiece model: {}", loaded.message()));
  TH_RETURN_IF_ERROR(out->take_pieces(what));
  return out;
}

Status SentencePieces::take_pieces(std::string_view what) {
  const auto& processor = library_->processor;
  const int count = processor.GetPieceSize();
  if (count <= 0 || count > kMaxPieces) return bad(what, fmt::format("{} pieces are out of range", count));
  for (int id = 0; id < count; ++id) {
    const std::string& piece = processor.IdToPiece(id);
    if (piece.empty()) return bad(what, fmt::format("piece {} has no text", id));
    if (processor.IsControl(id)) {
      controls_.push_back(id);
      tokens_.push_back(piece);
    } else if (processor.IsUnknown(id)) {
      std::string shown;
      if (!processor.Decode(std::vector<int>{id}, &shown).ok()) shown = "?";
      tokens_.push_back(shown);
    } else if (const auto byte = processor.IsByte(id) ? byte_of(piece) : std::nullopt) {
      tokens_.emplace_back(1, *byte);
    } else {
      tokens_.push_back(with_blanks(piece));
    }
  }
  for (const int id : {processor.bos_id(), processor.eos_id()}) {
    if (id >= 0 && id < count && processor.IsControl(id)) end_id_ = id;
  }
  std::vector<int32_t> ids;
  encode("a", ids);
  adds_blank_ = !ids.empty() && tokens_[ids[0]].starts_with(' ');
  return {};
}

SentencePieces::Piece SentencePieces::piece(int32_t id) const {
  const auto& processor = library_->processor;
  Kind kind = Kind::kNormal;
  if (processor.IsControl(id)) kind = Kind::kControl;
  if (processor.IsUnknown(id)) kind = Kind::kUnknown;
  if (processor.IsUnused(id)) kind = Kind::kUnused;
  if (processor.IsByte(id)) kind = Kind::kByte;
  return {processor.IdToPiece(id), processor.GetScore(id), kind};
}

void SentencePieces::encode(std::string_view text, std::vector<int32_t>& ids) const {
  std::vector<int> pieces;
  if (!library_->processor.Encode(text, &pieces).ok()) return;  // only a model that did not load says no
  ids.insert(ids.end(), pieces.begin(), pieces.end());
}

}  // namespace th::model
