#include "model/config.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/json.h"

namespace th::model {
namespace {

constexpr const char* kArchitecture = "LlamaForCausalLM";

struct SizeField {
  const char* name;
  int64_t LlamaConfig::*member;
  int64_t max;
};
// The upper limits keep every product of sizes far below 2^63; the largest Llamas are well inside.
constexpr SizeField kSizeFields[] = {
    {"vocab_size", &LlamaConfig::vocab_size, 1 << 22},
    {"hidden_size", &LlamaConfig::hidden_size, 1 << 17},
    {"intermediate_size", &LlamaConfig::intermediate_size, 1 << 19},
    {"num_hidden_layers", &LlamaConfig::num_hidden_layers, 1 << 10},
    {"num_attention_heads", &LlamaConfig::num_attention_heads, 1 << 10},
    {"num_key_value_heads", &LlamaConfig::num_key_value_heads, 1 << 10},
    {"head_dim", &LlamaConfig::head_dim, 1 << 10},
    {"max_position_embeddings", &LlamaConfig::max_position_embeddings, 1 << 24},
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

Status check_architecture(const Json& object) {
  const auto it = object.find("architectures");
  if (it != object.end() && it->is_array() && it->size() == 1 && (*it)[0] == kArchitecture) return {};
  return bad("architectures", fmt::format("want [\"{}\"], the only family that is supported, got {}",
                                          kArchitecture, it == object.end() ? "nothing" : dump_json(*it)));
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

Result<LlamaConfig> read_fields(const Json& object) {
  LlamaConfig config;
  TH_RETURN_IF_ERROR(check_architecture(object));
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
  TH_TRY(config.rms_norm_eps, get_double(object, "rms_norm_eps", config.rms_norm_eps));
  TH_TRY(config.tie_word_embeddings, get_bool(object, "tie_word_embeddings", false));
  TH_TRY(config.bos_token_id, optional_int(object, "bos_token_id"));
  TH_TRY(config.eos_token_id, optional_int(object, "eos_token_id"));
  TH_RETURN_IF_ERROR(check_llama_config(config));
  return config;
}

}  // namespace

Status check_llama_config(const LlamaConfig& config) {
  for (const SizeField& field : kSizeFields) {
    const int64_t value = config.*field.member;
    if (value >= 1 && value <= field.max) continue;
    return bad(field.name, fmt::format("want an integer from 1 to {}, got {}", field.max, value));
  }
  if (config.num_attention_heads % config.num_key_value_heads != 0) {
    return bad("num_key_value_heads", fmt::format("want a divisor of num_attention_heads ({}), got {}",
                                                  config.num_attention_heads, config.num_key_value_heads));
  }
  if (config.head_dim % 2 != 0) {
    return bad("head_dim", fmt::format("want an even number (rotary pairs), got {}", config.head_dim));
  }
  // Written so that NaN is refused too.
  if (!(config.rope_theta >= 1 && config.rope_theta <= 1e12)) {
    return bad("rope_theta", fmt::format("want a number from 1 to 1e12, got {}", config.rope_theta));
  }
  if (!(config.rms_norm_eps > 0 && config.rms_norm_eps < 1)) {
    return bad("rms_norm_eps", fmt::format("want a number above 0 and below 1, got {}", config.rms_norm_eps));
  }
  TH_RETURN_IF_ERROR(check_token_id("bos_token_id", config.bos_token_id, config.vocab_size));
  return check_token_id("eos_token_id", config.eos_token_id, config.vocab_size);
}

Result<LlamaConfig> parse_llama_config(std::string_view json_text, std::string_view what) {
  TH_TRY(const Json object, parse_json(json_text, what));
  if (!object.is_object()) {
    return fail(Code::kInvalidArgument,
                fmt::format("{}: want a JSON object, got {}", what, object.type_name()));
  }
  Result<LlamaConfig> config = read_fields(object);
  if (!config) return fail(config.error().code, fmt::format("{}: {}", what, config.error().message));
  return config;
}

std::string llama_config_json(const LlamaConfig& config) {
  const auto id = [](const std::optional<int64_t>& token) { return token ? Json(*token) : Json(nullptr); };
  const Json object = {
      {"architectures", Json::array({kArchitecture})},
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
      {"rms_norm_eps", config.rms_norm_eps},
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
  return object.dump(2) + "\n";
}

}  // namespace th::model
