#pragma once
// Softmax and cross entropy in one pass over the logits. Rules of memory, threads and checks: matmul.h.

#include <cstdint>
#include <span>

#include "tensor/cpu/layers.h"

namespace th::tensor {

/// A target that takes no part in the loss.
inline constexpr int32_t kIgnoreTarget = -1;

/// losses (rows) = -log softmax(logits)[target] in nats, 0 where the target is kIgnoreTarget; lse (rows) =
/// log of the sum of exp of the row, kept for the backward. logits (rows,V), targets (rows), each in [-1,V);
/// dims.width is V.
void cross_entropy_forward(float* losses, float* lse, const float* logits, std::span<const int32_t> targets,
                           RowDims dims);
/// logits (rows,V) becomes dlogits: (softmax(logits) - onehot(target)) · scale, 0 in ignored rows.
void cross_entropy_backward(float* logits, const float* lse, std::span<const int32_t> targets, RowDims dims,
                            float scale);
/// Both at once, each row while it is in the cache: losses (rows), and logits (rows,V) become dlogits.
void cross_entropy_forward_backward(float* losses, float* logits, std::span<const int32_t> targets,
                                    RowDims dims, float scale);

}  // namespace th::tensor
