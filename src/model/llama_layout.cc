#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/env.h"
#include "model/llama.h"

namespace th::model {
namespace {

constexpr double kInitialDeviation = 0.02;  // HF initializer_range

bool ends_with_any(std::string_view name, std::initializer_list<std::string_view> ends) {
  return std::ranges::any_of(ends, [&](std::string_view end) { return name.ends_with(end); });
}

}  // namespace

ParameterLayout::ParameterLayout(const LlamaConfig& config) {
  const auto add = [this](std::string name, std::vector<int64_t> shape) {
    const int64_t count = std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
    parameters.push_back({std::move(name), std::move(shape), size, count});
    size += count;
    return size - count;
  };
  const int64_t hidden = config.hidden_size;
  const int64_t inner = config.intermediate_size;
  const int64_t queries = config.num_attention_heads * config.head_dim;
  const int64_t keys = config.num_key_value_heads * config.head_dim;

  embedding = add("model.embed_tokens.weight", {config.vocab_size, hidden});
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
    const std::string at = fmt::format("model.layers.{}.", i);
    Layer layer{};
    layer.qkv = add(at + "self_attn.q_proj.weight", {queries, hidden});
    add(at + "self_attn.k_proj.weight", {keys, hidden});
    add(at + "self_attn.v_proj.weight", {keys, hidden});
    layer.o = add(at + "self_attn.o_proj.weight", {hidden, queries});
    layer.gate_up = add(at + "mlp.gate_proj.weight", {inner, hidden});
    add(at + "mlp.up_proj.weight", {inner, hidden});
    layer.down = add(at + "mlp.down_proj.weight", {hidden, inner});
    layers.push_back(layer);
  }
  lm_head = config.tie_word_embeddings ? embedding : add("lm_head.weight", {config.vocab_size, hidden});
  decayed_size = size;
  for (size_t i = 0; i < layers.size(); ++i) {
    const std::string at = fmt::format("model.layers.{}.", i);
    layers[i].norm_in = add(at + "input_layernorm.weight", {hidden});
    layers[i].norm_mid = add(at + "post_attention_layernorm.weight", {hidden});
  }
  norm_out = add("model.norm.weight", {hidden});

  by_name_.resize(parameters.size());
  std::iota(by_name_.begin(), by_name_.end(), size_t{0});
  std::ranges::sort(by_name_, {}, [this](size_t i) -> const std::string& { return parameters[i].name; });
}

const Parameter* ParameterLayout::find(std::string_view name) const {
  const auto it = std::ranges::lower_bound(
      by_name_, name, {}, [this](size_t i) -> std::string_view { return parameters[i].name; });
  return it != by_name_.end() && parameters[*it].name == name ? &parameters[*it] : nullptr;
}

void init_parameters(std::span<float> params, const ParameterLayout& layout, uint64_t seed) {
  TH_CHECK(static_cast<int64_t>(params.size()) == layout.size);
  Prng prng(seed);
  const double residual = kInitialDeviation / std::sqrt(2.0 * static_cast<double>(layout.layers.size()));
  for (const Parameter& parameter : layout.parameters) {
    const auto values =
        params.subspan(static_cast<size_t>(parameter.offset), static_cast<size_t>(parameter.size));
    if (parameter.shape.size() == 1) {
      std::ranges::fill(values, 1.0f);
      continue;
    }
    const bool into_residual = ends_with_any(parameter.name, {"o_proj.weight", "down_proj.weight"});
    const double deviation = into_residual ? residual : kInitialDeviation;
    for (float& value : values) value = static_cast<float>(prng.normal() * deviation);
  }
}

double training_flop_per_token(const LlamaConfig& config, int64_t time) {
  const ParameterLayout layout(config);
  const int64_t lookup_only = config.tie_word_embeddings ? 0 : config.vocab_size * config.hidden_size;
  const auto multiplying = static_cast<double>(layout.decayed_size - lookup_only);
  const int64_t queries = config.num_attention_heads * config.head_dim;
  return 6.0 * multiplying + 6.0 * static_cast<double>(config.num_hidden_layers * time * queries);
}

}  // namespace th::model
