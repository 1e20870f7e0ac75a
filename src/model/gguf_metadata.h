#pragma once
// For gguf.cc only: the metadata of a GGUF file. Source: ggml-org/ggml, docs/gguf.md.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"
#include "model/config.h"
#include "model/tokenizer.h"

namespace th::model {

/// Little-endian, as this machine's.
template <class T>
void append_value(std::string& bytes, T value) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
}
void append_text(std::string& bytes, std::string_view text);

/// Keys with values, as they stand in the file.
class GgufMetadata {
 public:
  void u32(std::string_view key, uint32_t value);
  void f32(std::string_view key, float value);
  void boolean(std::string_view key, bool value);
  void text(std::string_view key, std::string_view value);
  void texts(std::string_view key, std::span<const std::string> values);
  void i32s(std::string_view key, std::span<const int32_t> values);
  void f32s(std::string_view key, std::span<const float> values);

  uint64_t count() const { return count_; }
  const std::string& bytes() const { return bytes_; }

 private:
  void key(std::string_view key, uint32_t type);
  void array(std::string_view key, uint32_t type, size_t size);
  std::string bytes_;
  uint64_t count_ = 0;
};

/// llama.* or gpt2.*: the sizes.
void add_model_keys(GgufMetadata& metadata, const ModelConfig& config);
/// tokenizer.ggml.*. Errors: kInvalidArgument: more tokens than the model, a SentencePiece model that is no
/// BPE.
Status add_tokenizer_keys(GgufMetadata& metadata, const Tokenizer& tokenizer, const ModelConfig& config,
                          bool add_bos);

}  // namespace th::model
