#pragma once
// What stands between the matrix products of a Llama block: RMSNorm, rotary positions, SwiGLU, the embedding.
// Rules of memory, threads and checks: matmul.h. A gradient that is added to says "+=", else it is replaced.

#include <cstdint>
#include <span>
#include <vector>

#include "base/bf16.h"

namespace th::tensor {

/// A contiguous (rows,width) matrix.
struct RowDims {
  int64_t rows;
  int64_t width;
};

/// out (rows,C) = inp (rows,C) · rstd · weight (C), rstd (rows) = 1/sqrt(mean(inp²) + eps). `rstd` may be
/// null where no backward follows. out may be inp.
void rmsnorm_forward(float* out, float* rstd, const float* inp, const float* weight, RowDims dims, float eps);
/// dinp (rows,C) +=, dweight (C) +=, from dout (rows,C) and the forward's inp, weight and rstd.
void rmsnorm_backward(float* dinp, float* dweight, const float* dout, const float* inp, const float* weight,
                      const float* rstd, RowDims dims);

/// cos and sin of position · theta^(-2i/head_dim), computed in double: (max_positions, head_dim/2) each.
class RopeTable {
 public:
  struct Options {
    int64_t max_positions;
    int64_t head_dim;  // even
    double theta;      // HF rope_theta
  };
  explicit RopeTable(const Options& options);
  int64_t max_positions() const { return max_positions_; }
  int64_t head_dim() const { return 2 * half_; }
  const float* cos(int64_t position) const { return cos_.data() + position * half_; }
  const float* sin(int64_t position) const { return sin_.data() + position * half_; }

 private:
  int64_t max_positions_;
  int64_t half_;
  std::vector<float> cos_;
  std::vector<float> sin_;
};

/// Row r holds `heads` heads of head_dim floats, from x + r·stride on (stride ≥ heads·head_dim, so that q or
/// k may be turned inside a fused [q|k|v] row). rows == positions.size().
struct RopeDims {
  int64_t heads;
  int64_t stride;
};
/// Turns the pairs (i, i + head_dim/2) of every head by its row's position, in place: Hugging Face's
/// rotate_half convention, so that weights mean the same there. positions: each in [0, max_positions).
void rope_forward(float* x, const RopeTable& table, std::span<const int32_t> positions, RopeDims dims);
/// The gradient: turns back, in place.
void rope_backward(float* dx, const RopeTable& table, std::span<const int32_t> positions, RopeDims dims);

/// out (rows,F) = silu(gate) · up, gate_up (rows,2F) = [gate | up] of each row; dims.width is F.
void swiglu_forward(float* out, const float* gate_up, RowDims dims);
/// dgate_up (rows,2F) from dout (rows,F). dgate_up may be gate_up.
void swiglu_backward(float* dgate_up, const float* dout, const float* gate_up, RowDims dims);

/// out (rows,C) = weight (V,C) at tokens (rows); each token in [0,V), which the caller has checked.
void embedding_forward(float* out, std::span<const int32_t> tokens, const float* weight, int64_t width);
void embedding_forward(float* out, std::span<const int32_t> tokens, const Bf16* weight, int64_t width);
/// out (rows,C) += weight (V,C) at tokens (rows).
void embedding_add(float* out, std::span<const int32_t> tokens, const float* weight, int64_t width);
void embedding_add(float* out, std::span<const int32_t> tokens, const Bf16* weight, int64_t width);
/// dweight (V,C) += dout (rows,C), in the order of the rows; in bfloat16 rounded after each.
void embedding_backward(float* dweight, const float* dout, std::span<const int32_t> tokens, int64_t width);
void embedding_backward(Bf16* dweight, const float* dout, std::span<const int32_t> tokens, int64_t width);

}  // namespace th::tensor
