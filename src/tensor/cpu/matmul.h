#pragma once
// Matrix products on oneDNN, of float32 and of bfloat16 with sums in float32. All matrices are row-major; a
// weight is (out,in) as in PyTorch and Hugging Face.
//
// Everything in this room: pure functions over the caller's memory, which must not overlap unless said;
// pointers need no alignment. Sizes are checked by TH_CHECK (a wrong one is a bug of the caller), values are
// not. Thread: safe to call from several threads on distinct outputs; inside, work is spread over
// OMP_NUM_THREADS threads. The same inputs and thread count give the same bits.

#include <cstdint>

#include "base/bf16.h"

namespace th::tensor {

/// What a kernel does with its output: replace it, or add to it.
enum class Write { kReplace, kAdd };

/// rows: B*T or the number of requests; in = C, out = OC.
struct MatmulDims {
  int64_t rows;
  int64_t in;
  int64_t out;
};

/// out (rows,OC) =|+= inp (rows,C) · weight (OC,C)ᵀ.  Cost: 2·rows·C·OC flop. Up to kFewRows rows it streams
/// the weight once at the speed of memory (decoding); above, it is oneDNN's sgemm.
void matmul_forward(float* out, const float* inp, const float* weight, MatmulDims dims,
                    Write write = Write::kReplace);
inline constexpr int64_t kFewRows = 4;

/// dinp (rows,C) =|+= dout (rows,OC) · weight (OC,C).
void matmul_backward_input(float* dinp, const float* dout, const float* weight, MatmulDims dims,
                           Write write = Write::kReplace);

/// dweight (OC,C) =|+= dout (rows,OC)ᵀ · inp (rows,C).
void matmul_backward_weight(float* dweight, const float* dout, const float* inp, MatmulDims dims,
                            Write write = Write::kAdd);

/// The same with weights in bfloat16: inp and dout are rounded to bfloat16, products are summed in float32;
/// dweight is rounded after the sum. On processors with bfloat16 instructions these are oneDNN's bfloat16
/// products; elsewhere, where it would emulate them at a third of the speed of float32 (measured on Cascade
/// Lake), the rounded values are multiplied in float32.
void matmul_forward(float* out, const float* inp, const Bf16* weight, MatmulDims dims,
                    Write write = Write::kReplace);
void matmul_backward_input(float* dinp, const float* dout, const Bf16* weight, MatmulDims dims,
                           Write write = Write::kReplace);
void matmul_backward_weight(Bf16* dweight, const float* dout, const float* inp, MatmulDims dims,
                            Write write = Write::kAdd);
/// Whether this processor has bfloat16 instructions that oneDNN uses.
bool has_bf16_products();

/// One product on strided views: c (m,n) = alpha · op(a) (m,k) · op(b) (k,n) + beta · c. A leading dimension
/// is the distance in floats between rows as stored: a is (m,k), or (k,m) when transposed.
struct Gemm {
  bool transpose_a = false;
  bool transpose_b = false;
  int64_t m, n, k;
  float alpha = 1;
  const float* a;
  int64_t lda;
  const float* b;
  int64_t ldb;
  float beta = 0;
  float* c;
  int64_t ldc;
};
void gemm(const Gemm& product);

}  // namespace th::tensor
