#include "model/layout.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "base/env.h"

namespace th::model {
namespace {

constexpr double kInitialDeviation = 0.02;  // HF initializer_range

bool ends_with_any(std::string_view name, std::initializer_list<std::string_view> ends) {
  return std::ranges::any_of(ends, [&](std::string_view end) { return name.ends_with(end); });
}

class Builder {
 public:
  explicit Builder(ParameterLayout& layout) : layout_(layout) {}

  int64_t add(std::string name, std::vector<int64_t> shape, bool transposed = false) {
    const int64_t count = std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
    layout_.parameters.push_back({std::move(name), std::move(shape), layout_.size, count, transposed});
    layout_.size += count;
    return layout_.size - count;
  }
  void begin_unit() { layout_.units.push_back({layout_.size, 0, 0}); }
  void end_matrices() { layout_.units.back().decayed_size = layout_.size - layout_.units.back().offset; }
  void end_unit() { layout_.units.back().size = layout_.size - layout_.units.back().offset; }

 private:
  ParameterLayout& layout_;
};

void lay_out_llama(Builder& build, ParameterLayout& layout, const ModelConfig& config) {
  const int64_t hidden = config.hidden_size, inner = config.intermediate_size;
  const int64_t queries = config.num_attention_heads * config.head_dim;
  const int64_t keys = config.num_key_value_heads * config.head_dim;
  build.begin_unit();
  layout.embedding = build.add("model.embed_tokens.weight", {config.vocab_size, hidden});
  layout.lm_head = config.tie_word_embeddings ? layout.embedding
                                              : build.add("lm_head.weight", {config.vocab_size, hidden});
  build.end_matrices();
  layout.norm_out = build.add("model.norm.weight", {hidden});
  build.end_unit();
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
    const std::string at = fmt::format("model.layers.{}.", i);
    ParameterLayout::Layer layer{};
    build.begin_unit();
    layer.qkv = build.add(at + "self_attn.q_proj.weight", {queries, hidden});
    build.add(at + "self_attn.k_proj.weight", {keys, hidden});
    build.add(at + "self_attn.v_proj.weight", {keys, hidden});
    layer.o = build.add(at + "self_attn.o_proj.weight", {hidden, queries});
    layer.gate_up = build.add(at + "mlp.gate_proj.weight", {inner, hidden});
    build.add(at + "mlp.up_proj.weight", {inner, hidden});
    layer.down = build.add(at + "mlp.down_proj.weight", {hidden, inner});
    build.end_matrices();
    layer.norm_in = build.add(at + "input_layernorm.weight", {hidden});
    layer.norm_mid = build.add(at + "post_attention_layernorm.weight", {hidden});
    build.end_unit();
    layout.layers.push_back(layer);
  }
}

void lay_out_gpt2(Builder& build, ParameterLayout& layout, const ModelConfig& config) {
  const int64_t hidden = config.hidden_size, inner = config.intermediate_size;
  build.begin_unit();
  layout.lm_head = layout.embedding = build.add("transformer.wte.weight", {config.vocab_size, hidden});
  layout.positions = build.add("transformer.wpe.weight", {config.max_position_embeddings, hidden});
  build.end_matrices();
  layout.norm_out = build.add("transformer.ln_f.weight", {hidden});
  layout.norm_out_bias = build.add("transformer.ln_f.bias", {hidden});
  build.end_unit();
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
    const std::string at = fmt::format("transformer.h.{}.", i);
    ParameterLayout::Layer layer{};
    build.begin_unit();
    layer.qkv = build.add(at + "attn.c_attn.weight", {3 * hidden, hidden}, true);
    layer.o = build.add(at + "attn.c_proj.weight", {hidden, hidden}, true);
    layer.gate_up = build.add(at + "mlp.c_fc.weight", {inner, hidden}, true);
    layer.down = build.add(at + "mlp.c_proj.weight", {hidden, inner}, true);
    build.end_matrices();
    layer.norm_in = build.add(at + "ln_1.weight", {hidden});
    layer.norm_in_bias = build.add(at + "ln_1.bias", {hidden});
    layer.norm_mid = build.add(at + "ln_2.weight", {hidden});
    layer.norm_mid_bias = build.add(at + "ln_2.bias", {hidden});
    layer.qkv_bias = build.add(at + "attn.c_attn.bias", {3 * hidden});
    layer.o_bias = build.add(at + "attn.c_proj.bias", {hidden});
    layer.up_bias = build.add(at + "mlp.c_fc.bias", {inner});
    layer.down_bias = build.add(at + "mlp.c_proj.bias", {hidden});
    build.end_unit();
    layout.layers.push_back(layer);
  }
}

}  // namespace

ParameterLayout::ParameterLayout(const ModelConfig& config) {
  Builder build(*this);
  (config.family == Family::kGpt2 ? lay_out_gpt2 : lay_out_llama)(build, *this, config);
  sort_names();
}

ParameterLayout::ParameterLayout(std::vector<Parameter> matrices) {
  Builder build(*this);
  build.begin_unit();
  for (Parameter& p : matrices) build.add(std::move(p.name), std::move(p.shape), p.transposed);
  build.end_matrices();
  build.end_unit();
  sort_names();
}

void ParameterLayout::sort_names() {
  by_name_.resize(parameters.size());
  std::iota(by_name_.begin(), by_name_.end(), size_t{0});
  std::ranges::sort(by_name_, {}, [this](size_t i) -> const std::string& { return parameters[i].name; });
}

const Parameter* ParameterLayout::find(std::string_view name) const {
  const auto it = std::ranges::lower_bound(
      by_name_, name, {}, [this](size_t i) -> std::string_view { return parameters[i].name; });
  return it != by_name_.end() && parameters[*it].name == name ? &parameters[*it] : nullptr;
}

const Parameter& ParameterLayout::at(int64_t offset) const {
  TH_CHECK(offset >= 0 && offset < size);
  return *std::prev(std::ranges::upper_bound(parameters, offset, {}, &Parameter::offset));
}

void init_parameters(std::span<float> part, int64_t begin, const ParameterLayout& layout, uint64_t seed) {
  const int64_t end = begin + static_cast<int64_t>(part.size());
  TH_CHECK(begin >= 0 && end <= layout.size);
  const double residual = kInitialDeviation / std::sqrt(2.0 * static_cast<double>(layout.layers.size()));
  for (size_t index = 0; index < layout.parameters.size(); ++index) {
    const Parameter& p = layout.parameters[index];
    if (p.offset >= end || p.offset + p.size <= begin) continue;
    const auto set = [&](int64_t i, float value) {
      if (p.offset + i >= begin && p.offset + i < end)
        part[static_cast<size_t>(p.offset + i - begin)] = value;
    };
    const float constant = p.name.ends_with("bias") ? 0.0f : 1.0f;
    const bool into_residual = ends_with_any(p.name, {"o_proj.weight", "down_proj.weight", "c_proj.weight"});
    const double deviation = into_residual ? residual : kInitialDeviation;
    Prng prng(seed * 0x9e3779b97f4a7c15u + index);
    for (int64_t i = 0; i < std::min(p.size, end - p.offset); ++i)
      set(i, p.shape.size() == 1 ? constant : static_cast<float>(prng.normal() * deviation));
  }
}

double training_flop_per_token(const ModelConfig& config, int64_t time) {
  const ParameterLayout layout(config);
  int64_t multiplying = 0;
  for (const Unit& unit : layout.units) multiplying += unit.decayed_size;
  if (!config.tie_word_embeddings) multiplying -= config.vocab_size * config.hidden_size;  // looked up only
  if (config.family == Family::kGpt2) multiplying -= config.max_position_embeddings * config.hidden_size;
  const int64_t queries = config.num_attention_heads * config.head_dim;
  return 6.0 * static_cast<double>(multiplying) +
         6.0 * static_cast<double>(config.num_hidden_layers * time * queries);
}

}  // namespace th::model
