#pragma once
// Writes a model as one GGUF file (version 3), which llama.cpp loads: metadata, tokenizer and weights.
// Sources: ggml-org/ggml, docs/gguf.md (format, keys, tensor names, types); ggml-org/llama.cpp,
// convert_hf_to_gguf.py (what is kept in float32, order of the q and k rows, types of the tokens) and
// ggml-quants.c (quantize_row_q8_0_ref).

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "model/config.h"
#include "model/layout.h"
#include "model/tokenizer.h"
#include "model/weights.h"

namespace th::model {

/// How matrices are stored. kQ8_0: blocks of 32 neighbours of a row, 8 bits each, with one float16 to
/// multiply them by; a matrix whose rows are no multiple of 32 is then kF16. Vectors and GPT-2's positions
/// are always float32.
enum class GgufType { kF32, kF16, kBf16, kQ8_0 };

/// "f32", "f16", "bf16", "q8_0". Errors: kInvalidArgument, naming them.
Result<GgufType> parse_gguf_type(std::string_view text);

struct GgufOptions {
  GgufType type = GgufType::kF16;
  std::string name;           // general.name; UTF-8
  std::string chat_template;  // Jinja, as Hugging Face's tokenizer_config.json has it; empty: none
  bool add_bos = false;       // whether a prompt begins with bos_token_id
  /// Called now and then with the bytes of tensors written, of how many.
  std::function<void(int64_t done, int64_t of)> progress;
};

struct GgufFile {
  int64_t tensors = 0;
  int64_t bytes = 0;  // of the whole file
};

/// `layout` is the config's, `weights` of the same layout. Ids of the model's vocabulary beyond the
/// tokenizer's become unused tokens. Writes the file whole or not at all, also over a crash (temporary file,
/// fsync, rename, fsync of the folder). Errors: kInvalidArgument: more tokens than the model has rows, a
/// SentencePiece model that is no BPE, a value that the type cannot hold (its tensor is named); kDataLoss of
/// the weights; kNoSpace, kPermissionDenied, kInternal. Memory: a few million values and the vocabulary.
/// Cost: one pass over the weights.
Result<GgufFile> write_gguf(const std::filesystem::path& path, const ModelConfig& config,
                            const ParameterLayout& layout, const WeightFolder& weights,
                            const Tokenizer& tokenizer, const GgufOptions& options);

}  // namespace th::model
