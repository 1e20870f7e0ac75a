#pragma once
// What matrix products cost at best: oneDNN's own choice of packing for the second factor, made once and
// reused. The floor that benchmarks hold a training step against.

#include <cstdint>
#include <memory>
#include <vector>

#include "base/result.h"

namespace th::tensor {

/// c (m,n) = a (m,k) · b (k,n); a is stored (k,m) when transposed.
struct PackedProduct {
  int64_t m, n, k;
  bool transpose_a = false;
};

/// A list of products, each with a packed factor and a result of its own, so that they come from memory as in
/// a model. In float32, or in bfloat16 where has_bf16_products(). Thread: one at a time.
class PackedProducts {
 public:
  /// Errors: kResourceExhausted.
  static Result<PackedProducts> create(const std::vector<PackedProduct>& products, bool bf16);
  PackedProducts(PackedProducts&&) noexcept;
  ~PackedProducts();
  /// Runs all of them once. Returns: seconds.
  double run();

 private:
  struct State;
  explicit PackedProducts(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

/// Bytes a second of a[i] = b[i] + s · c[i] over arrays that no cache holds, 24 bytes an element as STREAM
/// counts (McCalpin 1995), all OpenMP threads; the best of a few.
double triad_bytes_per_s();

}  // namespace th::tensor
