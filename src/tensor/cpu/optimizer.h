#pragma once
// AdamW and gradient arithmetic over flat buffers, of float32 or of bfloat16 with float32 master weights, or
// any slice of them. Rules of threads and checks: matmul.h.

#include <cstdint>
#include <span>

#include "base/bf16.h"

namespace th::tensor {

struct AdamWOptions {
  float learning_rate;
  float beta1 = 0.9f;
  float beta2 = 0.95f;
  float epsilon = 1e-8f;
  float weight_decay = 0;  // decoupled: params lose learning_rate · weight_decay of themselves
  int64_t step;            // 1 at the first update; for the bias correction
  float grad_scale = 1;    // gradients count so much, for clipping without a pass of its own
};
/// The optimizer's memory for the same slice: first and second moment, zeros before the first update.
struct AdamWState {
  std::span<float> m;
  std::span<float> v;
};
/// All four spans have one size. Elementwise, so that slices of a buffer, updated anywhere, give the whole
/// buffer's bits.
void adamw_update(std::span<float> params, std::span<const float> grads, AdamWState state,
                  const AdamWOptions& options);
/// The same on `master`, of which params become the rounded values. Moves 28 bytes an element, as the other.
void adamw_update(std::span<Bf16> params, std::span<float> master, std::span<const Bf16> grads,
                  AdamWState state, const AdamWOptions& options);

/// Sum of squares, accumulated in double in an order that depends on the size only. The gradient norm of a
/// model cut in slices is sqrt of the sum over slices.
double sum_of_squares(std::span<const float> values);
double sum_of_squares(std::span<const Bf16> values);
/// into += values; equal sizes.
void add(std::span<float> into, std::span<const float> values);
void add(std::span<Bf16> into, std::span<const Bf16> values);
void add(std::span<Bf16> into, std::span<const float> values);
/// Equal sizes; float to float is a copy.
void convert(std::span<float> into, std::span<const float> values);
void convert(std::span<float> into, std::span<const Bf16> values);
void convert(std::span<Bf16> into, std::span<const float> values);

}  // namespace th::tensor
