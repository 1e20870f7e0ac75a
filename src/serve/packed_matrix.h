#pragma once
// A weight matrix laid out for products with few rows, whose results do not depend on how many rows there
// are.

#include <cstdint>
#include <span>
#include <vector>

namespace th::serve {

/// Columns of the product that one vector of the kernel holds.
inline constexpr int64_t kPanel = 16;

/// A (out,in) weight, stored (out/kPanel, in, kPanel), the last panel filled up with zeros. Each result is
/// one sum over `in` in ascending order: the same bits for a row whether it is alone or one of many, which a
/// general matrix product does not promise. Immutable. Memory: 4·in·out bytes, out rounded up to
/// kPanel.
class PackedMatrix {
 public:
  PackedMatrix() = default;
  /// From weight (out,in), row-major.
  PackedMatrix(int64_t out, int64_t in, std::span<const float> weight);
  int64_t out() const { return out_; }
  int64_t in() const { return in_; }

  /// result (rows,out) = input (rows,in) · weightᵀ; with `add`, result += that. Cost: 2·rows·in·out flop, the
  /// weight is read once for all rows. Work is spread over the calling thread's OpenMP threads.
  void multiply(float* result, const float* input, int64_t rows, bool add = false) const;

 private:
  int64_t out_ = 0, in_ = 0;
  std::vector<float> data_;
};

}  // namespace th::serve
