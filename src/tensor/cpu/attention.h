#pragma once
// Causal attention with grouped queries: query head h reads key/value head h / (heads / kv_heads). Scores are
// scaled by 1/sqrt(head_dim). Rules of memory, threads and checks: matmul.h.

#include <cstdint>
#include <span>

namespace th::tensor {

/// q, k and v are rows of a (B·T) matrix: row r of q is heads·head_dim floats from q + r·stride on, of k and
/// v kv_heads·head_dim floats; so a fused [q|k|v] row is read where it lies.
struct AttentionDims {
  int64_t batch;
  int64_t time;
  int64_t heads;
  int64_t kv_heads;  // divides heads
  int64_t head_dim;
  int64_t stride;  // between rows of q, of k and of v, and of their gradients
};

/// out (B,T,heads·head_dim), lse (B,heads,T) = log of the sum of exp of each row's scores: all that the
/// backward needs to make the probabilities again; no (T,T) matrix is kept. Cost: about 2·B·T²·heads·head_dim
/// flop (the causal half).
void attention_forward(float* out, float* lse, const float* q, const float* k, const float* v,
                       const AttentionDims& dims);
/// dq, dk, dv (replaced, laid out as q, k, v) from dout (B,T,heads·head_dim) and what the forward read and
/// wrote.
struct AttentionGradients {
  float* dq;
  float* dk;
  float* dv;
};
struct AttentionSaved {
  const float* q;
  const float* k;
  const float* v;
  const float* out;
  const float* lse;
};
void attention_backward(const AttentionGradients& gradients, const float* dout, const AttentionSaved& saved,
                        const AttentionDims& dims);

/// Keys and values of one sequence in blocks of `block_tokens` positions: position p is row p % block_tokens
/// of block p / block_tokens, a row is kv_heads·head_dim floats, rows are contiguous. One big block is a
/// plain cache.
struct KvView {
  const float* const* keys;    // array of pointers to blocks
  const float* const* values;  // the same, for values
  int64_t block_tokens;
  int64_t length;  // positions to attend to, from 0 on; at least 1
};
struct CachedAttentionDims {
  int64_t heads;
  int64_t kv_heads;
  int64_t head_dim;
};
/// out (rows,heads·head_dim): row r of q (rows,heads·head_dim) attends to the first views[r].length positions
/// of its cache, its own included. Rows may belong to different sequences (decoding) or be neighbours of one
/// (prefill).
void attention_cached(float* out, const float* q, std::span<const KvView> views,
                      const CachedAttentionDims& dims);

}  // namespace th::tensor
