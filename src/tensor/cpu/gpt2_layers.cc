#include "tensor/cpu/gpt2_layers.h"

#include <cmath>

#include "base/result.h"
#include "tensor/cpu/simd.h"

namespace th::tensor {
namespace {

bool valid(const RowDims& dims) { return dims.rows >= 0 && dims.width > 0; }

struct LayerNormArgs {
  const float* inp;
  LayerNormWeights weights;
  int64_t width;
  float eps;
};

TH_KERNEL void layernorm_rows(float* out, LayerNormSaved saved, const LayerNormArgs& args, int64_t begin,
                              int64_t end) {
  const int64_t width = args.width;
  const float *weight = args.weights.weight, *bias = args.weights.bias;
  for (int64_t r = begin; r < end; ++r) {
    const float* x = args.inp + r * width;
    float* y = out + r * width;
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < width; ++i) sum += x[i];
    const float mean = sum / static_cast<float>(width);
    float squares = 0;
#pragma omp simd reduction(+ : squares)
    for (int64_t i = 0; i < width; ++i) squares += (x[i] - mean) * (x[i] - mean);
    const float s = 1.0f / std::sqrt(squares / static_cast<float>(width) + args.eps);
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) y[i] = (x[i] - mean) * s * weight[i] + bias[i];
    if (saved.mean == nullptr) continue;
    saved.mean[r] = mean;
    saved.rstd[r] = s;
  }
}

struct LayerNormBack {
  const float *dout, *inp, *weight;
  LayerNormSaved saved;
  RowDims dims;
};

// With n = (inp - mean)·rstd and g = dout·weight: dinp = rstd·(g - mean(g) - n·mean(g·n)).
TH_KERNEL void layernorm_input_rows(float* dinp, const LayerNormBack& b, int64_t begin, int64_t end) {
  const int64_t width = b.dims.width;
  const float* weight = b.weight;
  for (int64_t r = begin; r < end; ++r) {
    const float *x = b.inp + r * width, *dy = b.dout + r * width;
    float* dx = dinp + r * width;
    const float mean = b.saved.mean[r], s = b.saved.rstd[r];
    float sum = 0, dot = 0;
#pragma omp simd reduction(+ : sum, dot)
    for (int64_t i = 0; i < width; ++i) {
      const float g = dy[i] * weight[i];
      sum += g;
      dot += g * (x[i] - mean);
    }
    const float all = sum / static_cast<float>(width);
    const float along = dot * s * s / static_cast<float>(width);
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) dx[i] += s * (dy[i] * weight[i] - all - (x[i] - mean) * along);
  }
}

// Columns [begin, end), rows in order: the same bits at any number of threads.
TH_KERNEL void layernorm_weight_columns(const LayerNormGradients& gradients, const LayerNormBack& b,
                                        int64_t begin, int64_t end) {
  const int64_t width = b.dims.width;
  float *dweight = gradients.dweight, *dbias = gradients.dbias;
  for (int64_t r = 0; r < b.dims.rows; ++r) {
    const float *x = b.inp + r * width, *dy = b.dout + r * width;
    const float mean = b.saved.mean[r], s = b.saved.rstd[r];
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) {
      dweight[i] += dy[i] * (x[i] - mean) * s;
      dbias[i] += dy[i];
    }
  }
}

// x·Φ(x) ≈ x·σ(2u) with u = √(2/π)·(x + 0.044715·x³), which is the tanh formula.
constexpr float kTwiceRoot = 1.5957691216057308f;
constexpr float kCubic = 0.044715f;

TH_KERNEL void gelu_range(float* out, const float* inp, int64_t begin, int64_t end) {
#pragma omp simd
  for (int64_t i = begin; i < end; ++i) {
    const float x = inp[i];
    out[i] = x / (1.0f + fast_exp(-kTwiceRoot * x * (1.0f + kCubic * x * x)));
  }
}

TH_KERNEL void gelu_backward_range(float* dinp, const float* dout, const float* inp, int64_t begin,
                                   int64_t end) {
#pragma omp simd
  for (int64_t i = begin; i < end; ++i) {
    const float x = inp[i];
    const float sigmoid = 1.0f / (1.0f + fast_exp(-kTwiceRoot * x * (1.0f + kCubic * x * x)));
    const float slope = kTwiceRoot * (1.0f + 3.0f * kCubic * x * x);
    dinp[i] = dout[i] * sigmoid * (1.0f + x * (1.0f - sigmoid) * slope);
  }
}

struct BiasArgs {
  const float *base, *bias;
  int64_t width;
};
TH_KERNEL void bias_rows(float* out, const BiasArgs& args, int64_t begin, int64_t end) {
  const int64_t width = args.width;
  const float* bias = args.bias;
  for (int64_t r = begin; r < end; ++r) {
    float* y = out + r * width;
    if (args.base == nullptr) {
      std::copy_n(bias, width, y);
      continue;
    }
    const float* x = args.base + r * width;
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) y[i] = x[i] + bias[i];
  }
}

TH_KERNEL void bias_columns(float* dbias, const float* dout, RowDims dims, int64_t begin, int64_t end) {
  for (int64_t r = 0; r < dims.rows; ++r) {
    const float* dy = dout + r * dims.width;
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) dbias[i] += dy[i];
  }
}

}  // namespace

void layernorm_forward(float* out, LayerNormSaved saved, const float* inp, LayerNormWeights weights,
                       RowDims dims, float eps) {
  TH_CHECK(valid(dims) && (saved.mean == nullptr) == (saved.rstd == nullptr));
  const LayerNormArgs args{inp, weights, dims.width, eps};
  parallel_ranges(dims.rows, dims.width,
                  [&](int64_t begin, int64_t end) { layernorm_rows(out, saved, args, begin, end); });
}

void layernorm_backward(const LayerNormGradients& gradients, const float* dout, const float* inp,
                        const float* weight, LayerNormSaved saved, RowDims dims) {
  TH_CHECK(valid(dims));
  const LayerNormBack back{dout, inp, weight, saved, dims};
  parallel_ranges(dims.rows, dims.width, [&](int64_t begin, int64_t end) {
    layernorm_input_rows(gradients.dinp, back, begin, end);
  });
  parallel_ranges(dims.width, dims.rows,
                  [&](int64_t begin, int64_t end) { layernorm_weight_columns(gradients, back, begin, end); });
}

void gelu_forward(float* out, const float* inp, RowDims dims) {
  TH_CHECK(valid(dims));
  parallel_ranges(dims.rows * dims.width, 4,
                  [&](int64_t begin, int64_t end) { gelu_range(out, inp, begin, end); });
}

void gelu_backward(float* dinp, const float* dout, const float* inp, RowDims dims) {
  TH_CHECK(valid(dims));
  parallel_ranges(dims.rows * dims.width, 4,
                  [&](int64_t begin, int64_t end) { gelu_backward_range(dinp, dout, inp, begin, end); });
}

void bias_forward(float* out, const float* base, const float* bias, RowDims dims) {
  TH_CHECK(valid(dims));
  const BiasArgs args{base, bias, dims.width};
  parallel_ranges(dims.rows, dims.width,
                  [&](int64_t begin, int64_t end) { bias_rows(out, args, begin, end); });
}

void bias_backward(float* dbias, const float* dout, RowDims dims) {
  TH_CHECK(valid(dims));
  parallel_ranges(dims.width, dims.rows,
                  [&](int64_t begin, int64_t end) { bias_columns(dbias, dout, dims, begin, end); });
}

}  // namespace th::tensor
