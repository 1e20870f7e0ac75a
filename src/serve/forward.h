#pragma once
// The forward pass of a Llama or GPT-2 over pieces of several sequences at once, with keys and values in the
// paged cache.

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "model/decoder.h"
#include "model/weights.h"
#include "serve/kv_cache.h"
#include "serve/packed_matrix.h"
#include "tensor/cpu/attention.h"
#include "tensor/cpu/layers.h"

namespace th::serve {

/// Weights as the forward pass reads them: matrices packed, the rest as it is. Biases are GPT-2's, else
/// empty.
struct DecoderWeights {
  struct Linear {
    PackedMatrix weight;
    std::vector<float> bias;
  };
  struct Norm {
    std::vector<float> weight, bias;
  };
  struct Layer {
    Linear qkv;   // ((heads + 2·kv_heads)·head_dim, hidden)
    Linear o;     // (hidden, heads·head_dim)
    Linear up;    // Llama's [gate|up]: (2·intermediate, hidden); GPT-2's c_fc: (intermediate, hidden)
    Linear down;  // (hidden, intermediate)
    Norm norm_in, norm_mid;
  };
  model::ModelConfig config;
  std::vector<float> embedding;  // (vocab, hidden)
  std::vector<float> positions;  // (max_position_embeddings, hidden): GPT-2's
  std::vector<Layer> layers;
  Norm norm_out;
  PackedMatrix lm_head;  // (vocab, hidden)

  KvShape kv_shape() const {
    return {config.num_hidden_layers, config.num_key_value_heads * config.head_dim};
  }
};

/// `config` has passed check_model_config, `layout` is its. Errors: those of `read`.
Result<DecoderWeights> pack_weights(const model::ModelConfig& config, const model::ParameterLayout& layout,
                                    const model::ReadWeights& read);

/// The next tokens of one sequence, at positions start, start+1, …
struct SequencePiece {
  std::span<const int32_t> tokens;    // at least one, each in [0, vocab)
  int64_t start = 0;                  // positions before it are in the cache already
  const BlockTable* table = nullptr;  // covers start + tokens.size() positions
  bool wants_logits = false;          // of its last token
};

/// Thread: one owner; kernels use the calling thread's OpenMP threads. What comes out for a sequence is the
/// same to the bit, whatever else is in the batch and however its tokens were cut into pieces.
class Forward {
 public:
  struct Limits {
    int64_t max_rows;       // tokens of all pieces together
    int64_t max_logits;     // pieces that want logits
    int64_t max_positions;  // of one sequence
  };
  /// Keeps a reference to `weights`, which must outlive it.
  Forward(const DecoderWeights& weights, const Limits& limits);

  /// Writes keys and values of all pieces to the cache. Returns logits (pieces that want them, vocab) in the
  /// order of the pieces, valid until the next call.
  std::span<const float> run(std::span<const SequencePiece> pieces, KvCache& cache);

 private:
  bool is_gpt2() const { return weights_.config.family == model::Family::kGpt2; }
  void embed();
  /// normed = the norm of inp (rows, hidden), which it may be.
  void norm(const float* inp, const DecoderWeights::Norm& norm, int64_t rows);
  /// out = inp · weightᵀ + bias, with `add` added to what is there.
  void linear(float* out, const float* inp, const DecoderWeights::Linear& linear, bool add = false);
  void gather(std::span<const SequencePiece> pieces);
  void attend(std::span<const SequencePiece> pieces, int64_t layer, KvCache& cache);
  void store(std::span<const SequencePiece> pieces, int64_t layer, KvCache& cache);

  const DecoderWeights& weights_;
  std::optional<tensor::RopeTable> rope_;  // a Llama's
  std::vector<int32_t> tokens_, positions_;
  std::vector<float> x_, normed_, qkv_, q_, attended_, up_, activated_, logits_;
  std::vector<const float*> block_keys_, block_values_;  // of one layer, all pieces one after the other
  std::vector<tensor::KvView> views_;                    // one a row
};

}  // namespace th::serve
