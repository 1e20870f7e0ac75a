#include "serve/forward.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "tensor/cpu/attention.h"

namespace th::serve {
namespace {

int64_t heads_width(const model::ModelConfig& config) { return config.num_attention_heads * config.head_dim; }
int64_t kv_width(const model::ModelConfig& config) { return config.num_key_value_heads * config.head_dim; }
int64_t qkv_width(const model::ModelConfig& config) { return heads_width(config) + 2 * kv_width(config); }

size_t floats(int64_t rows, int64_t width) { return static_cast<size_t>(rows * width); }

// Reads tensors by name, checked.
class Reader {
 public:
  Reader(const model::ParameterLayout& layout, const WeightSource& source)
      : layout_(layout), source_(source) {}

  Result<std::span<const float>> read(const std::string& name) const {
    const model::Parameter* parameter = layout_.find(name);
    TH_CHECK(parameter != nullptr);
    TH_TRY(std::span<const float> values, source_(*parameter));
    TH_CHECK(static_cast<int64_t>(values.size()) == parameter->size);
    if (!std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); })) {
      return fail(Code::kDataLoss,
                  fmt::format("tensor '{}' has a value that is not finite: the weights are damaged", name));
    }
    return values;
  }

  Result<std::vector<float>> copy(const std::string& name) const {
    TH_TRY(std::span<const float> values, read(name));
    return std::vector<float>(values.begin(), values.end());
  }

  // The named matrices, one below the other.
  Result<PackedMatrix> pack(std::initializer_list<std::string> names, int64_t out, int64_t in) const {
    PackedMatrix matrix(out, in);
    int64_t row = 0;
    for (const std::string& name : names) {
      TH_TRY(std::span<const float> values, read(name));
      matrix.fill(row, values);
      row += static_cast<int64_t>(values.size()) / in;
    }
    TH_CHECK(row == out);
    return matrix;
  }

 private:
  const model::ParameterLayout& layout_;
  const WeightSource& source_;
};

Result<LlamaWeights::Layer> pack_layer(const model::ModelConfig& config, const Reader& reader,
                                       int64_t index) {
  const std::string layer = fmt::format("model.layers.{}.", index);
  const std::string attention = layer + "self_attn.", mlp = layer + "mlp.";
  const int64_t hidden = config.hidden_size, inner = config.intermediate_size;
  LlamaWeights::Layer out;
  TH_TRY(out.qkv,
         reader.pack({attention + "q_proj.weight", attention + "k_proj.weight", attention + "v_proj.weight"},
                     qkv_width(config), hidden));
  TH_TRY(out.o, reader.pack({attention + "o_proj.weight"}, hidden, heads_width(config)));
  TH_TRY(out.gate_up, reader.pack({mlp + "gate_proj.weight", mlp + "up_proj.weight"}, 2 * inner, hidden));
  TH_TRY(out.down, reader.pack({mlp + "down_proj.weight"}, hidden, inner));
  TH_TRY(out.norm_in, reader.copy(layer + "input_layernorm.weight"));
  TH_TRY(out.norm_mid, reader.copy(layer + "post_attention_layernorm.weight"));
  return out;
}

}  // namespace

Result<LlamaWeights> pack_weights(const model::ModelConfig& config, const WeightSource& source) {
  const model::ParameterLayout layout(config);
  const Reader reader(layout, source);
  LlamaWeights weights;
  weights.config = config;
  TH_TRY(weights.embedding, reader.copy("model.embed_tokens.weight"));
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
    TH_TRY(LlamaWeights::Layer layer, pack_layer(config, reader, i));
    weights.layers.push_back(std::move(layer));
  }
  TH_TRY(weights.norm_out, reader.copy("model.norm.weight"));
  const char* head = config.tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight";
  TH_TRY(weights.lm_head, reader.pack({head}, config.vocab_size, config.hidden_size));
  return weights;
}

Forward::Forward(const LlamaWeights& weights, const Limits& limits)
    : weights_(weights), rope_({limits.max_positions, weights.config.head_dim, weights.config.rope_theta}) {
  const model::ModelConfig& config = weights.config;
  x_.resize(floats(limits.max_rows, config.hidden_size));
  normed_.resize(floats(std::max(limits.max_rows, limits.max_logits), config.hidden_size));
  qkv_.resize(floats(limits.max_rows, qkv_width(config)));
  q_.resize(floats(limits.max_rows, heads_width(config)));
  attended_.resize(floats(limits.max_rows, heads_width(config)));
  gate_up_.resize(floats(limits.max_rows, 2 * config.intermediate_size));
  activated_.resize(floats(limits.max_rows, config.intermediate_size));
  logits_.resize(floats(limits.max_logits, config.vocab_size));
}

std::span<const float> Forward::run(std::span<const SequencePiece> pieces, KvCache& cache) {
  const model::ModelConfig& config = weights_.config;
  const int64_t hidden = config.hidden_size;
  const auto eps = static_cast<float>(config.norm_eps);
  gather(pieces);
  const auto rows = static_cast<int64_t>(tokens_.size());
  TH_CHECK(floats(rows, hidden) <= x_.size());
  tensor::embedding_forward(x_.data(), tokens_, weights_.embedding.data(), hidden);
  for (int64_t l = 0; l < config.num_hidden_layers; ++l) {
    const LlamaWeights::Layer& layer = weights_.layers[static_cast<size_t>(l)];
    tensor::rmsnorm_forward(normed_.data(), nullptr, x_.data(), layer.norm_in.data(), {rows, hidden}, eps);
    layer.qkv.multiply(qkv_.data(), normed_.data(), rows);
    store(pieces, l, cache);
    attend(pieces, l, cache);
    layer.o.multiply(x_.data(), attended_.data(), rows, true);
    tensor::rmsnorm_forward(normed_.data(), nullptr, x_.data(), layer.norm_mid.data(), {rows, hidden}, eps);
    layer.gate_up.multiply(gate_up_.data(), normed_.data(), rows);
    tensor::swiglu_forward(activated_.data(), gate_up_.data(), {rows, config.intermediate_size});
    layer.down.multiply(x_.data(), activated_.data(), rows, true);
  }
  int64_t wanted = 0, row = 0;
  for (const SequencePiece& piece : pieces) {
    row += static_cast<int64_t>(piece.tokens.size());
    if (!piece.wants_logits) continue;
    std::copy_n(x_.data() + (row - 1) * hidden, hidden, normed_.data() + wanted * hidden);
    ++wanted;
  }
  TH_CHECK(floats(wanted, config.vocab_size) <= logits_.size());
  if (wanted == 0) return {};
  tensor::rmsnorm_forward(normed_.data(), nullptr, normed_.data(), weights_.norm_out.data(), {wanted, hidden},
                          eps);
  weights_.lm_head.multiply(logits_.data(), normed_.data(), wanted);
  return {logits_.data(), floats(wanted, config.vocab_size)};
}

void Forward::gather(std::span<const SequencePiece> pieces) {
  tokens_.clear();
  positions_.clear();
  for (const SequencePiece& piece : pieces) {
    TH_CHECK(!piece.tokens.empty());
    tokens_.insert(tokens_.end(), piece.tokens.begin(), piece.tokens.end());
    for (size_t i = 0; i < piece.tokens.size(); ++i) {
      positions_.push_back(static_cast<int32_t>(piece.start + static_cast<int64_t>(i)));
    }
  }
}

// Turns q and k by their positions; k and v go to the cache, q to a matrix of its own.
void Forward::store(std::span<const SequencePiece> pieces, int64_t layer, KvCache& cache) {
  const model::ModelConfig& config = weights_.config;
  const int64_t width = qkv_width(config), q_width = heads_width(config), kv = kv_width(config);
  tensor::rope_forward(qkv_.data(), rope_, positions_, {config.num_attention_heads, width});
  tensor::rope_forward(qkv_.data() + q_width, rope_, positions_, {config.num_key_value_heads, width});
  int64_t row = 0;
  for (const SequencePiece& piece : pieces) {
    for (size_t i = 0; i < piece.tokens.size(); ++i, ++row) {
      const int64_t position = piece.start + static_cast<int64_t>(i);
      const int32_t block = (*piece.table)[static_cast<size_t>(position / kBlockTokens)];
      const int64_t offset = position % kBlockTokens * kv;
      const float* from = qkv_.data() + row * width;
      std::copy_n(from, q_width, q_.data() + row * q_width);
      std::copy_n(from + q_width, kv, cache.keys(block, layer) + offset);
      std::copy_n(from + q_width + kv, kv, cache.values(block, layer) + offset);
    }
  }
}

void Forward::attend(std::span<const SequencePiece> pieces, int64_t layer, KvCache& cache) {
  const model::ModelConfig& config = weights_.config;
  block_keys_.clear();
  block_values_.clear();
  for (const SequencePiece& piece : pieces) {
    for (const int32_t block : *piece.table) {
      block_keys_.push_back(cache.keys(block, layer));
      block_values_.push_back(cache.values(block, layer));
    }
  }
  views_.clear();
  size_t first = 0;
  for (const SequencePiece& piece : pieces) {
    for (size_t i = 0; i < piece.tokens.size(); ++i) {
      views_.push_back({block_keys_.data() + first, block_values_.data() + first, kBlockTokens,
                        piece.start + static_cast<int64_t>(i) + 1});
    }
    first += piece.table->size();
  }
  tensor::attention_cached(attended_.data(), q_.data(), views_,
                           {config.num_attention_heads, config.num_key_value_heads, config.head_dim});
}

}  // namespace th::serve
