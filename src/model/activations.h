#pragma once
// For decoder.cc only: the sizes and the memory of a pass.

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "model/config.h"
#include "model/decoder.h"

namespace th::model {

using Buffer = std::unique_ptr<float[]>;

/// Widths of a row of the activations.
struct Widths {
  int64_t hidden, inner, queries, keys, qkv;
  int64_t up;  // of what the first matrix of the MLP makes: gate and up, or GPT-2's one
  explicit Widths(const ModelConfig& c)
      : hidden(c.hidden_size),
        inner(c.intermediate_size),
        queries(c.num_attention_heads * c.head_dim),
        keys(c.num_key_value_heads * c.head_dim),
        qkv(queries + 2 * keys),
        up(c.family == Family::kGpt2 ? inner : 2 * inner) {}
};

/// What the backward of a layer reads.
struct LayerActivations {
  float* qkv;       // (B,T, q+k+v) after the rotation
  float* lse;       // (B,heads,T)
  float* attended;  // (B,T, queries)
  float* x_mid;     // (B,T, hidden) residual stream between attention and MLP
  float* up;        // (B,T, up); becomes its own gradient
};

/// All buffers of a model, allocated once. Throws std::bad_alloc.
struct Activations {
  std::vector<float*> x;  // residual stream into each layer, and out of the last; (B,T, hidden) each
  std::vector<LayerActivations> layers;                 // with kFull all the same one
  float *mean, *rstd, *normed, *activated;              // forward scratch, made again in the backward
  float *dx, *dnormed, *dattended, *dqkv, *dactivated;  // backward scratch
  float *logits, *losses, *lse;
  int64_t logit_rows = 0;  // rows of logits at a time
  int64_t bytes = 0;

  template <class Limits>
  Activations(const ModelConfig& config, const Limits& limits) {
    const Widths w(config);
    const int64_t n = limits.max_batch * limits.max_time, heads = config.num_attention_heads;
    for (int64_t i = 0; i <= config.num_hidden_layers; ++i) x.push_back(take(n * w.hidden));
    for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
      if (i > 0 && limits.recompute == Recompute::kFull) {
        layers.push_back(layers[0]);
        continue;
      }
      const bool own = i == 0 || limits.recompute == Recompute::kNone;
      layers.push_back({.qkv = take(n * w.qkv),
                        .lse = own ? take(n * heads) : layers[0].lse,
                        .attended = own ? take(n * w.queries) : layers[0].attended,
                        .x_mid = take(n * w.hidden),
                        .up = take(n * w.up)});
    }
    mean = take(n), rstd = take(n), normed = take(n * w.hidden), activated = take(n * w.inner);
    dx = take(n * w.hidden), dnormed = take(n * w.hidden), dattended = take(n * w.queries);
    dqkv = take(n * w.qkv), dactivated = take(n * w.inner);
    logit_rows = std::clamp<int64_t>(limits.max_logit_floats / config.vocab_size, 1, n);
    logits = take(logit_rows * config.vocab_size);
    losses = take(n), lse = take(n);
  }

 private:
  float* take(int64_t floats) {
    bytes += floats * static_cast<int64_t>(sizeof(float));
    buffers_.push_back(std::make_unique_for_overwrite<float[]>(static_cast<size_t>(floats)));
    return buffers_.back().get();
  }
  std::vector<Buffer> buffers_;
};

}  // namespace th::model
