#pragma once
// The Llama forward pass over pieces of several sequences at once, with keys and values in the paged cache.

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "base/result.h"
#include "model/decoder.h"
#include "serve/kv_cache.h"
#include "serve/packed_matrix.h"
#include "tensor/cpu/attention.h"
#include "tensor/cpu/layers.h"

namespace th::serve {

/// Weights as the forward pass reads them: matrices packed, norms and the embedding as they are.
struct LlamaWeights {
  model::ModelConfig config;
  std::vector<float> embedding;  // (vocab, hidden)
  struct Layer {
    PackedMatrix qkv;      // ((heads + 2·kv_heads)·head_dim, hidden)
    PackedMatrix o;        // (hidden, heads·head_dim)
    PackedMatrix gate_up;  // (2·intermediate, hidden)
    PackedMatrix down;     // (hidden, intermediate)
    std::vector<float> norm_in, norm_mid;
  };
  std::vector<Layer> layers;
  std::vector<float> norm_out;
  PackedMatrix lm_head;  // (vocab, hidden)

  KvShape kv_shape() const {
    return {config.num_hidden_layers, config.num_key_value_heads * config.head_dim};
  }
};

/// Gives the values of one tensor, exactly as many as its shape says.
using WeightSource = std::function<Result<std::span<const float>>(const model::Parameter&)>;

/// `config` has passed check_model_config. Errors: those of `source`; kDataLoss naming a tensor with a value
/// that is not finite.
Result<LlamaWeights> pack_weights(const model::ModelConfig& config, const WeightSource& source);

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
  Forward(const LlamaWeights& weights, const Limits& limits);

  /// Writes keys and values of all pieces to the cache. Returns logits (pieces that want them, vocab) in the
  /// order of the pieces, valid until the next call.
  std::span<const float> run(std::span<const SequencePiece> pieces, KvCache& cache);

 private:
  void gather(std::span<const SequencePiece> pieces);
  void attend(std::span<const SequencePiece> pieces, int64_t layer, KvCache& cache);
  void store(std::span<const SequencePiece> pieces, int64_t layer, KvCache& cache);

  const LlamaWeights& weights_;
  tensor::RopeTable rope_;
  std::vector<int32_t> tokens_, positions_;
  std::vector<float> x_, normed_, qkv_, q_, attended_, gate_up_, activated_, logits_;
  std::vector<const float*> block_keys_, block_values_;  // of one layer, all pieces one after the other
  std::vector<tensor::KvView> views_;                    // one a row
};

}  // namespace th::serve
