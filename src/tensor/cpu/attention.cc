#include "tensor/cpu/attention.h"

#include <cmath>
#include <limits>
#include <memory>

#include "base/result.h"
#include "tensor/cpu/matmul.h"
#include "tensor/cpu/simd.h"

namespace th::tensor {
namespace {

// Queries are taken this many at a time: the scores of a tile stay in the L2 cache, and keys after it are
// skipped.
constexpr int64_t kTile = 64;

bool valid(const AttentionDims& d) {
  return d.batch >= 0 && d.time > 0 && d.kv_heads > 0 && d.heads > 0 && d.heads % d.kv_heads == 0 &&
         d.head_dim > 0 && d.stride >= d.heads * d.head_dim;
}

// A tile of queries [first, first + rows) against the keys [0, keys) that any of them sees; keys == first +
// rows.
struct Tile {
  int64_t first, rows, keys;
};
Tile tile_at(int64_t first, int64_t time) {
  const int64_t rows = std::min(kTile, time - first);
  return {first, rows, first + rows};
}

// scores (rows,keys) become probabilities; row i sees first + i + 1 keys, the rest is 0.
TH_KERNEL void softmax_tile(float* scores, float* lse, Tile tile) {
  for (int64_t i = 0; i < tile.rows; ++i) {
    float* s = scores + i * tile.keys;
    const int64_t seen = tile.first + i + 1;
    float max = s[0];
#pragma omp simd reduction(max : max)
    for (int64_t j = 0; j < seen; ++j) max = s[j] > max ? s[j] : max;
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < seen; ++j) {
      s[j] = fast_exp(s[j] - max);
      sum += s[j];
    }
    const float inverse = 1.0f / sum;
#pragma omp simd
    for (int64_t j = 0; j < seen; ++j) s[j] *= inverse;
    std::fill(s + seen, s + tile.keys, 0.0f);
    lse[i] = max + std::log(sum);
  }
}

// scores (rows,keys) become probabilities again, from the forward's lse.
TH_KERNEL void reprobability_tile(float* scores, const float* lse, Tile tile) {
  for (int64_t i = 0; i < tile.rows; ++i) {
    float* s = scores + i * tile.keys;
    const int64_t seen = tile.first + i + 1;
#pragma omp simd
    for (int64_t j = 0; j < seen; ++j) s[j] = fast_exp(s[j] - lse[i]);
    std::fill(s + seen, s + tile.keys, 0.0f);
  }
}

// dp (rows,keys) becomes the gradient of the unscaled scores: p · (dp - sum(dout·out)) · scale.
struct SoftmaxGradient {
  const float* probabilities;
  const float* dout;  // rows of head_dim, `stride` apart, as out
  const float* out;
  int64_t stride, head_dim;
  float scale;
};
TH_KERNEL void softmax_backward_tile(float* dp, const SoftmaxGradient& g, Tile tile) {
  for (int64_t i = 0; i < tile.rows; ++i) {
    const float* dout = g.dout + i * g.stride;
    const float* out = g.out + i * g.stride;
    float dot = 0;
#pragma omp simd reduction(+ : dot)
    for (int64_t c = 0; c < g.head_dim; ++c) dot += dout[c] * out[c];
    const float* p = g.probabilities + i * tile.keys;
    float* d = dp + i * tile.keys;
#pragma omp simd
    for (int64_t j = 0; j < tile.keys; ++j) d[j] = p[j] * (d[j] - dot) * g.scale;
  }
}

// a (rows, head_dim) · b (keys, head_dim)ᵀ of a tile, rows `lda` and `ldb` apart.
struct ScoreArgs {
  const float* a;
  int64_t lda;
  const float* b;
  int64_t ldb;
  float alpha;
};
void score_tile(float* scores, const ScoreArgs& args, Tile tile, int64_t head_dim) {
  gemm({.transpose_b = true,
        .m = tile.rows,
        .n = tile.keys,
        .k = head_dim,
        .alpha = args.alpha,
        .a = args.a,
        .lda = args.lda,
        .b = args.b,
        .ldb = args.ldb,
        .c = scores,
        .ldc = tile.keys});
}

// One head of one sequence: pointers to its first row.
struct HeadForward {
  float* out;
  float* lse;
  const float *q, *k, *v;
};
void forward_head(const HeadForward& head, float* scores, const AttentionDims& d) {
  const int64_t out_stride = d.heads * d.head_dim;
  const float scale = 1.0f / std::sqrt(static_cast<float>(d.head_dim));
  for (int64_t first = 0; first < d.time; first += kTile) {
    const Tile tile = tile_at(first, d.time);
    score_tile(scores, {head.q + first * d.stride, d.stride, head.k, d.stride, scale}, tile, d.head_dim);
    softmax_tile(scores, head.lse + first, tile);
    gemm({.m = tile.rows,
          .n = d.head_dim,
          .k = tile.keys,
          .a = scores,
          .lda = tile.keys,
          .b = head.v,
          .ldb = d.stride,
          .c = head.out + first * out_stride,
          .ldc = out_stride});
  }
}

struct HeadBackward {
  float *dq, *dk, *dv;
  const float* dout;
  const float *q, *k, *v, *out, *lse;
};
// grad (keys, head_dim) += weights (rows, keys)ᵀ · rows (rows, head_dim).
void add_transposed(float* grad, int64_t grad_stride, const float* weights, const float* rows,
                    int64_t rows_stride, Tile tile, int64_t head_dim) {
  gemm({.transpose_a = true,
        .m = tile.keys,
        .n = head_dim,
        .k = tile.rows,
        .a = weights,
        .lda = tile.keys,
        .b = rows,
        .ldb = rows_stride,
        .beta = 1,
        .c = grad,
        .ldc = grad_stride});
}

// dk and dv are added to. p and dp: room for a tile of scores each.
void backward_head(const HeadBackward& head, float* p, float* dp, const AttentionDims& d) {
  const int64_t out_stride = d.heads * d.head_dim;
  const float scale = 1.0f / std::sqrt(static_cast<float>(d.head_dim));
  for (int64_t first = 0; first < d.time; first += kTile) {
    const Tile tile = tile_at(first, d.time);
    const float* q = head.q + first * d.stride;
    const float* dout = head.dout + first * out_stride;
    const float* out = head.out + first * out_stride;
    score_tile(p, {q, d.stride, head.k, d.stride, scale}, tile, d.head_dim);
    reprobability_tile(p, head.lse + first, tile);
    add_transposed(head.dv, d.stride, p, dout, out_stride, tile, d.head_dim);
    score_tile(dp, {dout, out_stride, head.v, d.stride, 1.0f}, tile, d.head_dim);
    softmax_backward_tile(dp, {p, dout, out, out_stride, d.head_dim, scale}, tile);
    gemm({.m = tile.rows,
          .n = d.head_dim,
          .k = tile.keys,
          .a = dp,
          .lda = tile.keys,
          .b = head.k,
          .ldb = d.stride,
          .c = head.dq + first * d.stride,
          .ldc = d.stride});
    add_transposed(head.dk, d.stride, dp, q, d.stride, tile, d.head_dim);
  }
}

void zero_rows(float* x, int64_t rows, int64_t stride, int64_t width) {
  for (int64_t r = 0; r < rows; ++r) std::fill_n(x + r * stride, width, 0.0f);
}

std::unique_ptr<float[]> scratch(int64_t floats) {
  return std::make_unique_for_overwrite<float[]>(static_cast<size_t>(floats));
}

TH_KERNEL void cached_head(float* out, float* scores, const float* q, const KvView& view, int64_t offset,
                           const CachedAttentionDims& d) {
  const int64_t stride = d.kv_heads * d.head_dim;
  const float scale = 1.0f / std::sqrt(static_cast<float>(d.head_dim));
  float max = -std::numeric_limits<float>::infinity();
  for (int64_t first = 0; first < view.length; first += view.block_tokens) {
    const float* k = view.keys[first / view.block_tokens] + offset;
    const int64_t end = std::min(view.length, first + view.block_tokens);
    for (int64_t p = first; p < end; ++p, k += stride) {
      float dot = 0;
#pragma omp simd reduction(+ : dot)
      for (int64_t c = 0; c < d.head_dim; ++c) dot += q[c] * k[c];
      scores[p] = dot * scale;
      max = scores[p] > max ? scores[p] : max;
    }
  }
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t p = 0; p < view.length; ++p) {
    scores[p] = fast_exp(scores[p] - max);
    sum += scores[p];
  }
  const float inverse = 1.0f / sum;
  std::fill_n(out, d.head_dim, 0.0f);
  for (int64_t first = 0; first < view.length; first += view.block_tokens) {
    const float* v = view.values[first / view.block_tokens] + offset;
    const int64_t end = std::min(view.length, first + view.block_tokens);
    for (int64_t p = first; p < end; ++p, v += stride) {
      const float weight = scores[p] * inverse;
#pragma omp simd
      for (int64_t c = 0; c < d.head_dim; ++c) out[c] += weight * v[c];
    }
  }
}

}  // namespace

void attention_forward(float* out, float* lse, const float* q, const float* k, const float* v,
                       const AttentionDims& dims) {
  TH_CHECK(valid(dims));
  const AttentionDims& d = dims;
  const int64_t group = d.heads / d.kv_heads;
  parallel_ranges(d.batch * d.heads, d.time * d.time * d.head_dim, [&](int64_t begin, int64_t end) {
    const auto scores = scratch(kTile * d.time);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = i / d.heads * d.time;
      const int64_t head = i % d.heads;
      const int64_t kv = row * d.stride + head / group * d.head_dim;
      forward_head({.out = out + (row * d.heads + head) * d.head_dim,
                    .lse = lse + i * d.time,
                    .q = q + row * d.stride + head * d.head_dim,
                    .k = k + kv,
                    .v = v + kv},
                   scores.get(), d);
    }
  });
}

void attention_backward(const AttentionGradients& gradients, const float* dout, const AttentionSaved& saved,
                        const AttentionDims& dims) {
  TH_CHECK(valid(dims));
  const AttentionDims& d = dims;
  const int64_t group = d.heads / d.kv_heads;
  // One thread owns a key/value head and goes through the query heads that share it, in order.
  parallel_ranges(d.batch * d.kv_heads, group * d.time * d.time * d.head_dim,
                  [&](int64_t begin, int64_t end) {
                    const auto p = scratch(kTile * d.time);
                    const auto dp = scratch(kTile * d.time);
                    for (int64_t i = begin; i < end; ++i) {
                      const int64_t row = i / d.kv_heads * d.time;
                      const int64_t kv_head = i % d.kv_heads;
                      const int64_t kv = row * d.stride + kv_head * d.head_dim;
                      zero_rows(gradients.dk + kv, d.time, d.stride, d.head_dim);
                      zero_rows(gradients.dv + kv, d.time, d.stride, d.head_dim);
                      for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
                        const int64_t in = row * d.stride + head * d.head_dim;
                        const int64_t outer = (row * d.heads + head) * d.head_dim;
                        backward_head({.dq = gradients.dq + in,
                                       .dk = gradients.dk + kv,
                                       .dv = gradients.dv + kv,
                                       .dout = dout + outer,
                                       .q = saved.q + in,
                                       .k = saved.k + kv,
                                       .v = saved.v + kv,
                                       .out = saved.out + outer,
                                       .lse = saved.lse + row * d.heads + head * d.time},
                                      p.get(), dp.get(), d);
                      }
                    }
                  });
}

void attention_cached(float* out, const float* q, std::span<const KvView> views,
                      const CachedAttentionDims& dims) {
  const CachedAttentionDims& d = dims;
  TH_CHECK(d.kv_heads > 0 && d.heads > 0 && d.heads % d.kv_heads == 0 && d.head_dim > 0);
  int64_t longest = 1;
  for (const KvView& view : views) {
    TH_CHECK(view.length >= 1 && view.block_tokens >= 1);
    longest = std::max(longest, view.length);
  }
  const int64_t group = d.heads / d.kv_heads;
  const auto heads = static_cast<int64_t>(views.size()) * d.heads;
  parallel_ranges(heads, longest * d.head_dim, [&](int64_t begin, int64_t end) {
    const auto scores = scratch(longest);
    for (int64_t i = begin; i < end; ++i) {
      const KvView& view = views[static_cast<size_t>(i / d.heads)];
      const int64_t offset = i % d.heads / group * d.head_dim;
      cached_head(out + i * d.head_dim, scores.get(), q + i * d.head_dim, view, offset, d);
    }
  });
}

}  // namespace th::tensor
