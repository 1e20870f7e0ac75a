#include "model/gguf_metadata.h"

#include <fmt/format.h>

#include <bit>
#include <cmath>
#include <vector>

#include "model/pretokenizer.h"
#include "model/sentencepiece.h"

namespace th::model {
namespace {

static_assert(std::endian::native == std::endian::little);

// Types of values.
constexpr uint32_t kU32 = 4, kI32 = 5, kF32 = 6, kBool = 7, kText = 8, kArray = 9;
// Types of tokens; the same numbers as SentencePiece's.
constexpr int32_t kNormalToken = 1, kControlToken = 3, kUnusedToken = 5;

struct Vocabulary {
  std::vector<std::string> tokens;
  std::vector<int32_t> types;

  void add(std::string token, int32_t type) {
    tokens.push_back(std::move(token));
    types.push_back(type);
  }
  /// llama.cpp wants as many tokens as the embedding has rows.
  void fill_up(int64_t size) {
    while (static_cast<int64_t>(tokens.size()) < size)
      add(fmt::format("[PAD{}]", tokens.size()), kUnusedToken);
  }
  void put(GgufMetadata& metadata) const {
    metadata.texts("tokenizer.ggml.tokens", tokens);
    metadata.i32s("tokenizer.ggml.token_type", types);
  }
};

void add_bpe(GgufMetadata& metadata, const Tokenizer& tokenizer, int64_t vocab_size) {
  metadata.text("tokenizer.ggml.model", "gpt2");
  metadata.text("tokenizer.ggml.pre", "gpt-2");
  const TokenizerParts& parts = tokenizer.parts();
  Vocabulary vocabulary;
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    const std::string& token = parts.tokens[static_cast<size_t>(id)];
    if (tokenizer.is_special(id))
      vocabulary.add(token, kControlToken);
    else
      vocabulary.add(bytes_to_letters(token), kNormalToken);
  }
  std::vector<std::string> merges;
  for (const auto& [left, right] : parts.merges)
    merges.push_back(vocabulary.tokens[static_cast<size_t>(left)] + " " +
                     vocabulary.tokens[static_cast<size_t>(right)]);
  vocabulary.fill_up(vocab_size);
  vocabulary.put(metadata);
  metadata.texts("tokenizer.ggml.merges", merges);
}

Status add_sentencepiece(GgufMetadata& metadata, const SentencePieces& pieces, int64_t vocab_size) {
  metadata.text("tokenizer.ggml.model", "llama");
  metadata.text("tokenizer.ggml.pre", "default");
  Vocabulary vocabulary;
  std::vector<float> scores;
  for (int32_t id = 0; id < static_cast<int32_t>(pieces.tokens().size()); ++id) {
    const SentencePieces::Piece piece = pieces.piece(id);
    // SentencePiece scores a BPE's pieces by the negative rank of their merge, a unigram model's by the
    // logarithm of how likely they are.
    if (piece.kind == SentencePieces::Kind::kNormal && piece.score != std::nearbyint(piece.score))
      return fail(
          Code::kInvalidArgument,
          fmt::format("tokenizer.model: a unigram model (piece '{}' has score {}); GGUF's 'llama' "
                      "tokenizer cuts text as SentencePiece's BPE does: only such a model can be exported",
                      piece.text, piece.score));
    vocabulary.add(std::string(piece.text), static_cast<int32_t>(piece.kind));
    scores.push_back(piece.score);
    if (piece.kind == SentencePieces::Kind::kUnknown)
      metadata.u32("tokenizer.ggml.unknown_token_id", static_cast<uint32_t>(id));
  }
  vocabulary.fill_up(vocab_size);
  scores.resize(vocabulary.tokens.size(), -1e4f);
  vocabulary.put(metadata);
  metadata.f32s("tokenizer.ggml.scores", scores);
  metadata.boolean("tokenizer.ggml.add_space_prefix", pieces.adds_blank());
  return {};
}

}  // namespace

void append_text(std::string& bytes, std::string_view text) {
  append_value<uint64_t>(bytes, text.size());
  bytes += text;
}

void GgufMetadata::key(std::string_view key, uint32_t type) {
  append_text(bytes_, key);
  append_value(bytes_, type);
  ++count_;
}

void GgufMetadata::array(std::string_view key, uint32_t type, size_t size) {
  this->key(key, kArray);
  append_value(bytes_, type);
  append_value<uint64_t>(bytes_, size);
}

void GgufMetadata::u32(std::string_view key, uint32_t value) {
  this->key(key, kU32);
  append_value(bytes_, value);
}

void GgufMetadata::f32(std::string_view key, float value) {
  this->key(key, kF32);
  append_value(bytes_, value);
}

void GgufMetadata::boolean(std::string_view key, bool value) {
  this->key(key, kBool);
  append_value<uint8_t>(bytes_, value ? 1 : 0);
}

void GgufMetadata::text(std::string_view key, std::string_view value) {
  this->key(key, kText);
  append_text(bytes_, value);
}

void GgufMetadata::texts(std::string_view key, std::span<const std::string> values) {
  array(key, kText, values.size());
  for (const std::string& value : values) append_text(bytes_, value);
}

void GgufMetadata::i32s(std::string_view key, std::span<const int32_t> values) {
  array(key, kI32, values.size());
  for (const int32_t value : values) append_value(bytes_, value);
}

void GgufMetadata::f32s(std::string_view key, std::span<const float> values) {
  array(key, kF32, values.size());
  for (const float value : values) append_value(bytes_, value);
}

void add_model_keys(GgufMetadata& metadata, const ModelConfig& config) {
  const bool is_llama = config.family == Family::kLlama;
  const std::string_view architecture = is_llama ? "llama" : "gpt2";
  auto u32 = [&](std::string_view key, int64_t value) {
    metadata.u32(fmt::format("{}.{}", architecture, key), static_cast<uint32_t>(value));
  };
  auto f32 = [&](std::string_view key, double value) {
    metadata.f32(fmt::format("{}.{}", architecture, key), static_cast<float>(value));
  };
  u32("vocab_size", config.vocab_size);
  u32("context_length", config.max_position_embeddings);
  u32("embedding_length", config.hidden_size);
  u32("feed_forward_length", config.intermediate_size);
  u32("block_count", config.num_hidden_layers);
  u32("attention.head_count", config.num_attention_heads);
  f32(is_llama ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon", config.norm_eps);
  if (!is_llama) return;
  u32("attention.head_count_kv", config.num_key_value_heads);
  u32("attention.key_length", config.head_dim);
  u32("attention.value_length", config.head_dim);
  u32("rope.dimension_count", config.head_dim);
  f32("rope.freq_base", config.rope_theta);
}

Status add_tokenizer_keys(GgufMetadata& metadata, const Tokenizer& tokenizer, const ModelConfig& config,
                          bool add_bos) {
  if (tokenizer.vocab_size() > config.vocab_size)
    return fail(
        Code::kInvalidArgument,
        fmt::format("{}: {} tokens, but config.json has a vocab_size of {}: the files are of two models",
                    tokenizer.file().name, tokenizer.vocab_size(), config.vocab_size));
  if (const SentencePieces* pieces = tokenizer.sentencepieces()) {
    TH_RETURN_IF_ERROR(add_sentencepiece(metadata, *pieces, config.vocab_size));
  } else {
    add_bpe(metadata, tokenizer, config.vocab_size);
  }
  auto add_id = [&](std::string_view key, std::optional<int64_t> id) {
    if (!id && tokenizer.end_of_text()) id = *tokenizer.end_of_text();
    if (id && *id >= 0 && *id < config.vocab_size) metadata.u32(key, static_cast<uint32_t>(*id));
  };
  add_id("tokenizer.ggml.bos_token_id", config.bos_token_id);
  add_id("tokenizer.ggml.eos_token_id", config.eos_token_id);
  metadata.boolean("tokenizer.ggml.add_bos_token", add_bos);
  metadata.boolean("tokenizer.ggml.add_eos_token", false);
  return {};
}

}  // namespace th::model
