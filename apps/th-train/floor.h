#pragma once
// The least that a training step on one rank costs: its matrix products alone, and its optimizer's bytes at
// the rate of memory.

#include <optional>
#include <vector>

#include "base/result.h"
#include "model/config.h"
#include "tensor/cpu/packed_products.h"

namespace th {

/// The products of forward and backward over `rows` tokens: of each matrix y = x·Wᵀ, dx = dy·W, dW = dyᵀ·x.
/// Those of attention (a hundredth of them at 64 tokens) are left out.
std::vector<tensor::PackedProduct> step_products(const model::ModelConfig& config, int64_t rows);

/// Bytes that AdamW moves for a parameter: gradient, weight, two moments read; weight and moments written.
inline constexpr double kOptimizerBytes = 28;

}  // namespace th
