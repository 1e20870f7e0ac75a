#pragma once
// What GPT-2 has where a Llama has RMSNorm and SwiGLU: LayerNorm, GELU, biases. Rules of memory, threads and
// checks: matmul.h. A gradient that is added to says "+=", else it is replaced.

#include <cstdint>

#include "tensor/cpu/layers.h"

namespace th::tensor {

/// out (rows,C) = (inp - mean) · rstd · weight (C) + bias (C), mean and rstd (rows) = 1/sqrt(var + eps) over
/// each row. Both may be null where no backward follows.
struct LayerNormSaved {
  float* mean;
  float* rstd;
};
struct LayerNormWeights {
  const float* weight;
  const float* bias;
};
void layernorm_forward(float* out, LayerNormSaved saved, const float* inp, LayerNormWeights weights,
                       RowDims dims, float eps);
/// dinp (rows,C) +=, dweight (C) +=, dbias (C) +=, from dout (rows,C) and the forward's inp, weight, mean and
/// rstd.
struct LayerNormGradients {
  float* dinp;
  float* dweight;
  float* dbias;
};
void layernorm_backward(const LayerNormGradients& gradients, const float* dout, const float* inp,
                        const float* weight, LayerNormSaved saved, RowDims dims);

/// out = x · Φ(x) by the tanh formula (Hugging Face's gelu_new), elementwise. out may be inp.
void gelu_forward(float* out, const float* inp, RowDims dims);
/// dinp from dout and the forward's inp. dinp may be inp.
void gelu_backward(float* dinp, const float* dout, const float* inp, RowDims dims);

/// out (rows,C) = base (rows,C) + bias (C) in each row; base null: the bias alone.
void bias_forward(float* out, const float* base, const float* bias, RowDims dims);
/// dbias (C) += the sum over the rows of dout (rows,C).
void bias_backward(float* dbias, const float* dout, RowDims dims);

}  // namespace th::tensor
