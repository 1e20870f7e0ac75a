#pragma once
// bfloat16: the upper half of a float32.

#include <bit>
#include <cstdint>

namespace th {

struct Bf16 {
  uint16_t bits = 0;
};
static_assert(sizeof(Bf16) == 2);

/// Exact.
[[gnu::always_inline]] inline float to_float(Bf16 value) {
  return std::bit_cast<float>(static_cast<uint32_t>(value.bits) << 16);
}
inline float to_float(float value) { return value; }

/// To the nearest, of two as near to the even one; beyond the largest: infinity; NaN stays NaN.
[[gnu::always_inline]] inline Bf16 to_bf16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t rounded = bits + 0x7fff + (bits >> 16 & 1);
  return {static_cast<uint16_t>((value != value ? bits | 0x400000 : rounded) >> 16)};
}

}  // namespace th
