#include "tensor/cpu/loss.h"

#include <cmath>

#include "base/result.h"
#include "tensor/cpu/simd.h"

namespace th::tensor {
namespace {

TH_KERNEL float log_sum_exp(const float* x, int64_t n) {
  float max = x[0];
#pragma omp simd reduction(max : max)
  for (int64_t i = 0; i < n; ++i) max = x[i] > max ? x[i] : max;
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += fast_exp(x[i] - max);
  return max + std::log(sum);
}

TH_KERNEL void softmax_scaled(float* x, int64_t n, float lse, float scale) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) x[i] = fast_exp(x[i] - lse) * scale;
}

/// A row of logits becomes its gradient; all 0 where the target takes no part.
void become_gradient(float* row, int64_t width, float lse, int32_t target, float scale) {
  if (target == kIgnoreTarget) {
    std::fill_n(row, width, 0.0f);
    return;
  }
  softmax_scaled(row, width, lse, scale);
  row[target] -= scale;
}

void check(std::span<const int32_t> targets, const RowDims& dims) {
  TH_CHECK(dims.width > 0 && dims.rows == static_cast<int64_t>(targets.size()));
  for (const int32_t target : targets) TH_CHECK(target >= kIgnoreTarget && target < dims.width);
}

}  // namespace

void cross_entropy_forward(float* losses, float* lse, const float* logits, std::span<const int32_t> targets,
                           RowDims dims) {
  check(targets, dims);
  parallel_ranges(dims.rows, dims.width, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float* row = logits + r * dims.width;
      const int32_t target = targets[static_cast<size_t>(r)];
      if (target == kIgnoreTarget) {
        losses[r] = lse[r] = 0;
        continue;
      }
      lse[r] = log_sum_exp(row, dims.width);
      losses[r] = lse[r] - row[target];
    }
  });
}

void cross_entropy_backward(float* logits, const float* lse, std::span<const int32_t> targets, RowDims dims,
                            float scale) {
  check(targets, dims);
  parallel_ranges(dims.rows, dims.width, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      become_gradient(logits + r * dims.width, dims.width, lse[r], targets[static_cast<size_t>(r)], scale);
  });
}

void cross_entropy_forward_backward(float* losses, float* logits, std::span<const int32_t> targets,
                                    RowDims dims, float scale) {
  check(targets, dims);
  parallel_ranges(dims.rows, dims.width, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      float* row = logits + r * dims.width;
      const int32_t target = targets[static_cast<size_t>(r)];
      const float lse = target == kIgnoreTarget ? 0 : log_sum_exp(row, dims.width);
      losses[r] = target == kIgnoreTarget ? 0 : lse - row[target];
      become_gradient(row, dims.width, lse, target, scale);
    }
  });
}

}  // namespace th::tensor
