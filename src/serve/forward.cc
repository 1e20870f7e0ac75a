#include "serve/forward.h"

#include <algorithm>
#include <utility>

#include "tensor/cpu/attention.h"
#include "tensor/cpu/gpt2_layers.h"

namespace th::serve {
namespace {

int64_t heads_width(const model::ModelConfig& config) { return config.num_attention_heads * config.head_dim; }
int64_t kv_width(const model::ModelConfig& config) { return config.num_key_value_heads * config.head_dim; }
int64_t qkv_width(const model::ModelConfig& config) { return heads_width(config) + 2 * kv_width(config); }

size_t floats(int64_t rows, int64_t width) { return static_cast<size_t>(rows * width); }

int64_t up_width(const model::ModelConfig& config) {
  return config.family == model::Family::kGpt2 ? config.intermediate_size : 2 * config.intermediate_size;
}

class Reader {
 public:
  Reader(const model::ModelConfig& config, const model::ReadWeights& read)
      : has_biases_(config.family == model::Family::kGpt2), read_(read) {}

  Result<std::vector<float>> copy(int64_t offset, int64_t size) const {
    std::vector<float> values(static_cast<size_t>(size));
    TH_RETURN_IF_ERROR(read_(offset, values));
    return values;
  }

  Result<std::vector<float>> bias(int64_t offset, int64_t size) const {
    return copy(offset, has_biases_ ? size : 0);
  }

  Result<PackedMatrix> pack(int64_t offset, int64_t out, int64_t in) const {
    TH_TRY(const std::vector<float> values, copy(offset, out * in));
    return PackedMatrix(out, in, values);
  }

  struct At {
    int64_t weight, bias;
  };
  Result<DecoderWeights::Linear> linear(At at, int64_t out, int64_t in) const {
    DecoderWeights::Linear linear;
    TH_TRY(linear.weight, pack(at.weight, out, in));
    TH_TRY(linear.bias, bias(at.bias, out));
    return linear;
  }
  Result<DecoderWeights::Norm> norm(At at, int64_t size) const {
    DecoderWeights::Norm norm;
    TH_TRY(norm.weight, copy(at.weight, size));
    TH_TRY(norm.bias, bias(at.bias, size));
    return norm;
  }

 private:
  bool has_biases_;
  const model::ReadWeights& read_;
};

Result<DecoderWeights::Layer> pack_layer(const model::ModelConfig& config,
                                         const model::ParameterLayout::Layer& at, const Reader& reader) {
  const int64_t hidden = config.hidden_size, queries = heads_width(config);
  DecoderWeights::Layer out;
  TH_TRY(out.qkv, reader.linear({at.qkv, at.qkv_bias}, qkv_width(config), hidden));
  TH_TRY(out.o, reader.linear({at.o, at.o_bias}, hidden, queries));
  TH_TRY(out.up, reader.linear({at.gate_up, at.up_bias}, up_width(config), hidden));
  TH_TRY(out.down, reader.linear({at.down, at.down_bias}, hidden, config.intermediate_size));
  TH_TRY(out.norm_in, reader.norm({at.norm_in, at.norm_in_bias}, hidden));
  TH_TRY(out.norm_mid, reader.norm({at.norm_mid, at.norm_mid_bias}, hidden));
  return out;
}

}  // namespace

Result<DecoderWeights> pack_weights(const model::ModelConfig& config, const model::ParameterLayout& layout,
                                    const model::ReadWeights& read) {
  const Reader reader(config, read);
  const int64_t hidden = config.hidden_size;
  DecoderWeights weights;
  weights.config = config;
  TH_TRY(weights.embedding, reader.copy(layout.embedding, config.vocab_size * hidden));
  if (config.family == model::Family::kGpt2) {
    TH_TRY(weights.positions, reader.copy(layout.positions, config.max_position_embeddings * hidden));
  }
  for (const model::ParameterLayout::Layer& at : layout.layers) {
    TH_TRY(DecoderWeights::Layer layer, pack_layer(config, at, reader));
    weights.layers.push_back(std::move(layer));
  }
  TH_TRY(weights.norm_out, reader.norm({layout.norm_out, layout.norm_out_bias}, hidden));
  if (layout.lm_head == layout.embedding) {
    weights.lm_head = PackedMatrix(config.vocab_size, hidden, weights.embedding);
  } else {
    TH_TRY(weights.lm_head, reader.pack(layout.lm_head, config.vocab_size, hidden));
  }
  return weights;
}

Forward::Forward(const DecoderWeights& weights, const Limits& limits) : weights_(weights) {
  const model::ModelConfig& config = weights.config;
  if (is_gpt2()) {
    TH_CHECK(limits.max_positions <= config.max_position_embeddings);
  } else {
    rope_.emplace(tensor::RopeTable::Options{limits.max_positions, config.head_dim, config.rope_theta});
  }
  x_.resize(floats(limits.max_rows, config.hidden_size));
  normed_.resize(floats(std::max(limits.max_rows, limits.max_logits), config.hidden_size));
  qkv_.resize(floats(limits.max_rows, qkv_width(config)));
  q_.resize(floats(limits.max_rows, heads_width(config)));
  attended_.resize(floats(limits.max_rows, heads_width(config)));
  up_.resize(floats(limits.max_rows, up_width(config)));
  activated_.resize(floats(limits.max_rows, config.intermediate_size));
  logits_.resize(floats(limits.max_logits, config.vocab_size));
}

void Forward::embed() {
  const int64_t hidden = weights_.config.hidden_size;
  tensor::embedding_forward(x_.data(), tokens_, weights_.embedding.data(), hidden);
  if (is_gpt2()) tensor::embedding_add(x_.data(), positions_, weights_.positions.data(), hidden);
}

void Forward::norm(const float* inp, const DecoderWeights::Norm& norm, int64_t rows) {
  const tensor::RowDims dims{rows, weights_.config.hidden_size};
  const auto eps = static_cast<float>(weights_.config.norm_eps);
  if (is_gpt2()) {
    tensor::layernorm_forward(normed_.data(), {nullptr, nullptr}, inp, {norm.weight.data(), norm.bias.data()},
                              dims, eps);
  } else {
    tensor::rmsnorm_forward(normed_.data(), nullptr, inp, norm.weight.data(), dims, eps);
  }
}

void Forward::linear(float* out, const float* inp, const DecoderWeights::Linear& linear, bool add) {
  const auto rows = static_cast<int64_t>(tokens_.size());
  const bool has_bias = !linear.bias.empty();
  if (has_bias)
    tensor::bias_forward(out, add ? out : nullptr, linear.bias.data(), {rows, linear.weight.out()});
  linear.weight.multiply(out, inp, rows, add || has_bias);
}

std::span<const float> Forward::run(std::span<const SequencePiece> pieces, KvCache& cache) {
  const model::ModelConfig& config = weights_.config;
  const int64_t hidden = config.hidden_size;
  gather(pieces);
  const auto rows = static_cast<int64_t>(tokens_.size());
  TH_CHECK(floats(rows, hidden) <= x_.size());
  embed();
  const auto activate = is_gpt2() ? tensor::gelu_forward : tensor::swiglu_forward;
  for (int64_t l = 0; l < config.num_hidden_layers; ++l) {
    const DecoderWeights::Layer& layer = weights_.layers[static_cast<size_t>(l)];
    norm(x_.data(), layer.norm_in, rows);
    linear(qkv_.data(), normed_.data(), layer.qkv);
    store(pieces, l, cache);
    attend(pieces, l, cache);
    linear(x_.data(), attended_.data(), layer.o, true);
    norm(x_.data(), layer.norm_mid, rows);
    linear(up_.data(), normed_.data(), layer.up);
    activate(activated_.data(), up_.data(), {rows, config.intermediate_size});
    linear(x_.data(), activated_.data(), layer.down, true);
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
  norm(normed_.data(), weights_.norm_out, wanted);
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

// Turns a Llama's q and k by their positions; k and v go to the cache, q to a matrix of its own.
void Forward::store(std::span<const SequencePiece> pieces, int64_t layer, KvCache& cache) {
  const model::ModelConfig& config = weights_.config;
  const int64_t width = qkv_width(config), q_width = heads_width(config), kv = kv_width(config);
  if (rope_) {
    tensor::rope_forward(qkv_.data(), *rope_, positions_, {config.num_attention_heads, width});
    tensor::rope_forward(qkv_.data() + q_width, *rope_, positions_, {config.num_key_value_heads, width});
  }
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
