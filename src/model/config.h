#pragma once
// The shape of a decoder-only model of the Llama or the GPT-2 family, read from and written to a Hugging Face
// config.json.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace th::model {

/// Llama: RMSNorm, rotary positions, grouped-query attention, SwiGLU, no biases. GPT-2: LayerNorm, learnt
/// positions, GELU (tanh), biases, embedding and head tied.
enum class Family { kLlama, kGpt2 };

/// Names are those of a Llama's config.json; GPT-2's n_embd, n_inner, n_layer, n_head, n_positions and
/// layer_norm_epsilon mean the same. Defaults are those of Hugging Face's ModelConfig where it has any.
struct ModelConfig {
  Family family = Family::kLlama;
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_hidden_layers = 0;
  int64_t num_attention_heads = 0;
  int64_t num_key_value_heads = 0;  // divides num_attention_heads; missing in a file: num_attention_heads
  int64_t head_dim = 0;             // even; missing in a file: hidden_size / num_attention_heads
  int64_t max_position_embeddings = 0;
  double rope_theta = 10000;
  double norm_eps = 1e-6;  // rms_norm_eps
  bool tie_word_embeddings = false;
  std::optional<int64_t> bos_token_id = std::nullopt;
  std::optional<int64_t> eos_token_id = std::nullopt;

  bool operator==(const ModelConfig&) const = default;
};

/// Errors: kInvalidArgument naming the field, what is wrong with it and what is accepted; every size has an
/// upper limit, so that a checked config's products fit in 64 bits. Use it on configs that were not parsed.
Status check_model_config(const ModelConfig& config);

/// `what` names the text in errors ("model/config.json"). Unknown fields are ignored, as Hugging Face writes
/// many; fields that would change the arithmetic and are not supported (another architecture or activation,
/// attention_bias, mlp_bias, rope_scaling, scaled attention weights) are refused. Errors: kInvalidArgument.
/// The result has passed check_model_config.
Result<ModelConfig> parse_model_config(std::string_view json_text, std::string_view what);

/// The text of a config.json that transformers loads as LlamaForCausalLM or GPT2LMHeadModel in float32;
/// parse_model_config gives it back.
std::string model_config_json(const ModelConfig& config);

}  // namespace th::model
