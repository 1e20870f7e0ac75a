#pragma once
// A Llama-family language model (RMSNorm, rotary positions, grouped-query attention, SwiGLU) in float32,
// forward and backward. Parameters and gradients are one flat buffer each, owned by the caller, so that an
// optimizer, ZeRO or a checkpoint may cut them anywhere.

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "model/config.h"

namespace th::model {

/// One tensor in the flat buffer. A matrix is (out,in), row-major, as Hugging Face stores it.
struct Parameter {
  std::string name;  // "model.layers.0.self_attn.q_proj.weight"
  std::vector<int64_t> shape;
  int64_t offset;  // in floats
  int64_t size;    // product of shape
};

/// Where each tensor lies. No gaps. All matrices come first, all norm weights last: weight decay is for
/// [0, decayed_size) only. The q, k and v projections of a layer are neighbours, as are gate and up, so that
/// [q|k|v] is one (q+k+v, hidden) matrix and [gate|up] one (2·intermediate, hidden) matrix.
struct ParameterLayout {
  explicit ParameterLayout(const LlamaConfig& config);

  std::vector<Parameter> parameters;  // ascending offset
  int64_t decayed_size = 0;
  int64_t size = 0;  // floats in all

  /// Null when there is none of that name (lm_head.weight with tied embeddings). Cost: O(log parameters).
  const Parameter* find(std::string_view name) const;

  // Offsets, for code that walks the layers.
  struct Layer {
    int64_t qkv;       // ((heads + 2·kv_heads)·head_dim, hidden)
    int64_t o;         // (hidden, heads·head_dim)
    int64_t gate_up;   // (2·intermediate, hidden)
    int64_t down;      // (hidden, intermediate)
    int64_t norm_in;   // (hidden) input_layernorm
    int64_t norm_mid;  // (hidden) post_attention_layernorm
  };
  std::vector<Layer> layers;
  int64_t embedding = 0;  // (vocab, hidden)
  int64_t lm_head = 0;    // (vocab, hidden); == embedding when tied
  int64_t norm_out = 0;   // (hidden) model.norm

 private:
  std::vector<size_t> by_name_;
};

/// Fresh weights: normal with deviation 0.02, projections into the residual stream (o, down)
/// 0.02/sqrt(2·layers), norms 1. params.size() == layout.size. The same seed gives the same bits on every
/// machine.
void init_parameters(std::span<float> params, const ParameterLayout& layout, uint64_t seed);

/// Training flop (forward and backward) of one token at sequence length `time`: 6·matrix parameters that
/// multiply
/// + 6·layers·time·heads·head_dim (causal half).
double training_flop_per_token(const LlamaConfig& config, int64_t time);

/// Owns the activations for at most max_batch sequences of max_time tokens. Thread: one owner; kernels inside
/// use OMP_NUM_THREADS. The same inputs and thread count give the same bits.
class Llama {
 public:
  struct Limits {
    int64_t max_batch;
    int64_t max_time;  // at most max_position_embeddings
    // Logits are made this many floats at a time (64 MiB); a batch that fits keeps them for the backward.
    int64_t max_logit_floats = int64_t{1} << 24;
  };
  /// `config` has passed check_llama_config. Errors: kInvalidArgument (limits), kResourceExhausted (no
  /// memory; says how much it wanted).
  static Result<Llama> create(const LlamaConfig& config, const Limits& limits);
  Llama(Llama&&) noexcept;
  Llama& operator=(Llama&&) noexcept;
  ~Llama();

  const LlamaConfig& config() const;
  const ParameterLayout& layout() const;
  /// Bytes of activations and scratch.
  int64_t activation_bytes() const;

  /// A batch in row order: tokens and targets are (batch,time); a target of -1 takes no part in the loss.
  struct Batch {
    std::span<const int32_t> tokens;
    std::span<const int32_t> targets;
    int64_t batch;
    int64_t time;
  };
  /// Mean loss in nats over the targets that count (0 when none does); params.size() == layout().size.
  /// Errors: kInvalidArgument: batch or time beyond the limits, sizes that do not match, a token or target
  /// outside of the vocabulary (named with its place). A loss that is not finite is returned as it is.
  Result<float> forward(std::span<const float> params, const Batch& batch);
  /// Adds scale · d(mean loss)/d(params) of the last forward to grads (size layout().size). Once after a
  /// forward that succeeded, with the same params; anything else is a bug.
  void backward(std::span<const float> params, std::span<float> grads, float scale = 1);

 private:
  struct State;
  explicit Llama(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace th::model
