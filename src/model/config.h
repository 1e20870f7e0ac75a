#pragma once
// The shape of a Llama-family model, read from and written to a Hugging Face config.json.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace th::model {

/// Names are those of config.json. Defaults are Hugging Face's LlamaConfig's where it has any.
struct LlamaConfig {
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_hidden_layers = 0;
  int64_t num_attention_heads = 0;
  int64_t num_key_value_heads = 0;  // divides num_attention_heads; missing in a file: num_attention_heads
  int64_t head_dim = 0;             // even; missing in a file: hidden_size / num_attention_heads
  int64_t max_position_embeddings = 0;
  double rope_theta = 10000;
  double rms_norm_eps = 1e-6;
  bool tie_word_embeddings = false;
  std::optional<int64_t> bos_token_id = std::nullopt;
  std::optional<int64_t> eos_token_id = std::nullopt;

  bool operator==(const LlamaConfig&) const = default;
};

/// Errors: kInvalidArgument naming the field, what is wrong with it and what is accepted; every size has an
/// upper limit, so that a checked config's products fit in 64 bits. Use it on configs that were not parsed.
Status check_llama_config(const LlamaConfig& config);

/// `what` names the text in errors ("model/config.json"). Unknown fields are ignored, as Hugging Face writes
/// many; fields that would change the arithmetic and are not supported (another architecture or hidden_act,
/// attention_bias, mlp_bias, rope_scaling) are refused. Errors: kInvalidArgument. The result has passed
/// check_llama_config.
Result<LlamaConfig> parse_llama_config(std::string_view json_text, std::string_view what);

/// The text of a config.json that transformers loads as LlamaForCausalLM in float32; parse_llama_config gives
/// it back.
std::string llama_config_json(const LlamaConfig& config);

}  // namespace th::model
