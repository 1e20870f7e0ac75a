#include "model/config.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/json.h"

namespace th::model {
namespace {

constexpr const char *kLlama = "LlamaForCausalLM", *kGpt2 = "GPT2LMHeadModel";

struct SizeField {
  const char* name;
  int64_t ModelConfig::*member;
  int64_t max;
};
// The upper limits keep every product of sizes far below 2^63; the largest Llamas are well inside.
constexpr SizeField kSizeFields[] = {
    {"vocab_size", &ModelConfig::vocab_size, 1 << 22},
    {"hidden_size", &ModelConfig::hidden_size, 1 << 17},
    {"intermediate_size", &ModelConfig::intermediate_size, 1 << 19},
    {"num_hidden_layers", &ModelConfig::num_hidden_layers, 1 << 10},
    {"num_attention_heads", &ModelConfig::num_attention_heads, 1 << 10},
    {"num_key_value_heads", &ModelConfig::num_key_value_heads, 1 << 10},
    {"head_dim", &ModelConfig::head_dim, 1 << 10},
    {"max_position_embeddings", &ModelConfig::max_position_embeddings, 1 << 24},
};

tl::unexpected<Error> bad(const char* field, const std::string& problem) {
  return fail(Code::kInvalidArgument, fmt::format("field '{}': {}", field, problem));
}

Status check_token_id(const char* field, const std::optional<int64_t>& id, int64_t vocab_size) {
  if (!id || (*id >= 0 && *id < vocab_size)) return {};
  return bad(field, fmt::format("want a token in [0, {}), got {}", vocab_size, *id));
}

bool has(const Json& object, const char* field) {
  const auto it = object.find(field);
  return it != object.end() && !it->is_null();
}

Result<std::optional<int64_t>> optional_int(const Json& object, const char* field) {
  if (!has(object, field)) return std::nullopt;
  TH_TRY(const int64_t value, get_int(object, field));
  return value;
}

Result<Family> read_family(const Json& object) {
  const auto it = object.find("architectures");
  if (it != object.end() && it->is_array() && it->size() == 1) {
    if ((*it)[0] == kLlama) return Family::kLlama;
    if ((*it)[0] == kGpt2) return Family::kGpt2;
  }
  return bad("architectures",
             fmt::format("want [\"{}\"] or [\"{}\"], the families that are supported, got {}", kLlama, kGpt2,
                         it == object.end() ? "nothing" : dump_json(*it)));
}

// Fields that would change what the model computes.
Status check_arithmetic(const Json& object) {
  TH_TRY(const std::string activation, get_string(object, "hidden_act", "silu"));
  if (activation != "silu") return bad("hidden_act", fmt::format("want 'silu', got '{}'", activation));
  for (const char* field : {"attention_bias", "mlp_bias"}) {
    TH_TRY(const bool bias, get_bool(object, field, false));
    if (bias) return bad(field, "biases are not supported, want false");
  }
  for (const char* field : {"rope_scaling", "rope_parameters"}) {
    if (!has(object, field)) continue;
    const Json& rope = object[field];
    if (!rope.is_object()) return bad(field, fmt::format("want an object or null, got {}", rope.type_name()));
    TH_TRY(const std::string type, get_string(rope, "rope_type", "default"));
    TH_TRY(const std::string old_type, get_string(rope, "type", "default"));
    const std::string& other = type != "default" ? type : old_type;
    if (other != "default") return bad(field, fmt::format("want rope_type 'default', got '{}'", other));
  }
  return {};
}

Result<ModelConfig> read_gpt2(const Json& object) {
  ModelConfig config{.family = Family::kGpt2};
  TH_TRY(const std::string activation, get_string(object, "activation_function", "gelu_new"));
  if (activation != "gelu_new" && activation != "gelu_pytorch_tanh")
    return bad("activation_function", fmt::format("want 'gelu_new', got '{}'", activation));
  TH_TRY(const bool scaled, get_bool(object, "scale_attn_weights", true));
  if (!scaled) return bad("scale_attn_weights", "want true");
  TH_TRY(const bool by_layer, get_bool(object, "scale_attn_by_inverse_layer_idx", false));
  if (by_layer) return bad("scale_attn_by_inverse_layer_idx", "want false");
  TH_TRY(const bool tied, get_bool(object, "tie_word_embeddings", true));
  if (!tied) return bad("tie_word_embeddings", "want true");
  TH_TRY(config.vocab_size, get_int(object, "vocab_size"));
  TH_TRY(config.hidden_size, get_int(object, "n_embd"));
  TH_TRY(const std::optional<int64_t> inner, optional_int(object, "n_inner"));
  config.intermediate_size = inner.value_or(config.hidden_size < (1 << 20) ? 4 * config.hidden_size : 0);
  TH_TRY(config.num_hidden_layers, get_int(object, "n_layer"));
  TH_TRY(config.num_attention_heads, get_int(object, "n_head"));
  config.num_key_value_heads = config.num_attention_heads;
  if (config.num_attention_heads < 1 || config.hidden_size % config.num_attention_heads != 0)
    return bad("n_head", fmt::format("want a divisor of n_embd ({}), got {}", config.hidden_size,
                                     config.num_attention_heads));
  config.head_dim = config.hidden_size / config.num_attention_heads;
  TH_TRY(config.max_position_embeddings, get_int(object, "n_positions", 1024));
  TH_TRY(config.norm_eps, get_double(object, "layer_norm_epsilon", 1e-5));
  config.tie_word_embeddings = true;
  return config;
}

Result<ModelConfig> read_llama(const Json& object) {
  ModelConfig config;
  TH_RETURN_IF_ERROR(check_arithmetic(object));
  TH_TRY(config.vocab_size, get_int(object, "vocab_size"));
  TH_TRY(config.hidden_size, get_int(object, "hidden_size"));
  TH_TRY(config.intermediate_size, get_int(object, "intermediate_size"));
  TH_TRY(config.num_hidden_layers, get_int(object, "num_hidden_layers"));
  TH_TRY(config.num_attention_heads, get_int(object, "num_attention_heads"));
  TH_TRY(config.num_key_value_heads, get_int(object, "num_key_value_heads", config.num_attention_heads));
  const int64_t even_share =
      config.num_attention_heads > 0 ? config.hidden_size / config.num_attention_heads : 0;
  TH_TRY(config.head_dim, get_int(object, "head_dim", even_share));
  TH_TRY(config.max_position_embeddings, get_int(object, "max_position_embeddings", 2048));
  const bool theta_inside = has(object, "rope_parameters") && has(object["rope_parameters"], "rope_theta");
  TH_TRY(config.rope_theta,
         get_double(theta_inside ? object["rope_parameters"] : object, "rope_theta", config.rope_theta));
  TH_TRY(config.norm_eps, get_double(object, "rms_norm_eps", config.norm_eps));
  TH_TRY(config.tie_word_embeddings, get_bool(object, "tie_word_embeddings", false));
  return config;
}

Result<ModelConfig> read_fields(const Json& object) {
  TH_TRY(const Family family, read_family(object));
  TH_TRY(ModelConfig config, family == Family::kGpt2 ? read_gpt2(object) : read_llama(object));
  TH_TRY(config.bos_token_id, optional_int(object, "bos_token_id"));
  TH_TRY(config.eos_token_id, optional_int(object, "eos_token_id"));
  TH_RETURN_IF_ERROR(check_model_config(config));
  return config;
}

}  // namespace

Status check_model_config(const ModelConfig& config) {
  for (const SizeField& field : kSizeFields) {
    const int64_t value = config.*field.member;
    if (value >= 1 && value <= field.max) continue;
    return bad(field.name, fmt::format("want an integer from 1 to {}, got {}", field.max, value));
  }
  if (config.num_attention_heads % config.num_key_value_heads != 0) {
    return bad("num_key_value_heads", fmt::format("want a divisor of num_attention_heads ({}), got {}",
                                                  config.num_attention_heads, config.num_key_value_heads));
  }
  if (config.family == Family::kGpt2) {
    if (config.num_attention_heads * config.head_dim != config.hidden_size ||
        config.num_key_value_heads != config.num_attention_heads || !config.tie_word_embeddings)
      return bad("num_attention_heads", "GPT-2 has heads that divide hidden_size, and ties its embeddings");
  } else if (config.head_dim % 2 != 0) {
    return bad("head_dim", fmt::format("want an even number (rotary pairs), got {}", config.head_dim));
  }
  // Written so that NaN is refused too.
  if (!(config.rope_theta >= 1 && config.rope_theta <= 1e12)) {
    return bad("rope_theta", fmt::format("want a number from 1 to 1e12, got {}", config.rope_theta));
  }
  if (!(config.norm_eps > 0 && config.norm_eps < 1)) {
    return bad("rms_norm_eps", fmt::format("want a number above 0 and below 1, got {}", config.norm_eps));
  }
  TH_RETURN_IF_ERROR(check_token_id("bos_token_id", config.bos_token_id, config.vocab_size));
  return check_token_id("eos_token_id", config.eos_token_id, config.vocab_size);
}

Result<ModelConfig> parse_model_config(std::string_view json_text, std::string_view what) {
  TH_TRY(const Json object, parse_json(json_text, what));
  if (!object.is_object()) {
    return fail(Code::kInvalidArgument,
                fmt::format("{}: want a JSON object, got {}", what, object.type_name()));
  }
  Result<ModelConfig> config = read_fields(object);
  if (!config) return fail(config.error().code, fmt::format("{}: {}", what, config.error().message));
  return config;
}

std::string model_config_json(const ModelConfig& config) {
  const auto id = [](const std::optional<int64_t>& token) { return token ? Json(*token) : Json(nullptr); };
  if (config.family == Family::kGpt2) {
    const Json gpt2 = {
        {"architectures", Json::array({kGpt2})},
        {"model_type", "gpt2"},
        {"vocab_size", config.vocab_size},
        {"n_embd", config.hidden_size},
        {"n_inner", config.intermediate_size},
        {"n_layer", config.num_hidden_layers},
        {"n_head", config.num_attention_heads},
        {"n_positions", config.max_position_embeddings},
        {"layer_norm_epsilon", config.norm_eps},
        {"activation_function", "gelu_new"},
        {"tie_word_embeddings", true},
        {"bos_token_id", id(config.bos_token_id)},
        {"eos_token_id", id(config.eos_token_id)},
        {"attn_pdrop", 0.0},
        {"embd_pdrop", 0.0},
        {"resid_pdrop", 0.0},
        {"initializer_range", 0.02},
        {"torch_dtype", "float32"},
        {"use_cache", true},
    };
    return gpt2.dump(2) + "\n";
  }
  const Json llama = {
      {"architectures", Json::array({kLlama})},
      {"model_type", "llama"},
      {"vocab_size", config.vocab_size},
      {"hidden_size", config.hidden_size},
      {"intermediate_size", config.intermediate_size},
      {"num_hidden_layers", config.num_hidden_layers},
      {"num_attention_heads", config.num_attention_heads},
      {"num_key_value_heads", config.num_key_value_heads},
      {"head_dim", config.head_dim},
      {"max_position_embeddings", config.max_position_embeddings},
      {"rope_theta", config.rope_theta},
      {"rope_scaling", nullptr},
      {"rms_norm_eps", config.norm_eps},
      {"tie_word_embeddings", config.tie_word_embeddings},
      {"bos_token_id", id(config.bos_token_id)},
      {"eos_token_id", id(config.eos_token_id)},
      {"hidden_act", "silu"},
      {"attention_bias", false},
      {"mlp_bias", false},
      {"attention_dropout", 0.0},
      {"initializer_range", 0.02},
      {"torch_dtype", "float32"},
      {"use_cache", true},
  };
  return llama.dump(2) + "\n";
}

}  // namespace th::model
